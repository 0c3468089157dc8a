package fuse

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"pmxcfs/memdb"
)

// callerEnv makes this program one that uses two mounts with the rights of somebody.
const callerEnv = "FUSE_TEST_CALLER"

// person is somebody with certain rights.
type person struct {
	Name       string
	UID, EUID  int
	GID        int
	Groups     []int
	Keep       []int // capabilities; nil means all, of root
	None       bool  // no capabilities, of root
	Namespace  []syscall.SysProcIDMap
	NSGroups   []syscall.SysProcIDMap
	OwnPIDs    bool // a pid name space, as a container has
	Descriptor bool // opens private directories before it loses its rights
}

func people() []person {
	whole := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 100000}}
	return []person{
		{Name: "root"},
		{Name: "root without capabilities", None: true},
		{Name: "root who may search", Keep: []int{unix.CAP_DAC_READ_SEARCH}},
		{Name: "www-data", UID: testGID, EUID: testGID, GID: testGID},
		{Name: "in group www-data", UID: 1000, EUID: 1000, GID: 1000, Groups: []int{4, testGID, 1000}, Descriptor: true},
		{Name: "in group www-data, in a container", UID: 1000, EUID: 1000, GID: 1000, Groups: []int{testGID}, OwnPIDs: true},
		{Name: "a stranger", UID: 1001, EUID: 1001, GID: 1001, Groups: []int{1001, 3, 333}},
		{Name: "a stranger with descriptors", UID: 1001, EUID: 1001, GID: 1001, Descriptor: true},
		{Name: "who may read and search", UID: 1002, EUID: 1002, GID: 1002, Keep: []int{unix.CAP_DAC_READ_SEARCH}},
		{Name: "who may override", UID: 1003, EUID: 1003, GID: 1003, Keep: []int{unix.CAP_DAC_OVERRIDE}},
		{Name: "who may act as owner", UID: 1004, EUID: 1004, GID: 1004, Keep: []int{unix.CAP_FOWNER, unix.CAP_CHOWN}},
		{Name: "a set-user-ID program of a stranger", UID: 1005, EUID: 0, GID: 1005},
		{Name: "a set-user-ID program of root", UID: 0, EUID: 1006, GID: 1006},
		{Name: "root of a name space of strangers", Namespace: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}, NSGroups: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}},
		{Name: "www-data's group as root's of a name space", Namespace: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1007, Size: 1}}, NSGroups: []syscall.SysProcIDMap{{ContainerID: 0, HostID: testGID, Size: 1}}},
		{Name: "root in a name space", Namespace: whole, NSGroups: whole},
		{Name: "root in a name space without www-data", Namespace: whole, NSGroups: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 5}}},
		{Name: "who may override in a name space", UID: 1008, EUID: 1008, GID: 1008, Keep: []int{unix.CAP_DAC_OVERRIDE}, Namespace: whole, NSGroups: whole},
	}
}

// call is a system call on something in both mounts.
type call struct {
	Name string
	Path string
	To   string // another path
	A, B int
	At   int // of Path: 0: the mount, otherwise one of the descriptors
}

func (c call) String() string {
	s := fmt.Sprintf("%s %q", c.Name, c.Path)
	if c.To != "" {
		s += fmt.Sprintf(" %q", c.To)
	}
	return fmt.Sprintf("%s %#o %#o, from descriptor %d", s, c.A, c.B, c.At)
}

// outcome is what came of a call, in one mount.
type outcome struct {
	Errno  syscall.Errno
	Result string
}

func (o outcome) String() string {
	if o.Errno != 0 {
		return o.Errno.Error()
	}
	return strings.TrimSpace("ok " + o.Result)
}

// descriptors are those that a person with Descriptor has, as O_PATH or for reading.
var descriptors = []struct {
	path  string
	flags int
}{{"priv", unix.O_PATH}, {"priv", unix.O_RDONLY}, {"nodes/a/priv", unix.O_PATH}, {"priv/f", unix.O_PATH}, {"f", unix.O_PATH}, {"a", unix.O_PATH}}

