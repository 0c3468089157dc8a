package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
)

// testMount is a mounted file system on a real database.
type testMount struct {
	t      testing.TB
	dir    string
	fs     *FS
	tree   *memdb.Tree
	store  *testStore
	debug  atomic.Value           // content of .debug
	answer atomic.Pointer[func()] // called when a listing is about to be answered; nil: nothing is
	served
}

// testStore is a local store whose quorum a test can take away.
type testStore struct {
	*dcdb.Local
	lost   atomic.Bool
	delay  time.Duration // of each Do
	writes atomic.Int64  // operations that reached the store

	mu  sync.Mutex
	ops []memdb.Op // the same operations
}

func (s *testStore) Quorate() bool { return !s.lost.Load() }

func (s *testStore) note(op *memdb.Op) {
	s.writes.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *op
	c.Data = bytes.Clone(op.Data)
	s.ops = append(s.ops, c)
}

func (s *testStore) last() memdb.Op {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops[len(s.ops)-1]
}

func (s *testStore) Do(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, error) {
	time.Sleep(s.delay)
	s.note(op)
	if s.lost.Load() {
		return memdb.Change{}, syscall.EACCES
	}
	return s.Local.Do(cancel, op)
}

func (s *testStore) Write(cancel <-chan struct{}, op *memdb.Op, wait bool) (memdb.Change, *dcdb.Commit, error) {
	s.note(op)
	if s.lost.Load() {
		return memdb.Change{}, nil, syscall.EACCES
	}
	return s.Local.Write(cancel, op, wait)
}

const testGID = 33

func needFUSE(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err == nil {
			f.Close()
			return
		}
	}
	if os.Getenv("PMXCFS_REQUIRE_LAB") == "1" {
		t.Fatal("these tests need root and /dev/fuse")
	}
	t.Skip("needs root and /dev/fuse")
}

// mountTest mounts a new file system; wrap may put a database of its own around
// the real one.
func mountTest(t testing.TB, wrap func(dcdb.Database) dcdb.Database) *testMount {
	t.Helper()
	return mountNode(t, wrap, false)
}

// mountNode does the same; what is shared other nodes change, too.
func mountNode(t testing.TB, wrap func(dcdb.Database) dcdb.Database, shared bool) *testMount {
	t.Helper()
	return mountChecked(t, wrap, shared, false)
}

// mountChecked does the same; permissions may be left to the kernel.
func mountChecked(t testing.TB, wrap func(dcdb.Database) dcdb.Database, shared, kernelChecks bool) *testMount {
	t.Helper()
	needFUSE(t)
	db, entries, _, err := sqlite.Open(sqlite.Config{Path: filepath.Join(t.TempDir(), "config.db")})
	if err != nil {
		t.Fatal(err)
	}
	tree, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	var base dcdb.Database = db
	if wrap != nil {
		base = wrap(db)
	}
	m := &testMount{t: t, dir: t.TempDir(), tree: tree, store: &testStore{}}
	m.debug.Store("0\n")
	log := slog.New(slog.DiscardHandler)
	m.fs = New(Config{
		Specials: []Special{
			{Name: ".version", Mode: 0o440, Read: func() []byte { return []byte("{}\n") }},
			{Name: ".debug", Mode: 0o640,
				Read: func() []byte { return []byte(m.debug.Load().(string)) },
				Write: func(b []byte) error {
					if s := string(b); s == "0\n" || s == "1\n" {
						m.debug.Store(s)
						return nil
					}
					return errors.New("no")
				}},
		},
		Links: []Link{{Name: "local", Target: "nodes/alpha"}},
		UID:   0, GID: testGID, Log: log,
		Observer: &m.served,
	})
	m.store.Local = dcdb.NewLocal(dcdb.Config{Tree: tree, DB: base, Log: log, Observer: m.fs})
	m.fs.SetStore(m.store)
	if shared {
		m.fs.Share()
	}
	m.fs.kernelChecks = kernelChecks
	m.fs.answering = func() {
		if f := m.answer.Load(); f != nil {
			(*f)()
		}
	}
	mount, err := m.fs.Mount(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := refusePolling(m.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(); err != nil {
			t.Error(err)
		}
		if err := m.store.Close(); err != nil {
			t.Error(err)
		}
		if left, err := mountedOn(m.dir); err != nil || left.kind != "" {
			t.Errorf("a mount is left: %v, %v", left, err)
		}
	})
	return m
}

func (m *testMount) path(name string) string { return filepath.Join(m.dir, name) }

func (m *testMount) write(name, content string) {
	m.t.Helper()
	if err := os.WriteFile(m.path(name), []byte(content), 0o640); err != nil {
		m.t.Fatal(err)
	}
}

