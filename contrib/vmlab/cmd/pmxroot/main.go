// Command pmxroot runs a command in a throw-away root of a Debian release that has what
// building the packages needs.
//
//	pmxroot [-bind DIR]... RELEASE COMMAND [ARGUMENT...]
//
// The directories are there under their own names, and so are this machine's Go with its
// modules, and a build cache of the release's. Everything else that the command writes
// is gone afterwards.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"pmxcfs/contrib/vmlab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	// The command's own end, which has said why, or something before it.
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pmxroot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("pmxroot", flag.ContinueOnError)
	flags.SetOutput(stderr)
	r := &vmlab.RootRun{Log: stderr, Stdout: stdout, Stderr: stderr}
	flags.Func("bind", "a `directory` of this machine that is there", func(dir string) error { r.Binds = append(r.Binds, dir); return nil })
	control := flags.String("control", "debian/control", "the `file` that says what building needs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() < 2 {
		return errors.New("usage: pmxroot [-bind DIR]... RELEASE COMMAND [ARGUMENT...]")
	}
	r.Suite, r.Args = flags.Arg(0), flags.Args()[1:]
	text, err := os.ReadFile(*control)
	if err != nil {
		return err
	}
	r.Packages = append(buildDepends(string(text)), "build-essential", "lintian")
	slices.Sort(r.Packages)
	r.Packages = slices.Compact(r.Packages)
	cache, err := vmlab.GoCache(r.Cache, r.Suite)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE")
	cmd.Stdout, cmd.Stderr = &out, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	dirs := strings.Fields(out.String())
	if len(dirs) != 2 {
		return fmt.Errorf("go env says %q", &out)
	}
	r.Path = []string{filepath.Join(dirs[0], "bin")}
	// Its modules are there; it needs no network.
	r.Env = []string{"GOMODCACHE=" + dirs[1], "GOCACHE=" + cache, "GOPROXY=off", "GOTOOLCHAIN=local"}
	for _, name := range []string{"PMXCFS_COMMIT", "DEB_BUILD_OPTIONS", "SOURCE_DATE_EPOCH"} {
		if v, ok := os.LookupEnv(name); ok {
			r.Env = append(r.Env, name+"="+v)
		}
	}
	r.Binds = append(r.Binds, dirs[0], dirs[1], cache)
	return r.Run(ctx)
}

// version is what may follow a package's name in a dependency.
var version = regexp.MustCompile(`\s*(\(.*?\)|\[.*?\]|<.*?>)`)

// buildDepends lists what the Build-Depends of a debian/control name, the first of
// alternatives.
func buildDepends(control string) (names []string) {
	in := false
	for line := range strings.Lines(control) {
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "Build-Depends:"):
			in = true
			line = strings.TrimPrefix(line, "Build-Depends:")
		case in && !strings.HasPrefix(line, " "):
			return names
		}
		if !in {
			continue
		}
		for _, dep := range strings.Split(line, ",") {
			dep, _, _ = strings.Cut(dep, "|")
			dep = strings.TrimSpace(version.ReplaceAllString(dep, ""))
			if dep, ok := strings.CutPrefix(dep, "debhelper-compat"); ok {
				dep = "debhelper" + dep
				names = append(names, dep)
			} else if dep = strings.TrimSpace(dep); dep != "" {
				names = append(names, dep)
			}
		}
	}
	return names
}