// callerMain carries out the calls that come in and tells what came of each.
func callerMain(who string) {
	runtime.LockOSThread()
	var p person
	fail := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "caller %s: %s: %v\n", p.Name, what, err)
			os.Exit(1)
		}
	}
	fail("parsing", json.Unmarshal([]byte(who), &p))
	roots := os.Args[1:3]
	fds := make([][]int, len(roots))
	for i, root := range roots {
		fds[i] = []int{-1}
		for _, d := range descriptors {
			fd := -1
			if p.Descriptor {
				fd, _ = unix.Open(filepath.Join(root, d.path), d.flags|unix.O_CLOEXEC, 0)
			}
			fds[i] = append(fds[i], fd)
		}
	}
	fail("rights", p.become())
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var c call
		if in.Decode(&c) != nil {
			os.Exit(0)
		}
		var both [2]outcome
		for i, root := range roots {
			both[i] = c.make(root, fds[i])
		}
		fail("answering", out.Encode(both))
	}
}

// become gives the calling thread a person's rights; it goes by system calls that, unlike the
// library's, are about one thread only.
func (p *person) become() error {
	raw := func(nr uintptr, a, b, c uintptr) error {
		if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
			return errno
		}
		return nil
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	groups := make([]uint32, len(p.Groups)+1)
	for i, g := range p.Groups {
		groups[i] = uint32(g)
	}
	if err := raw(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := raw(unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := raw(unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.EUID), uintptr(p.EUID)); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	if p.Keep == nil && !p.None {
		return nil // what the kernel has left
	}
	var mask uint64
	for _, c := range p.Keep {
		mask |= 1 << c
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(mask), Permitted: uint32(mask)},
		{Effective: uint32(mask >> 32), Permitted: uint32(mask >> 32)},
	}
	return raw(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
}

// make makes the call in a mount.
func (c call) make(root string, fds []int) outcome {
	at, path := unix.AT_FDCWD, filepath.Join(root, c.Path)
	if c.At > 0 {
		if at, path = fds[c.At], c.Path; at < 0 {
			return outcome{}
		}
	}
	said := ""
	err := func() error {
		switch c.Name {
		case "stat":
			var st unix.Stat_t
			err := unix.Fstatat(at, path, &st, c.A)
			said = fmt.Sprintf("%o %d", st.Mode, st.Nlink)
			return err
		case "open":
			fd, err := unix.Openat(at, path, c.A|unix.O_CLOEXEC|unix.O_NONBLOCK, uint32(c.B))
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if c.A&unix.O_PATH != 0 {
				return nil
			}
			buf := make([]byte, 64)
			n, err := unix.Read(fd, buf)
			said = fmt.Sprintf("read %q %v", buf[:max(n, 0)], err)
			if c.A&unix.O_ACCMODE != unix.O_RDONLY {
				_, err = unix.Write(fd, []byte("xyz"))
				said += fmt.Sprintf(", write %v, ftruncate %v", err, unix.Ftruncate(fd, 2))
			}
			return nil
		case "list":
			fd, err := unix.Openat(at, path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), path)
			defer f.Close()
			names, err := f.Readdirnames(-1)
			slices.Sort(names)
			said = strings.Join(names, " ")
			return err
		case "access":
			_, _, errno := unix.RawSyscall(unix.SYS_FACCESSAT, uintptr(at), pointer(path), uintptr(c.A))
			return nonzero(errno)
		case "eaccess":
			_, _, errno := unix.RawSyscall6(unix.SYS_FACCESSAT2, uintptr(at), pointer(path), uintptr(c.A), unix.AT_EACCESS, 0, 0)
			return nonzero(errno)
		case "chdir":
			defer unix.Chdir("/")
			return unix.Chdir(path)
		case "chdir and open":
			defer unix.Chdir("/")
			if c.At > 0 {
				if err := unix.Fchdir(at); err != nil {
					return err
				}
			} else if err := unix.Chdir(path); err != nil {
				return err
			}
			fd, err := unix.Open(c.To, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		case "reopen": // what a descriptor is of
			fd, err := unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d", at), c.A|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		case "by handle":
			h, mount, err := unix.NameToHandleAt(at, path, 0)
			if err != nil {
				return err
			}
			_ = mount
			dir, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(dir)
			fd, err := unix.OpenByHandleAt(dir, h, c.A|unix.O_NONBLOCK)
			if err == nil {
				unix.Close(fd)
			}
			return err
		case "mkdir":
			return unix.Mkdirat(at, path, 0o755)
		case "mknod":
			return unix.Mknodat(at, path, uint32(c.A)|0o644, 0)
		case "symlink":
			return unix.Symlinkat("f", at, path)
		case "unlink":
			return unix.Unlinkat(at, path, c.A)
		case "rename":
			return unix.Renameat2(at, path, unix.AT_FDCWD, filepath.Join(root, c.To), uint(c.A))
		case "truncate":
			return unix.Truncate(path, int64(c.A))
		case "tmpfile":
			fd, err := unix.Openat(at, path, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			if err == nil {
				unix.Close(fd)
			}
			return err
		case "chmod":
			return unix.Fchmodat(at, path, uint32(c.A), 0)
		case "chown":
			return unix.Fchownat(at, path, c.A, c.B, 0)
		case "times":
			ts := []unix.Timespec{{Sec: 1e9, Nsec: int64(c.A)}, {Sec: 1e9, Nsec: int64(c.B)}}
			return unix.UtimesNanoAt(at, path, ts, 0)
		case "exec":
			pid, err := syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
			if err == nil {
				var ws syscall.WaitStatus
				_, err = syscall.Wait4(pid, &ws, 0, nil)
			}
			return err
		case "readlink":
			buf := make([]byte, 100)
			n, err := unix.Readlinkat(at, path, buf)
			said = string(buf[:max(n, 0)])
			return err
		}
		return syscall.ENOSYS
	}()
	o := outcome{Result: said}
	if err != nil {
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = syscall.Errno(255)
			if path, ok := err.(*os.PathError); ok {
				errno, _ = path.Err.(syscall.Errno)
			}
		}
		o = outcome{Errno: errno}
	}
	return o
}

func pointer(s string) uintptr {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	return uintptr(unsafe.Pointer(p))
}

func nonzero(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// caller is a process that a person works with.
type caller struct {
	person
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func startCaller(t *testing.T, p person, roots ...string) *caller {
	t.Helper()
	who, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{person: p, cmd: exec.Command("/proc/self/exe", roots...)}
	c.cmd.Env = append(os.Environ(), callerEnv+"="+string(who))
	c.cmd.Stderr = os.Stderr
	c.cmd.Dir = "/"
	attr := &syscall.SysProcAttr{}
	if p.Namespace != nil {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings, attr.GidMappings = p.Namespace, p.NSGroups
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{}
	}
	if p.OwnPIDs {
		attr.Cloneflags |= syscall.CLONE_NEWPID
	}
	c.cmd.SysProcAttr = attr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		in.Close()
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	})
	return c
}

func (c *caller) do(t *testing.T, x call) (both [2]outcome) {
	t.Helper()
	if err := c.in.Encode(x); err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	if err := c.out.Decode(&both); err != nil {
		t.Fatalf("%s: %s: %v", c.Name, x, err)
	}
	return both
}

// sameAnswer reports whether a mount's answer is the one that the kernel's checks give. Who is
// refused may be refused for another reason where the kernel finds one before it asks: that it is a
// directory, or none; or that the other path of two leads nowhere.
func sameAnswer(x call, ours, oracle outcome) bool {
	if ours == oracle {
		return true
	}
	refused := oracle.Errno == syscall.EACCES || oracle.Errno == syscall.EPERM
	wrongType := ours.Errno == syscall.EISDIR || ours.Errno == syscall.ENOTDIR
	switch x.Name {
	case "unlink":
		return refused && wrongType
	case "rename":
		return refused && (wrongType || ours.Errno == syscall.ENOENT)
	}
	return false
}

// quiet waits until the kernel has been told everything.
func (m *testMount) quiet() {
	for m.fs.Stats().Pending > 0 {
		time.Sleep(50 * time.Microsecond)
	}
}

// pick returns one of the list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func randomPath(r *rand.Rand) string {
	parts := []string{pick(r, "a", "b", "f", "nodes", "priv", "nodes", "priv", "local", ".version", ".debug", "101.start")}
	for r.IntN(5) > 1 && len(parts) < 4 {
		parts = append(parts, pick(r, "a", "b", "f", "g", "priv", "priv", "101.start"))
	}
	return strings.Join(parts, "/")
}

