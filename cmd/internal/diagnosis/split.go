package diagnosis

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
)

// Kept is what a daemon has kept when its node lost a split: as long as an administrator
// has not looked at it and removed it.
type Kept struct {
	Dir     string    `json:"dir"`
	Time    time.Time `json:"time"` // when the split was healed
	Files   int       `json:"files"`
	Empty   int       `json:"empty_directories"`
	Example string    `json:"example,omitempty"` // one of them, by its path in the tree; empty: none is to be named
}

// kept returns what lies beside the database, the newest first.
func (h *Host) kept() ([]Kept, error) {
	var top string
	var dirs []os.DirEntry
	path, err := sqlite.Resolve(h.Database)
	if err == nil {
		top = dcdb.SplitDir(path)
		dirs, err = os.ReadDir(top)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Kept
	for i := len(dirs) - 1; i >= 0; i-- { // their names begin with their time
		stamp, _, _ := strings.Cut(dirs[i].Name(), "-")
		at, err := time.Parse(dcdb.LostName, stamp)
		if err != nil || !dirs[i].IsDir() {
			continue // somebody else's
		}
		k := Kept{Dir: filepath.Join(top, dirs[i].Name()), Time: at}
		if err := k.count(); err != nil {
			return list, err
		}
		if h.Discreet {
			k.Example = ""
		}
		list = append(list, k)
	}
	return list, nil
}

// count looks for files, and for directories without entries. An empty directory is an example
// only where there is no file.
func (k *Kept) count() error {
	return fs.WalkDir(os.DirFS(k.Dir), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed at this very moment
		case err != nil:
			return err
		case !d.IsDir():
			if k.Files++; k.Files == 1 {
				k.Example = path
			}
			return nil
		case path == ".":
			return nil
		}
		in, err := os.ReadDir(filepath.Join(k.Dir, path))
		if err != nil || len(in) > 0 {
			return nil // the walk tells of the error
		}
		if k.Empty++; k.Files == 0 && k.Example == "" {
			k.Example = path
		}
		return nil
	})
}

// what says what is kept.
func (k *Kept) what() string {
	switch files, empty := plural(k.Files, "file", "files"), plural(k.Empty, "empty directory", "empty directories"); {
	case k.Empty == 0:
		return files
	case k.Files == 0:
		return empty
	default:
		return files + " and " + empty
	}
}

// bringBack is a command that brings the example back.
func (k *Kept) bringBack(mountPoint string) string {
	to := quoteShell(filepath.Join(mountPoint, k.Example))
	switch {
	case k.Example == "":
		return fmt.Sprintf("cp %s %s", quoteShell(filepath.Join(k.Dir, "PATH")), quoteShell(filepath.Join(mountPoint, "PATH")))
	case k.Files == 0:
		return "mkdir -p " + to
	}
	return fmt.Sprintf("cp %s %s", quoteShell(filepath.Join(k.Dir, k.Example)), to)
}

// shownKept is how many splits are told of one by one.
const shownKept = 3

func (f *findings) kept(o *Overview) {
	f.check = "split"
	if o.KeptError != "" {
		f.add(Info, "see to that directory", "whether files were kept after a split can't be seen: %s", o.KeptError)
	}
	for i := range o.Kept {
		k := &o.Kept[i]
		if i == shownKept {
			f.add(Warning, "look into each, as above, and remove it", "%d more directories beside %s are from earlier splits", len(o.Kept)-i, o.Kept[0].Dir)
			break
		}
		f.add(Warning, fmt.Sprintf("compare: diff -r %s %s | grep -v '^Only in %s'; bring back what is missing: %s; then: rm -r %s",
			quoteShell(k.Dir), quoteShell(o.Mount.Path), o.Mount.Path, k.bringBack(o.Mount.Path), quoteShell(k.Dir)),
			"when a split was healed (%s), another node's tree has won, which never had %s of this node's: kept in %s", when(k.Time), k.what(), k.Dir)
	}
}

// quoteShell quotes what is more than a plain word for a shell.
func quoteShell(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
