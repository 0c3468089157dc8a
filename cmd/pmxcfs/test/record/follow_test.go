package record

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/memdb/history"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// follower is a command that runs on a host; its lines of output.
type follower struct {
	mu    sync.Mutex
	lines []string
}

func (f *follower) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lines)
}

// follow starts a command whose output is read.
func follow(n *labtest.Node, env []string, args ...string) (*follower, *lab.Process) {
	n.T.Helper()
	path := filepath.Join(n.T.TempDir(), "output")
	out, err := os.Create(path)
	n.Must(err)
	n.T.Cleanup(func() { out.Close() })
	p, err := n.Host.Start(lab.Spec{Args: append([]string{"/bin/sh", "-c", `exec "$@" > ` + path + " 2>&1", "sh"}, args...), Env: env})
	n.Must(err)
	n.T.Cleanup(func() { _ = p.Signal(syscall.SIGKILL) })
	f := &follower{}
	in, err := os.Open(path)
	n.Must(err)
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		defer in.Close()
		r := bufio.NewReader(in)
		part := ""
		for {
			s, err := r.ReadString('\n')
			part += s
			if err == nil {
				f.mu.Lock()
				f.lines = append(f.lines, strings.TrimSuffix(part, "\n"))
				f.mu.Unlock()
				part = ""
				continue
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	n.T.Cleanup(func() { close(stop); <-done })
	return f, p
}

func TestWatchLosesNothingOverARestart(t *testing.T) {
	t.Parallel()
	n := single(t)
	n.Write("before", "x")
	f, p := follow(n, nil, labtest.Program(), "watch", "--json", "--since", "1")
	var seen []string
	wait := func(text string) {
		t.Helper()
		n.Eventually(text+" is seen", func() error {
			seen = seen[:0]
			for _, l := range f.all() {
				var e history.Event
				if json.Unmarshal([]byte(l), &e) != nil {
					continue
				}
				if e.Gap != nil {
					seen = append(seen, "gap")
				}
				for _, c := range e.Changes {
					seen = append(seen, c.Kind.String()+" "+c.Path)
				}
			}
			if !slices.Contains(seen, text) {
				return fmt.Errorf("%q", f.all())
			}
			return nil
		})
	}
	wait("write before")
	n.Write("now", "x")
	wait("write now")
	n.Stop()
	n.Start()
	n.Write("later", "x")
	wait("write later")
	want := []string{"create before", "write before", "create now", "write now", "create later", "write later"}
	if got := slices.DeleteFunc(slices.Clone(seen), func(s string) bool { return !slices.Contains(want, s) }); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	n.Must(p.Stop(syscall.SIGINT, 10*time.Second))
	if err := p.Wait(); err != nil {
		t.Errorf("after ^C: %v", err)
	}
}

func TestWatchRunsACommandForEachChangeSetOfItsPaths(t *testing.T) {
	t.Parallel()
	n := single(t)
	n.Mkdir("d")
	f, _ := follow(n, nil, labtest.Program(), "watch", "d", "--exec", `echo "$PMXCFS_KIND $PMXCFS_NODE $# $*"`)
	n.Eventually("it is heard", func() error {
		n.Write("d/probe", "x")
		if len(f.all()) == 0 {
			return errors.New("nothing yet")
		}
		return nil
	})
	n.Write("other", "x")
	n.Write("d/a", "x")
	n.Must(os.Rename(n.Path("d/a"), n.Path("d/b")))
	n.Eventually("the rename is seen", func() error {
		if l := f.all(); !slices.Contains(l, "rename node1 2 d/a d/b") {
			return fmt.Errorf("%q", l)
		}
		return nil
	})
	if l := strings.Join(f.all(), "\n"); strings.Contains(l, "other") || !strings.Contains(l, "create node1 1 d/a") {
		t.Errorf("%s", l)
	}
	g, p := follow(n, nil, labtest.Program(), "watch", "--exec", "exit 7")
	n.Eventually("a command that fails ends it", func() error {
		n.Write("d/probe", "y")
		if p.Running() {
			return fmt.Errorf("%q", g.all())
		}
		return nil
	})
	var ended *exec.ExitError
	if err := p.Wait(); !errors.As(err, &ended) || ended.ExitCode() != 7 {
		t.Errorf("it ended with %v", err)
	}
}

func TestGitMirrorHasACommitForEachChange(t *testing.T) {
	t.Parallel()
	needGit(t)
	script, err := filepath.Abs("../../../../contrib/git-mirror/git-mirror")
	if err != nil {
		t.Fatal(err)
	}
	n := single(t)
	n.Must(os.MkdirAll(n.Path("nodes/node1/qemu-server"), 0o755))
	n.Must(os.MkdirAll(n.Path("priv"), 0o700))
	n.Write("priv/secret", "s3cret")
	n.Write("storage.cfg", "dir: local\n")
	dir := filepath.Join(t.TempDir(), "mirror")
	env := append(os.Environ(), "PMXCFS="+labtest.Program(), "HOME="+t.TempDir())
	git := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "safe.directory=*"}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%s%v", out, err)
		}
		return string(out)
	}
	wait := func(title string) {
		t.Helper()
		n.Eventually("the commit "+title, func() error {
			if log := git("log", "--format=%s"); !strings.Contains(log, title+"\n") {
				return errors.New(log)
			}
			return nil
		})
	}
	f, p := follow(n, env, "/bin/sh", script, dir)
	n.Eventually("the first commit", func() error {
		if log := git("log", "--format=%s"); !strings.HasPrefix(log, "the tree of version") {
			return fmt.Errorf("%s %q", log, f.all())
		}
		return nil
	})
	n.Write(guest, "cores: 2\n")
	wait("write " + guest)
	n.Write("priv/secret", "n3w")
	n.Must(os.Rename(n.Path("storage.cfg"), n.Path("storage.old")))
	wait("rename storage.cfg and other paths")
	n.Must(p.Signal(syscall.SIGKILL))
	n.Write(guest, "cores: 4\n")
	n.Remove("storage.old")
	n.Write("new", "x")
	follow(n, env, "/bin/sh", script, dir)
	wait("write new")
	if log := git("log", "--format=%s %an", "--", guest); log != "write "+guest+" node1\nwrite "+guest+" node1\n" && !strings.Contains(log, "create "+guest) {
		t.Errorf("log of the guest: %q", log)
	}
	if text := git("show", "HEAD:"+guest); text != "cores: 4\n" {
		t.Errorf("%q", text)
	}
	if files := git("ls-files"); files != "new\n"+guest+"\n" {
		t.Errorf("files: %q", files)
	}
	if all := git("log", "-p"); strings.Contains(all, "s3cret") || strings.Contains(all, "n3w") {
		t.Error("a secret is in the repository")
	}
}