func randomCall(r *rand.Rand) call {
	c := call{Path: randomPath(r)}
	switch r.IntN(24) {
	case 0, 1, 2:
		c.Name, c.A = "stat", pick(r, 0, unix.AT_SYMLINK_NOFOLLOW)
	case 3, 4, 5, 6:
		c.Name = "open"
		c.A = pick(r, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_PATH, unix.O_RDONLY|unix.O_DIRECTORY)
		if c.A != unix.O_PATH {
			c.A |= pick(r, 0, 0, unix.O_TRUNC, unix.O_CREAT, unix.O_CREAT|unix.O_EXCL, unix.O_APPEND, unix.O_CREAT|unix.O_TRUNC)
		}
		if c.A&unix.O_DIRECTORY != 0 {
			c.A &^= unix.O_CREAT | unix.O_EXCL
		}
		c.B = 0o640
	case 7:
		c.Name = "list"
	case 8, 9:
		c.Name, c.A = pick(r, "access", "eaccess"), r.IntN(8)
	case 10:
		c.Name = "chdir"
	case 11:
		c.Name, c.To = "chdir and open", pick(r, ".", "..", "f", "a", "../f", "../a/f", "priv/f")
	case 12:
		c.Name = "mkdir"
	case 13:
		c.Name, c.A = pick(r, "mknod", "symlink", "tmpfile"), pick(r, unix.S_IFREG, unix.S_IFIFO)
	case 14:
		c.Name, c.A = "unlink", pick(r, 0, unix.AT_REMOVEDIR)
	case 15, 16:
		c.Name, c.To, c.A = "rename", randomPath(r), pick(r, 0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE)
	case 17:
		c.Name, c.A = "truncate", pick(r, 0, 5)
	case 18:
		c.Name, c.A = "chmod", pick(r, 0o640, 0o600, 0o777)
	case 19:
		c.Name, c.A, c.B = "chown", pick(r, -1, 0, 1001), pick(r, -1, testGID, 1001)
	case 20:
		c.Name, c.A, c.B = "times", pick(r, 0, unix.UTIME_NOW, unix.UTIME_OMIT), pick(r, 0, unix.UTIME_NOW, unix.UTIME_OMIT)
	case 21:
		c.Name, c.Path = "exec", pick(r, c.Path, c.Path, "101.start", "a/101.start", "priv/101.start")
	case 22:
		c.Name, c.A = "by handle", pick(r, unix.O_RDONLY, unix.O_RDWR, unix.O_PATH)
	case 23:
		c.Name = "readlink"
	}
	return c
}

