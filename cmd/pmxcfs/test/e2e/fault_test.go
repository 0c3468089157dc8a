package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const wal = "config.db-wal"

// onFaultFS makes a node whose database is on a failing file system.
func onFaultFS(t *testing.T) (*instance, *faultFS) {
	t.Helper()
	f := newFaultFS(t)
	n := newRaced(t)
	n.db = filepath.Join(f.dir, "config.db")
	return n, f
}

func (n *instance) startOn(f *faultFS) {
	n.t.Helper()
	n.start("--database", filepath.Join(f.dir, "config.db"))
}

func failWrites(errno syscall.Errno) func(call, name string) syscall.Errno {
	return func(call, _ string) syscall.Errno {
		if call == "write" {
			return errno
		}
		return 0
	}
}

// writeAndClose writes to a file and returns the errors of both calls.
func writeAndClose(path string, flags int, data string) (open, write, closing error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return err, nil, nil
	}
	_, write = unix.Write(fd, []byte(data))
	return nil, write, unix.Close(fd)
}

// TestFailedChangesAreReportedAndNotShown makes writing to the database fail
// for a while.
func TestFailedChangesAreReportedAndNotShown(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			n, f := onFaultFS(t)
			n.startOn(f)
			n.mkdir("d/sub")
			n.write("d/file", "old")
			n.write("d/other", "other")
			before, err := readState(n.path("d"))
			must(t, err)

			f.fail(failWrites(errno))
			for what, err := range map[string]error{
				"create":   errOf(os.Create(n.path("d/new"))),
				"mkdir":    os.Mkdir(n.path("d/newdir"), 0o755),
				"rmdir":    unix.Rmdir(n.path("d/sub")),
				"unlink":   unix.Unlink(n.path("d/other")),
				"rename":   os.Rename(n.path("d/file"), n.path("d/moved")),
				"onto":     os.Rename(n.path("d/file"), n.path("d/other")),
				"truncate": os.Truncate(n.path("d/file"), 1),
				"utime":    unix.Utimes(n.path("d/file"), []unix.Timeval{{}, {Sec: 5}}),
			} {
				if !errors.Is(err, errno) {
					t.Errorf("%s answers %v, want %v", what, err, errno)
				}
			}
			open, write, closing := writeAndClose(n.path("d/file"), unix.O_WRONLY|unix.O_TRUNC, "new")
			if !errors.Is(errors.Join(open, write), errno) { // before close, which hardly any program looks at
				t.Errorf("open, write, close answer %v, %v, %v; want %v before close", open, write, closing, errno)
			}
			showsSoon(t, n, "d", before)
			n.wantLog("storing a change failed")
			if log := n.logText(); !strings.Contains(log, "config.db: COMMIT failed") && !strings.Contains(log, "config.db: BEGIN failed") {
				t.Error("the log does not say which call failed")
			}

			f.fail(nil)
			n.write("d/file", "new")
			n.write("d/new", "content")
			must(t, os.Rename(n.path("d/file"), n.path("d/moved")))
			want := maps.Clone(before)
			want["moved"], want["new"] = "new", "content"
			delete(want, "file")
			showsSoon(t, n, "d", want)
			n.wantLog("the database can be written again")
			n.stop()
			n.startOn(f)
			showsSoon(t, n, "d", want)
			n.stop()
		})
	}
}

func errOf(f *os.File, err error) error {
	if err == nil {
		err = f.Close()
	}
	return err
}

// showsSoon waits until a directory shows a state: names that the kernel has
// cached go a moment after what failed was taken back.
func showsSoon(t *testing.T, n *instance, dir string, want state) {
	t.Helper()
	var got state
	n.eventually(dir+" shows what was stored", func() bool {
		var err error
		got, err = readState(n.path(dir))
		return err == nil && maps.Equal(got, want)
	})
}

// TestEveryWriteToTheFileMayFail fails one write of each operation after the
// other, until the operation needs no more.
func TestEveryWriteToTheFileMayFail(t *testing.T) {
	quiet(t)
	n, f := onFaultFS(t)
	n.startOn(f)
	n.mkdir("d")
	w := &history{states: []state{{}}}
	path := func(name string) string { return n.path("d/" + name) }
	file := func(name string, flags int, data string) error {
		open, write, closing := writeAndClose(path(name), unix.O_WRONLY|flags, data)
		return errors.Join(open, write, closing)
	}
	failures := 0
	for _, op := range []struct {
		what   string
		do     func() error
		change []func(state) // the states that it goes through
	}{
		{"create", func() error { return file("a", unix.O_CREAT|unix.O_EXCL, "") }, []func(state){func(s state) { s["a"] = "" }}},
		{"write", func() error { return file("a", 0, strings.Repeat("x", 9000)) }, []func(state){func(s state) { s["a"] = strings.Repeat("x", 9000) }}},
		{"overwrite", func() error { return file("a", unix.O_TRUNC, "short") }, []func(state){func(s state) { s["a"] = "short" }}},
		{"append", func() error { return file("a", unix.O_APPEND, "er") }, []func(state){func(s state) { s["a"] = "shorter" }}},
		{"truncate", func() error { return os.Truncate(path("a"), 3) }, []func(state){func(s state) { s["a"] = "sho" }}},
		{"mkdir", func() error { return os.Mkdir(path("m"), 0o755) }, []func(state){func(s state) { s["m"] = dirMark }}},
		{"create and write", func() error { return file("b", unix.O_CREAT|unix.O_TRUNC, "b") }, []func(state){func(s state) { s["b"] = "" }, func(s state) { s["b"] = "b" }}},
		{"rename", func() error { return os.Rename(path("a"), path("b")) }, []func(state){func(s state) { s["b"] = s["a"]; delete(s, "a") }}},
		{"rmdir", func() error { return unix.Rmdir(path("m")) }, []func(state){func(s state) { delete(s, "m") }}},
		{"unlink", func() error { return unix.Unlink(path("b")) }, []func(state){func(s state) { delete(s, "b") }}},
	} {
		for k := 1; ; k++ {
			if k > 60 {
				t.Fatalf("%s: it never succeeds", op.what)
			}
			count := 0
			f.fail(func(call, _ string) syscall.Errno {
				if call == "write" || call == "truncate" || call == "create" {
					if count++; count == k {
						return syscall.EIO
					}
				}
				return 0
			})
			before := w.now()
			for _, c := range op.change {
				w.may(c)
			}
			err := op.do()
			f.fail(nil)
			if err == nil {
				w.stored()
				showsSoon(t, n, "d", w.now())
				break
			}
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("%s with write %d failing answers %v", op.what, k, err)
			}
			failures++
			// A part of several may have been stored; the whole may not.
			w.states = w.states[:len(w.states)-1]
			if len(w.states) == 1 {
				showsSoon(t, n, "d", before)
				continue
			}
			found, err := readState(n.path("d"))
			must(t, err)
			if err := w.settle(found); err != nil {
				t.Fatalf("%s with write %d failing: %v", op.what, k, err)
			}
			if len(found) != len(before) { // put it back for the next round
				must(t, os.Remove(path("b")))
				w.may(func(s state) { delete(s, "b") })
				w.stored()
			}
		}
	}
	if failures < 10 {
		t.Errorf("only %d operations failed", failures)
	}
	n.write("d/last", "last")
	n.stop()
	if got := treeOf(t, n.db); !maps.Equal(got, state{"d": dirMark, "d/last": "last"}) {
		t.Errorf("the file holds %v", got)
	}
}

