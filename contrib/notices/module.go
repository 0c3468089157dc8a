package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// module is a module that is linked in, or Go itself.
type module struct {
	Path    string
	Version string
	Files   []file // notices and licences, in the order of their names
}

// file is a notice.
type file struct {
	Name string // below the module
	path string
}

// pkg is what is asked of the go command about a package. See "go help list".
type pkg struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct {
		Path, Version string
		Main          bool
	}
}

// linked returns the modules whose packages the programs are made of, Go's first, the
// others in the order of their paths. One without a licence is an error.
func linked(goCommand string, programs ...string) ([]module, error) {
	root, err := output(goCommand, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	version, err := output(goCommand, "env", "GOVERSION")
	if err != nil {
		return nil, err
	}
	std := module{Path: "Go (runtime and standard library)", Version: version}
	if err := std.collect(root, root); err != nil {
		return nil, err
	}
	packages, err := output(goCommand, append([]string{"list", "-deps", "-json=ImportPath,Dir,Standard,Module"}, programs...)...)
	if err != nil {
		return nil, err
	}
	byPath := map[string]*module{}
	for dec := json.NewDecoder(strings.NewReader(packages)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("what go list says: %w", err)
		}
		if p.Standard || p.Module == nil || p.Module.Main {
			continue
		}
		m := byPath[p.Module.Path]
		if m == nil {
			m = &module{Path: p.Module.Path, Version: p.Module.Version}
			byPath[m.Path] = m
		}
		// The module's own directory is not told of vendored modules.
		below := strings.TrimPrefix(p.ImportPath, p.Module.Path)
		top, ok := strings.CutSuffix(p.Dir, filepath.FromSlash(below))
		if !ok {
			return nil, fmt.Errorf("package %s is in %s, which does not look like it", p.ImportPath, p.Dir)
		}
		if err := m.collect(top, p.Dir); err != nil {
			return nil, err
		}
	}
	list := []module{std}
	for _, m := range byPath {
		list = append(list, *m)
	}
	slices.SortFunc(list[1:], func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	for _, m := range list {
		if len(m.Files) == 0 {
			return nil, fmt.Errorf("module %s %s has no licence file", m.Path, m.Version)
		}
	}
	return list, nil
}

// collect adds the notices in dir and the directories above it, up to top.
func (m *module) collect(top, dir string) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(top, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			f := file{Name: filepath.ToSlash(filepath.Join(below, e.Name())), path: filepath.Join(dir, e.Name())}
			if e.Type().IsRegular() && isNotice(e.Name()) && !slices.Contains(m.Files, f) {
				m.Files = append(m.Files, f)
			}
		}
		if dir == top || len(dir) <= len(top) {
			break
		}
		dir = filepath.Dir(dir)
	}
	slices.SortFunc(m.Files, func(a, b file) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// isNotice reports whether a file of this name is one to hand on.
func isNotice(name string) bool {
	base := strings.ToUpper(name)
	switch ext := filepath.Ext(base); ext {
	case ".MD", ".TXT":
		base = strings.TrimSuffix(base, ext)
	case ".GO", ".C", ".H", ".S":
		return false
	}
	for _, prefix := range []string{"LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "PATENTS", "AUTHORS"} {
		if strings.HasPrefix(base, prefix) {
			return true
		}
	}
	return false
}

func output(command string, args ...string) (string, error) {
	cmd := exec.Command(command, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", cmd, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// write writes the text of all notices.
func write(w io.Writer, list []module) error {
	line := strings.Repeat("=", 78)
	_, err := fmt.Fprintf(w, "pmxcfs and pvecm are linked with the following, each under a licence of its own.\n")
	for _, m := range list {
		_, e := fmt.Fprintf(w, "\n%s\n%s %s\n", line, m.Path, m.Version)
		err = errors.Join(err, e)
		for _, f := range m.Files {
			text, e := os.ReadFile(f.path)
			if e != nil {
				return e
			}
			_, e = fmt.Fprintf(w, "\n--- %s ---\n\n%s\n", f.Name, strings.TrimRight(string(text), "\n"))
			err = errors.Join(err, e)
		}
	}
	return err
}
