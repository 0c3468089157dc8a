package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"pmxcfs/memdb"
)

// The tests in this file run themselves once more in a child process, where a
// call of the system's that SQLite makes can be made to fail.

const childEnv = "PMXCFS_TEST_CHILD"

// inChild reports whether this is the child. The parent starts it and waits.
func inChild(t *testing.T, attr *syscall.SysProcAttr, env ...string) bool {
	t.Helper()
	if os.Getenv(childEnv) == t.Name() {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+t.Name())...)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	switch {
	case attr != nil && cmd.Process == nil:
		t.Skipf("no namespace of its own: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Fatalf("the child did not run the test:\n%s", out)
	}
	t.Logf("%s", out)
	return false
}

// faultControl is the struct by which the shim is steered.
type faultControl struct{ at, err, mode, count, fired int32 }

// loadShim compiles the shim, in the parent, or finds it, in the child.
func loadShim(t *testing.T) (env []string, control *faultControl) {
	t.Helper()
	if path := os.Getenv("FAULTS"); path != "" {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := syscall.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(faultControl{})), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		return nil, (*faultControl)(unsafe.Pointer(&b[0]))
	}
	dir := t.TempDir()
	lib, ctl := filepath.Join(dir, "faults.so"), filepath.Join(dir, "control")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", lib, filepath.Join("testdata", "faults.c"), "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	if err := os.WriteFile(ctl, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"LD_PRELOAD=" + lib, "FAULTS=" + ctl}, nil
}

// TestEveryFailingCallLeavesFileAndTreeAsTheyWere lets each call in turn that
// writes, truncates or syncs the database's files fail, in a scenario of
// transactions and checkpoints.
func TestEveryFailingCallLeavesFileAndTreeAsTheyWere(t *testing.T) {
	env, control := loadShim(t)
	if !inChild(t, nil, env...) {
		return
	}
	for _, test := range []struct {
		name  string
		mode  int32
		errno syscall.Errno
	}{
		{"once", 0, syscall.ENOSPC},
		{"once, though done", 1, syscall.EIO},
		{"from then on", 2, syscall.EIO},
	} {
		t.Run(test.name, func(t *testing.T) {
			failed := make(map[string]int)
			calls := int32(1)
			for ; faultScenario(t, control, faultControl{at: calls, err: int32(test.errno), mode: test.mode}, failed); calls++ {
				if t.Failed() {
					t.Fatalf("at call %d", calls)
				}
			}
			for _, call := range []string{"REPLACE", "UPDATE", "DELETE", "COMMIT"} {
				if failed[call] == 0 {
					t.Errorf("no %s failed: the scenario is too tame", call)
				}
			}
			t.Logf("%d calls failed in turn; what that made of it: %v", calls-1, failed)
		})
	}
}

// faultScenario runs the scenario with one fault; false if it never came to that.
func faultScenario(t *testing.T, control *faultControl, fault faultControl, failed map[string]int) (fired bool) {
	t.Helper()
	s := newStore(t)
	big := bytes.Repeat([]byte("0123456789"), 3000)
	s.mustCommit(mkdir("d"), create("d/file"), write("d/file", []byte("old")), create("gone"), write("gone", big))
	if err := s.db.w.c.Do("PRAGMA cache_size=1"); err != nil { // pages are written early
		t.Fatal(err)
	}
	*control = fault
	defer func() { *control = faultControl{} }()

	step := func(ops ...memdb.Op) {
		t.Helper()
		before := s.tree.Entries()
		wasFired := control.fired
		err := s.commit(ops...)
		was := *control
		control.at = 0 // look without being disturbed
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, syscall.Errno(fault.err)) {
				t.Errorf("the error is %v", err)
			} else {
				failed[e.Call]++
			}
			if was.fired == wasFired && fault.mode != 2 {
				t.Errorf("failed without a fault: %v", err)
			}
			sameEntries(t, s.tree.Entries(), before)
		}
		s.verify()
		control.at = was.at
	}
	for i := range 2 {
		name := fmt.Sprintf("d/new%d", i)
		step(create(name), write(name, big))
		step(mkdir(name + ".d"))
		if e, ok := s.tree.Lookup(name); ok && !e.IsDir() {
			step(rename(name, name+".moved"), write("d/file", big[:i*1000]))
		}
		if _, ok := s.tree.Lookup("gone"); ok {
			step(remove("gone"))
		}
		s.db.checkpoint()
		if err := s.db.Sync(); err != nil && !errors.Is(err, syscall.Errno(fault.err)) && !errors.Is(err, syscall.EIO) {
			t.Errorf("Sync: %v", err)
		}
	}
	fired = control.fired > 0
	control.at = 0

	// The cause is gone: all works again, and a restart finds the same.
	s.mustCommit(create("after"))
	s.verify()
	if err := s.db.Sync(); err != nil {
		t.Error(err)
	}
	want := s.tree.Entries()
	s.close()
	if exists(s.path + "-wal") {
		t.Error("the log is left")
	}
	contents, err := Read(s.path)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, contents.Entries, want)
	return fired
}

