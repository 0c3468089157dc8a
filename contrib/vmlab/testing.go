package vmlab

import (
	"context"
	"os"
	"testing"
	"time"
)

// RequireEnv set to 1 has tests boot hosts; without it they are skipped, since
// they take minutes. With it, a machine that can't have hosts fails them.
const RequireEnv = "PMXCFS_TEST_HOSTS"

// Require skips the test unless hosts are wanted, and fails it if they are but
// can't be had.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(RequireEnv) != "1" {
		t.Skipf("boots hosts: only with %s=1", RequireEnv)
	}
	if err := Missing(); err != nil {
		t.Fatal(err)
	}
}

// bootTimeout is how long New waits for a root to be made and for hosts to boot:
// for a machine under load.
const bootTimeout = 30 * time.Minute

// New boots a host of each of these releases and takes them down at the end of the
// test. If that failed, what the hosts said last is shown.
func New(t testing.TB, suites ...string) *Lab {
	t.Helper()
	return NewWith(t, Options{Suites: suites})
}

// NewWith is New with options.
func NewWith(t testing.TB, opts Options) *Lab {
	t.Helper()
	Require(t)
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	if opts.Log == nil {
		opts.Log = t.Output()
	}
	l, err := Up(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.show(t)
		}
		if err := l.Down(); err != nil {
			t.Errorf("vmlab: down: %v", err)
		}
	})
	if err := l.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// show logs the ends of consoles and journals.
func (l *Lab) show(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	const tail = 2000 // bytes
	for _, h := range l.hosts {
		text, _ := os.ReadFile(h.Console())
		t.Logf("%s, console:\n%s", h.Name(), text[max(0, len(text)-tail):])
		out, err := h.Exec(ctx, "journalctl", "--quiet", "--no-pager", "--output=short-precise", "--lines=80", "--priority=info")
		t.Logf("%s, journal (error: %v):\n%s", h.Name(), err, out)
	}
}