// TestCheckpointThatFailsHoldsNobodyUp lets writes to the main file fail, which
// only a checkpoint makes.
func TestCheckpointThatFailsHoldsNobodyUp(t *testing.T) {
	n, f := onFaultFS(t)
	n.startOn(f)
	f.fail(func(call, name string) syscall.Errno {
		if call == "write" && name == "config.db" {
			return syscall.ENOSPC
		}
		return 0
	})
	for i := range 24 {
		n.write(fmt.Sprint("f", i), strings.Repeat("x", 1<<19))
	}
	n.wantLog("checkpoint failed")
	f.fail(nil)
	for i := range 24 {
		n.wantContent(fmt.Sprint("f", i), strings.Repeat("x", 1<<19))
	}
	n.stop()
	if got := treeOf(t, n.db); len(got) != 24 {
		t.Errorf("the file holds %d files", len(got))
	}
}

// TestFsyncReachesTheDiskAndReportsFailure looks at the calls that fsync makes.
func TestFsyncReachesTheDiskAndReportsFailure(t *testing.T) {
	n, f := onFaultFS(t)
	n.startOn(f)
	fd, err := unix.Open(n.path("file"), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o640)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("content"))
	must(t, err)
	before := f.synchronised(wal)
	must(t, unix.Fsync(fd))
	if f.synchronised(wal) == before {
		t.Error("fsync did not sync the write-ahead log")
	}
	f.mu.Lock()
	if !strings.Contains(string(f.synced[wal]), "content") {
		t.Error("what was synced does not have the content")
	}
	f.mu.Unlock()

	dir, err := unix.Open(n.mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(dir)
	before = f.synchronised(wal)
	must(t, unix.Mkdir(n.path("d"), 0o755))
	must(t, unix.Fsync(dir))
	if f.synchronised(wal) == before {
		t.Error("fsync of a directory did not sync the write-ahead log")
	}

	f.fail(func(call, _ string) syscall.Errno {
		if call == "fsync" {
			return syscall.EIO
		}
		return 0
	})
	for i := range 2 { // the kernel tells of a failure once: the second one must not pass for success
		if err := unix.Fsync(fd); !errors.Is(err, syscall.EIO) {
			t.Errorf("fsync %d answers %v, want EIO", i, err)
		}
	}
	f.fail(nil)
	must(t, unix.Fsync(fd))
	n.wantContent("file", "content")
	n.stop()
}

// TestSyncedChangesSurviveAPowerCut cuts the power over and over: what was
// synced is there, of what was not, anything may be.
func TestSyncedChangesSurviveAPowerCut(t *testing.T) {
	s := seed(t)
	rnd := rand.New(rand.NewPCG(s, 0))
	quiet(t)
	n, f := onFaultFS(t)
	n.program = program() // one client, and many starts
	cuts := 8
	if *longFlag {
		cuts = 200
	}
	n.startOn(f)
	n.mkdir("d")
	w := &writer{history: history{states: []state{{}}, power: true}, dir: n.path("d"), name: "w", rnd: rnd}
	dir, err := unix.Open(n.mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Fsync(dir))
	unix.Close(dir)
	for cut := range cuts {
		for range 5 + rnd.IntN(60) {
			must(t, w.step())
			if rnd.IntN(8) == 0 {
				dir, err := unix.Open(w.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				must(t, err)
				must(t, unix.Fsync(dir))
				unix.Close(dir)
				w.synced()
			}
		}
		n.kill()
		other := newInstance(t)
		f.powerCut(t, rnd, filepath.Dir(other.db))
		other.start()
		h := history{states: w.states}
		if err := h.settle(mustState(t, other.path("d"))); err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		other.stop()
		n.startOn(f)
		if got := mustState(t, n.path("d")); !maps.Equal(got, w.now()) {
			t.Fatalf("after the kill: %v", w.settle(got))
		}
	}
	n.stop()
}

func mustState(t *testing.T, dir string) state {
	t.Helper()
	s, err := readState(dir)
	must(t, err)
	return s
}