func TestCrashAfterAFailedTransactionFindsASoundFile(t *testing.T) {
	env, control := loadShim(t)
	if !inChild(t, nil, env...) {
		return
	}
	// All that is on the disk after the failure, the log included, is what a
	// process would find that comes after a kill.
	for at := int32(1); ; at++ {
		s := newStore(t)
		s.mustCommit(create("a"), write("a", []byte("old")))
		before := s.tree.Entries()
		*control = faultControl{at: at, err: int32(syscall.EIO), mode: 1}
		err := s.commit(write("a", bytes.Repeat([]byte("new"), 5000)))
		fired := control.fired > 0
		*control = faultControl{}
		if !fired {
			if at < 2 { // the log gets a transaction in one call
				t.Error("no call failed")
			}
			return
		}
		killed := filepath.Join(t.TempDir(), "config.db")
		for _, suffix := range []string{"", "-wal"} {
			// Where the connection was given up, there is no log.
			if cerr := copyFile(s.path+suffix, killed+suffix, nil); cerr != nil && !errors.Is(cerr, fs.ErrNotExist) {
				t.Fatal(cerr)
			}
		}
		contents, rerr := Read(killed)
		if rerr != nil || contents.Fatal() {
			t.Fatalf("call %d: %v", at, rerr)
		}
		if err == nil || len(contents.Entries[1].Data()) > 3 {
			continue // done all the same: allowed, if nobody goes on with the old state
		}
		sameEntries(t, contents.Entries, before)
	}
}

func TestFullDiskFailsWithENOSPCAndWorksAgainAfterwards(t *testing.T) {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if !inChild(t, attr) {
		return
	}
	// The mount goes with this process's namespace.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(disk, syscall.MNT_DETACH)

	content := bytes.Repeat([]byte("0123456789abcdef"), 700*1024/16)
	calls := make(map[string]int)
	for left := range 200 { // pages
		path := filepath.Join(disk, "config.db")
		s := openStore(t, path)
		s.mustCommit(create("keep"), write("keep", content[:20_000]), create("small"), mkdir("gone"))
		if err := s.db.w.c.Do("PRAGMA cache_size=1"); err != nil {
			t.Fatal(err)
		}
		fill(t, filepath.Join(disk, "filler"), left)

		// Each of these writes pages before its commit, or in it.
		batches := [][]memdb.Op{
			{remove("keep")},
			{write("small", content[:100])},
			{rename("gone", "moved"), write("small", content[:2000])},
			{create("big"), write("big", content)},
			{create("f1"), create("f2"), create("f3"), write("keep", nil)},
		}
		for _, batch := range [][]memdb.Op{batches[left%len(batches)], batches[(left+1)%len(batches)]} {
			if _, ok := s.tree.Lookup("keep"); !ok && batch[len(batch)-1].Path == "keep" {
				continue
			}
			err := s.commit(batch...)
			var e *Error
			if err != nil && (!errors.As(err, &e) || !errors.Is(err, syscall.ENOSPC)) {
				t.Fatalf("%d pages left: %v", left, err)
			}
			if err != nil {
				calls[e.Call]++
			}
		}
		if s.db.w != nil { // reading by another connection needs room for none
			checkThrough(t, s)
		}
		if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
			t.Fatal(err)
		}
		s.mustCommit(create("after"))
		s.verify()
		s.close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("failed: %v", calls)
	if calls["COMMIT"] == 0 || calls["REPLACE"] == 0 {
		t.Errorf("failures %v: the test is too tame", calls)
	}
}

// fill writes a file until the disk has so many pages left.
func fill(t *testing.T, path string, left int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, pageSize)
	n := int64(0)
	for {
		if _, err := f.Write(page); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := f.Truncate(max(0, n-int64(left)) * pageSize); err != nil {
		t.Fatal(err)
	}
}

// checkThrough compares the file with the tree by the writer's own connection.
func checkThrough(t *testing.T, s *store) {
	t.Helper()
	entries, problems, _, err := s.db.w.c.readEntries()
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	sameEntries(t, entries, s.tree.Entries())
}

func TestFileSizeLimitFailsWithENOSPC(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limited := 0
	for limit := uint64(8 << 10); limit < 200<<10; limit += 7000 {
		s := newStore(t)
		s.mustCommit(create("a"))
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		err := s.commit(write("a", bytes.Repeat([]byte("x"), 100_000)))
		if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil {
			t.Fatal(rerr)
		}
		if err != nil {
			limited++
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
		s.verify()
		s.mustCommit(write("a", []byte("short")))
		s.verify()
		s.close()
	}
	if limited == 0 {
		t.Error("no limit was reached")
	}
}

func TestErrorsSayWhatFailedOnWhichFile(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"))
	if err := s.db.w.c.Do("PRAGMA max_page_count=1"); err != nil {
		t.Fatal(err)
	}
	err := s.commit(write("a", make([]byte, memdb.MaxFileSize)))
	if err == nil || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.path) || !strings.Contains(err.Error(), "REPLACE failed: database or disk is full") {
		t.Errorf("%v", err)
	}
	s.verify()
	if err := s.db.w.c.Do("PRAGMA max_page_count=100000"); err != nil {
		t.Fatal(err)
	}
	w := s.db.w
	s.mustCommit(write("a", make([]byte, memdb.MaxFileSize)))
	if s.db.w != w {
		t.Error("the connection was given up for a full disk")
	}
	s.verify()
}