// heldCall is one that begins at a descriptor.
func heldCall(r *rand.Rand) call {
	c := randomCall(r)
	for c.Name == "truncate" || c.Name == "exec" || c.Name == "chdir" || c.Name == "rename" || c.Name == "stat" && c.Path == ".." {
		c = randomCall(r)
	}
	c.At = 1 + r.IntN(len(descriptors))
	c.Path = pick(r, "f", "a", "a/f", "b", "f", "g", "priv/f")
	switch c.Name {
	case "chdir and open":
		c.To = pick(r, "f", "a/f", "a", ".", "./f")
	case "list", "tmpfile":
		c.Path = pick(r, "a", "b", ".")
	}
	if r.IntN(6) == 0 {
		c.Name, c.A = "reopen", pick(r, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR)
	}
	return c
}

// TestAnswersAreThoseOfTheKernelsChecks has everybody make the same random calls on two mounts of
// the same random tree: one that checks by itself, and one that leaves it to the kernel.
func TestAnswersAreThoseOfTheKernelsChecks(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("FUSE_TEST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FUSE_TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 15))
	ours, oracle := mountChecked(t, nil, false, false), mountChecked(t, nil, false, true)
	both := []*testMount{ours, oracle}
	for _, m := range both {
		if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{"priv/a", "nodes/a/priv", "nodes/b", "a/b", "nodes/alpha"} {
			m.mkdir(d)
		}
		for _, f := range []string{"f", "priv/f", "priv/101.start", "priv/a/f", "nodes/a/priv/f", "nodes/a/f", "a/f", "a/101.start", "101.start", "nodes/alpha/f"} {
			m.write(f, "content of "+f)
		}
	}
	var callers []*caller
	for _, p := range people() {
		callers = append(callers, startCaller(t, p, ours.dir, oracle.dir))
	}
	calls, granted, refused := 0, 0, 0
	compare := func(c *caller, x call) {
		t.Helper()
		got := c.do(t, x)
		calls++
		switch got[1].Errno {
		case 0:
			granted++
		case syscall.EACCES, syscall.EPERM:
			refused++
		}
		if !sameAnswer(x, got[0], got[1]) {
			t.Errorf("%s: %s: %s; by the kernel's checks: %s", c.Name, x, got[0], got[1])
		}
		for _, m := range both {
			m.quiet()
		}
	}
	const rounds, each = 25, 12
	for round := range rounds {
		if round%5 == 3 || round%5 == 4 {
			for _, m := range both {
				m.store.lost.Store(round%5 == 3)
				m.fs.QuorumChanged()
				m.quiet()
			}
		}
		for range each {
			// Root gives the tree another shape, and the kernel names to keep.
			compare(callers[0], randomCall(r))
		}
		for _, c := range callers {
			for range each {
				compare(c, randomCall(r))
				if c.Descriptor {
					compare(c, heldCall(r))
				}
				if t.Failed() {
					t.Fatalf("after %d calls", calls)
				}
			}
		}
	}
	t.Logf("%d calls compared: %d granted, %d refused", calls, granted, refused)
	if granted < calls/20 || refused < calls/20 {
		t.Errorf("of %d calls %d were granted and %d refused: the comparison says little", calls, granted, refused)
	}
}

// rights are what there is to be had from paths, by somebody's call.
func (c *caller) wants(t *testing.T, errno syscall.Errno, calls ...call) {
	t.Helper()
	for _, x := range calls {
		if got := c.do(t, x)[0]; got.Errno != errno {
			t.Errorf("%s: %s: %s, want %v", c.Name, x, got, errno)
		}
	}
}

// Everything here the kernel has just found for root, and could answer by itself.
func TestWhatTheKernelKeepsLeadsNobodyToWhatIsPrivate(t *testing.T) {
	m := mountTest(t, nil)
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"priv/a", "nodes/a/priv", "nodes/alpha/priv", "pub/d", "old/a/priv"} {
		m.mkdir(d)
	}
	files := []string{"priv/f", "priv/a/f", "nodes/a/priv/f", "nodes/alpha/priv/f", "pub/f", "pub/d/f", "old/a/priv/f"}
	for _, f := range files {
		m.write(f, "content")
	}
	warm := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			m.want(p, "content")
			if _, err := os.Stat(m.path(filepath.Dir(p) + "/none")); !os.IsNotExist(err) {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	warm(files...)
	root := startCaller(t, people()[0], m.dir, m.dir)
	var others []*caller
	for _, p := range people() {
		switch p.Name {
		case "www-data", "in group www-data, in a container", "a stranger", "root of a name space of strangers":
			others = append(others, startCaller(t, p, m.dir, m.dir))
		}
	}
	seen := func(paths ...string) (calls []call) {
		for _, p := range paths {
			for _, name := range []string{p, filepath.Dir(p) + "/none"} {
				calls = append(calls, call{Name: "stat", Path: name}, call{Name: "open", Path: name, A: unix.O_PATH}, call{Name: "open", Path: name},
					call{Name: "open", Path: name, A: unix.O_WRONLY | unix.O_TRUNC}, call{Name: "truncate", Path: name}, call{Name: "access", Path: name},
					call{Name: "times", Path: name, A: unix.UTIME_NOW, B: unix.UTIME_NOW}, call{Name: "chmod", Path: name, A: 0o600}, call{Name: "readlink", Path: name})
			}
			calls = append(calls, call{Name: "list", Path: filepath.Dir(p)}, call{Name: "chdir", Path: filepath.Dir(p)}, call{Name: "mkdir", Path: filepath.Dir(p) + "/new"})
		}
		return calls
	}
	private := []string{"priv/f", "priv/a/f", "nodes/a/priv/f", "nodes/alpha/priv/f", "local/priv/f"}
	for _, c := range others {
		warm(private...)
		c.wants(t, syscall.EACCES, seen(private...)...)
		c.wants(t, 0, call{Name: "stat", Path: "pub/d/f"}, call{Name: "stat", Path: "old/a/priv/f"}, call{Name: "list", Path: "pub/d"})
	}
	warm(private...) // those who were refused did no harm

	// What everybody could find becomes private by a new name.
	m.mkdir("pub/e")
	if _, err := os.Stat(m.path("pub/e/none")); !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, mv := range [][2]string{{"pub/e", "priv/e"}, {"pub/f", "priv/g"}} {
		root.wants(t, 0, call{Name: "rename", Path: mv[0], To: mv[1]})
	}
	m.quiet()
	for _, c := range others {
		c.wants(t, syscall.EACCES, seen("priv/e/f", "priv/g")...)
		warm("priv/g")
		c.wants(t, syscall.EACCES, seen("priv/e/f", "priv/g")...)
	}
}

// A descriptor of a directory leads to what its holder may have found there. (No call gives a
// directory that is not empty another name; what comes from other nodes as a whole may.)
func TestWhoIsInADirectoryThatBecomesPrivateFindsNothingMore(t *testing.T) {
	m := mountNode(t, nil, true)
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"priv", "a/a"} {
		m.mkdir(d)
	}
	for _, f := range []string{"a/f", "a/a/f"} {
		m.write(f, "content")
	}
	var c *caller
	for _, p := range people() {
		if p.Name == "a stranger with descriptors" {
			c = startCaller(t, p, m.dir, m.dir)
		}
	}
	const a = 6 // the descriptor of it
	names := []call{{Name: "stat", Path: "f", At: a}, {Name: "stat", Path: "a/f", At: a}, {Name: "stat", Path: "a", At: a}}
	absent := []call{{Name: "stat", Path: "g", At: a}, {Name: "stat", Path: "a/g", At: a}}
	c.wants(t, 0, names...)
	c.wants(t, syscall.ENOENT, absent...)
	priv, _ := m.tree.Lookup("priv")
	entries := m.tree.Entries()
	for i, e := range entries {
		if e.Parent == memdb.RootInode && e.Name == "a" {
			entries[i] = memdb.NewEntry(e.Inode, priv.Inode, e.Version, e.Writer, e.MTime, e.Type, e.Name, nil)
		}
	}
	next, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	m.fs.Applied(&memdb.Op{}, m.tree.Replace(next), true)
	m.quiet()
	c.wants(t, syscall.EACCES, names...)
	c.wants(t, syscall.EACCES, absent...)
	if mode := m.stat("priv/a/f").Mode & 0o777; mode != 0o600 {
		t.Errorf("a file in it shows %o", mode)
	}
}