func (m *testMount) mkdir(name string) {
	m.t.Helper()
	if err := os.MkdirAll(m.path(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *testMount) want(name, content string) {
	m.t.Helper()
	got, err := os.ReadFile(m.path(name))
	if err != nil || string(got) != content {
		m.t.Errorf("%s holds %q (%v), want %q", name, got, err, content)
	}
}

func (m *testMount) stat(name string) *syscall.Stat_t {
	m.t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(m.path(name), &st); err != nil {
		m.t.Fatalf("stat %s: %v", name, err)
	}
	return &st
}

func (m *testMount) open(name string, flags int) *os.File {
	m.t.Helper()
	f, err := os.OpenFile(m.path(name), flags, 0o640)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { f.Close() })
	return f
}

// foreign applies an operation as a delivery from another node would: behind
// the kernel's back.
func (m *testMount) foreign(op memdb.Op) {
	m.t.Helper()
	op.Writer, op.MTime = 2, 1700000000
	res, err := m.tree.Apply(&op)
	if err != nil {
		m.t.Fatal(err)
	}
	m.fs.Applied(&op, res.Changes, true)
}

func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// refusePolling has the kernel learn, from the first poll, that files here can't
// be polled. Otherwise a Go program that opens one in the process that serves
// the mount, as tests do, waits in its poller for itself. (The daemon never
// opens one: killed while it waits for itself, it would never end.) go-fuse
// answers for the name used here.
func refusePolling(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return errors.Join(err, unix.Close(fd))
}

// TestMain is, in a child of a test, a process whose first thread ends and whose
// others stay.
func TestMain(m *testing.M) {
	if who := os.Getenv(callerEnv); who != "" {
		callerMain(who)
	}
	if os.Getenv("FUSE_TEST_HEADLESS") != "" {
		runtime.LockOSThread()
		go func() {
			fmt.Println("here") // from another thread, the first one being locked
			time.Sleep(time.Minute)
		}()
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
	os.Exit(m.Run())
}

func init() {
	if os.Getenv("FUSE_TEST_HEADLESS") != "" {
		runtime.LockOSThread() // main runs on the first thread
	}
}

func TestZombieIsDyingOnlyWhileItHasThreads(t *testing.T) {
	t.Parallel()
	if Dying(os.Getpid()) {
		t.Error("a living process is dying")
	}
	dead := exec.Command("sleep", "60")
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	defer dead.Wait()
	if err := dead.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitState(t, dead.Process.Pid, "Z")
	if Dying(dead.Process.Pid) {
		t.Error("a killed process that only waits to be collected counts as dying")
	}

	headless := exec.Command("/proc/self/exe")
	headless.Env = append(os.Environ(), "FUSE_TEST_HEADLESS=1")
	if err := headless.Start(); err != nil {
		t.Fatal(err)
	}
	defer headless.Wait()
	defer headless.Process.Kill()
	waitState(t, headless.Process.Pid, "Z")
	if !Dying(headless.Process.Pid) {
		t.Error("a process whose first thread has ended and that has others does not count as dying")
	}
}

// waitState waits until a process's first thread is in a state.
func waitState(t *testing.T, pid int, state string) {
	t.Helper()
	testutil.Eventually(t, "the process's state", func() error {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if _, now, _ := strings.Cut(string(b), ") "); err == nil && !strings.HasPrefix(now, state) {
			err = fmt.Errorf("process %d: %.1s, not %s", pid, now, state)
		}
		return err
	})
}

func TestMountPointIsResolvedWithoutAskingWhatIsMounted(t *testing.T) {
	needFUSE(t)
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, link := filepath.Join(base, "real", "pve"), filepath.Join(base, "link")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("real/pve", link)); err != nil {
		t.Fatal(err)
	}
	fd, err := mountDirect(dir) // nobody answers here
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	defer syscall.Close(fd)
	for _, path := range []string{link, dir, filepath.Join(base, "real", "..", "link")} {
		if got, err := Resolve(path); err != nil || got != dir {
			t.Errorf("%s is %s, %v", path, got, err)
		}
	}
	absent := filepath.Join(link+"-not", "pve")
	if got, err := Resolve(absent); err != nil || got != absent {
		t.Errorf("%s is %s, %v", absent, got, err)
	}
}

// What is mounted over the file system does not make it unmounted.
func TestAbortedMountBelowAnotherOneIsNoUnmount(t *testing.T) {
	needFUSE(t)
	dir := t.TempDir()
	var told uint32
	fs := New(Config{Store: &testStore{Local: dcdb.NewLocal(dcdb.Config{Tree: memdb.New(), Log: slog.New(slog.DiscardHandler)})},
		Log: slog.New(slog.DiscardHandler), Mounted: func(c uint32) { told = c }})
	mount, err := fs.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	if there, ok, err := Connection(dir); err != nil || !ok || told != there {
		t.Errorf("told of connection %d, there is %d, %v, %v", told, there, ok, err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := abort(told); err != nil {
		t.Fatal(err)
	}
	<-mount.Done()
	if err := mount.Err(); !errors.Is(err, ErrAborted) {
		t.Errorf("it ended with %v", err)
	}
}
