package lab

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// RequireEnv set to 1 makes a test fail, not skip, on a machine that lacks
// what a lab needs.
const RequireEnv = "PMXCFS_REQUIRE_LAB"

// QuorumTimeout is how long New waits for quorum: for a machine under load.
const QuorumTimeout = 60 * time.Second

// Require skips the test on a machine that can't have a lab, or lacks one of these
// programs; it fails it if RequireEnv says so.
func Require(t testing.TB, programs ...string) {
	t.Helper()
	err := Missing(programs...)
	switch {
	case err == nil:
	case os.Getenv(RequireEnv) == "1":
		t.Fatalf("%s=1, but: %v", RequireEnv, err)
	default:
		t.Skipf("needs a lab: %v", err)
	}
}

// TempDir makes a directory for a test that is removed at its end, as t.TempDir does; and, if
// the test is killed, by the next lab that is brought up.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, lock, err := makeDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			t.Errorf("removing %s: %v", dir, err)
		}
	})
	return dir
}

// New brings up n hosts with corosync, all members and quorate, and takes them
// down at the end of the test. If that failed, the ends of their logs are
// shown.
func New(t testing.TB, n int) *Lab {
	t.Helper()
	l := NewWith(t, Options{Hosts: n, Idle: 3}) // corosync takes a third of the processor time
	ctx, cancel := context.WithTimeout(context.Background(), QuorumTimeout)
	defer cancel()
	all := make([]int, n)
	for i := range all {
		all[i] = i + 1
	}
	if err := l.WaitMembers(ctx, all...); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitQuorum(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// NewWith is New with options; it doesn't wait for quorum.
func NewWith(t testing.TB, opts Options) *Lab {
	t.Helper()
	Require(t)
	l, err := Up(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.showLogs(t)
		}
		if err := l.Down(); err != nil {
			t.Errorf("lab: down: %v", err)
		}
	})
	return l
}

// showLogs logs the last lines of every log file.
func (l *Lab) showLogs(t testing.TB) {
	const tail = 2000 // bytes
	for _, h := range l.hosts {
		logs, _ := filepath.Glob(filepath.Join(h.dir, "*.log"))
		more, _ := filepath.Glob(filepath.Join(h.dir, "log", "*.log"))
		for _, log := range append(logs, more...) {
			text, err := os.ReadFile(log)
			if err != nil || len(text) == 0 {
				continue
			}
			t.Logf("%s %s:\n%s", h.Name(), filepath.Base(log), text[max(0, len(text)-tail):])
		}
	}
}

// Inside tells whether this process runs on a host of a lab.
func Inside() bool { return os.Getenv(HostEnv) != "" }

// selfTimeout is the longest that a test may take on a host.
const selfTimeout = 3 * time.Minute

// RunSelf runs the calling test again, alone and on the host, and fails if it
// fails there. The test tells the two apart with Inside.
func (h *Host) RunSelf(t *testing.T, env ...string) {
	t.Helper()
	name := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	limit := selfTimeout
	if end, ok := t.Deadline(); ok {
		// Before this process's own, so that its stacks are seen and the lab
		// is taken down.
		limit = max(time.Second, min(limit, time.Until(end)*9/10))
	}
	args := []string{"-test.run=" + name, "-test.v", "-test.count=1", "-test.timeout=" + limit.String()}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	out, err := h.self(t, args, env)
	ran := strings.Contains(out, "=== RUN   "+t.Name()+"\n")
	if t.Log(out); err != nil || !ran {
		t.Fatalf("on %s: %v (ran: %v)", h.Name(), err, ran)
	}
	if strings.Contains(out, "--- SKIP: "+t.Name()+" ") {
		t.Skipf("skipped on %s", h.Name())
	}
}

// BenchSelf runs the benchmark that calls it, or whose sub-benchmark does, on
// the host, and prints the results from there to standard error, with the
// sub-benchmark's name in front.
func (h *Host) BenchSelf(b *testing.B, env ...string) {
	b.Helper()
	name, sub, _ := strings.Cut(b.Name(), "/")
	args := []string{"-test.run=^$", "-test.bench=^" + name + "$", "-test.timeout=" + selfTimeout.String()}
	if f := flag.Lookup("test.benchtime"); f != nil {
		args = append(args, "-test.benchtime="+f.Value.String())
	}
	out, err := h.self(b, args, env)
	if err != nil {
		b.Fatalf("on %s: %v\n%s", h.Name(), err, out)
	}
	found := false
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, name) && strings.Contains(line, "ns/op") {
			found = true
			fmt.Fprintf(os.Stderr, "%s %s", sub, line)
		}
	}
	if !found {
		b.Fatalf("no result from %s:\n%s", h.Name(), out)
	}
}

// self runs this program again, on the host.
func (h *Host) self(t testing.TB, args, env []string) (string, error) {
	t.Helper()
	p, out := h.StartSelf(t, args, env, nil)
	var b strings.Builder
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		b.WriteString(in.Text() + "\n")
	}
	return b.String(), p.Wait()
}

// StartSelf starts this program again, on the host. Both outputs come through
// the returned file, which is closed with the test; stdin may be nil. The
// process is killed when the test ends.
func (h *Host) StartSelf(t testing.TB, args, env []string, stdin *os.File) (*Process, *os.File) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	spec := Spec{Args: append([]string{exe}, args...), Env: env, Stdout: w, Stderr: w}
	if stdin != nil {
		spec.Stdin = stdin
	}
	p, err := h.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Signal(os.Kill)
		_ = p.Wait()
		r.Close()
	})
	return p, r
}
