package packages

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
)

// writerEnv makes this program a writer on a host; it holds the directory.
const writerEnv = "PMXCFS_PACKAGETEST_WRITER"

// dataDir is where the writers' files are, below the mount.
const dataDir = "load"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		if err := writeOnAndOn(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeOnAndOn makes file after file, and says the number of each one when the
// file system has said that it is there. It ends with its input. What fails it
// tries again: the daemon is away for a while.
func writeOnAndOn(dir string) error {
	stop := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(stop) }()
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for i := 1; ; {
		if err := writeFile(dir, i); err == nil {
			fmt.Println(i)
			i++
		}
		select {
		case <-stop:
			return nil
		case <-pause.C:
		}
	}
}

// content is what file i holds: more than one write of the kernel's, now and
// then.
func content(i int) string {
	return strings.Repeat(fmt.Sprintf("file %d\n", i), 1+i%37*20)
}

// writeFile makes file i under another name and renames it.
func writeFile(dir string, i int) error {
	name := filepath.Join(dir, strconv.Itoa(i))
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content(i))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// writer is a writer on a host, seen from here.
type writer struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr strings.Builder
	ended  chan struct{}

	mu   sync.Mutex    // guards what follows
	last int           // number of the last acknowledged file
	at   time.Time     // when
	gap  time.Duration // longest time between two
}

// load starts a writer on the host.
func (h host) load(t *testing.T) *writer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	const there = "/root/packagetest"
	if err := h.WriteFile(there, program, 0o755); err != nil {
		t.Fatal(err)
	}
	h.run(t, "mkdir", "-p", mount+"/"+dataDir)
	cmd, err := h.Command(t.Context(), "env", writerEnv+"="+mount+"/"+dataDir, there)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{cmd: cmd, ended: make(chan struct{}), at: time.Now()}
	cmd.Stderr = &w.stderr
	if w.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			i, err := strconv.Atoi(lines.Text())
			if err != nil {
				continue
			}
			now := time.Now()
			w.mu.Lock()
			w.last, w.gap, w.at = i, max(w.gap, now.Sub(w.at)), now
			w.mu.Unlock()
		}
	}()
	return w
}

func (w *writer) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// more waits until n more files were acknowledged.
func (w *writer) more(t *testing.T, n int) {
	t.Helper()
	want := w.acknowledged() + n
	testutil.EventuallyWithin(t, settles, func() error {
		if got := w.acknowledged(); got < want {
			return fmt.Errorf("the writer has come to %d, not to %d", got, want)
		}
		return nil
	})
}

// stop ends the writer and returns how many files were acknowledged.
func (w *writer) stop(t *testing.T) int {
	t.Helper()
	if err := w.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	<-w.ended
	if err := w.cmd.Wait(); err != nil {
		t.Fatalf("the writer: %v: %s", err, &w.stderr)
	}
	t.Logf("%d files were acknowledged, at most %v apart", w.last, w.gap.Round(time.Millisecond))
	return w.last
}

// complete checks that the host has each of the n files that were acknowledged,
// and no other but the one that the writer may have been at.
func (h host) complete(t *testing.T, n int) {
	t.Helper()
	dir, err := h.Path(mount + "/" + dataDir)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := 1; i <= n; i++ {
		got, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)))
		if err == nil && string(got) == content(i) {
			continue
		}
		if lost++; lost <= 5 {
			t.Errorf("%s: file %d: %v; it holds %.40q", h.Name(), i, err, got)
		}
	}
	if lost > 0 {
		t.Errorf("%s: %d of %d acknowledged files are not there, or not whole", h.Name(), lost, n)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > n+1 {
		t.Errorf("%s: %d files, %d of which were acknowledged", h.Name(), len(entries), n)
	}
}