// Who holds a private file that is deleted, but could not open it, can't open it now.
func TestADeletedPrivateFileStaysPrivate(t *testing.T) {
	m := mountTest(t, nil)
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	m.mkdir("priv")
	m.write("priv/f", "secret")
	m.write("f", "plain")
	var group *caller
	for _, p := range people() {
		if p.Name == "in group www-data" {
			group = startCaller(t, p, m.dir, m.dir)
		}
	}
	const privateFile, plainFile = 4, 5
	for _, f := range []string{"priv/f", "f"} {
		held := m.open(f, os.O_RDONLY)
		defer held.Close()
	}
	check := func() {
		t.Helper()
		group.wants(t, syscall.EACCES, call{Name: "reopen", At: privateFile})
		group.wants(t, 0, call{Name: "reopen", At: plainFile})
	}
	check()
	for _, f := range []string{"priv/f", "f"} {
		if err := os.Remove(m.path(f)); err != nil {
			t.Fatal(err)
		}
	}
	check()
}

func TestOfWhomNothingIsKnownIsRefusedWhatItsGroupsWouldGrant(t *testing.T) {
	fs := New(Config{GID: testGID})
	var in gofuse.InHeader
	in.Uid, in.Gid = 1000, 1000
	if c := fs.credentialsOf(&in); c.inGroup(testGID) || c.capable != 0 {
		t.Error("a thread without a number has groups or capabilities")
	}
	if fs.may(&in, syscall.S_IFREG|0o640, mayRead) {
		t.Error("it may read what is the group's")
	}
	in.Gid = testGID
	if !fs.may(&in, syscall.S_IFREG|0o640, mayRead) {
		t.Error("its own group does not count")
	}
	in.Pid = uint32(os.Getpid()) // this process is somebody else, who may everything
	in.Gid = 1000
	if c := fs.credentialsOf(&in); c.inGroup(testGID) || c.capable != 0 {
		t.Error("another's groups or capabilities count")
	}
}
