package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// randomPaths are few, so that operations meet.
var randomPaths = []string{
	"a", "b", "c", "a/x", "a/y", "b/x", "b/x/deep", "b/x/deep/er", "c/x", "a/vps.mount", "a/12.start",
	"nodes/n/lxc/100.conf", "nodes/n/lxc/101.conf", "nodes/n/qemu-server/100.conf", "nodes/n/lxc/tmp",
	"nodes/m/lxc/100.conf", "nodes/m/lxc/101.conf", "nodes/m/priv", "nodes/m/priv/key",
	"priv/key", "priv/lock/l", "priv/lock/k", "priv/lock/l/x",
}

// randomDirs are there at the beginning.
var randomDirs = []string{
	"nodes", "nodes/n", "nodes/n/lxc", "nodes/n/qemu-server", "nodes/m", "nodes/m/lxc", "priv", "priv/lock", "a", "b",
}

// runner carries out random calls on a mount and on a model.
type runner struct {
	*testing.T
	n    *instance
	m    *model
	rnd  *rand.Rand
	open []*openHandle
	step int
	did  map[string]int
	last []string // the latest calls, for the report
}

type openHandle struct {
	*modelHandle
	fd int
}

// TestRandomCallsAgreeWithTheModel makes random calls on the mount, with
// restarts and kills in between, and compares every answer with the model's.
func TestRandomCallsAgreeWithTheModel(t *testing.T) {
	needLab(t)
	// Not in parallel with other tests: these start processes, and a new process
	// closes its copies of the files that are open here, which is a close.
	s := seed(t)
	runs, steps := 2, 2500
	if testing.Short() {
		runs, steps = 1, 500
	}
	if *longFlag {
		runs, steps = 8, 50_000
	}
	for i := range runs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			node := newInstance
			if i == 0 {
				node = newRaced
			}
			r := &runner{T: t, n: node(t), m: newModel(), rnd: rand.New(rand.NewPCG(s, uint64(i))), did: map[string]int{}}
			t.Cleanup(r.closeAll)
			quiet(t)
			r.n.start()
			for _, d := range randomDirs {
				at := now()
				must(t, unix.Mkdir(r.n.path(d), 0o755))
				r.m.mkdir(d, during(at))
			}
			for r.step = range steps {
				r.randomStep()
			}
			r.restart(syscall.SIGTERM)
			r.Logf("calls and their answers: %v", r.did)
		})
	}
}

// closeAll closes what is open, without looking at answers.
func (r *runner) closeAll() {
	for _, h := range r.open {
		unix.Close(h.fd)
	}
	r.open = nil
}

func (r *runner) fail(format string, args ...any) {
	r.Helper()
	r.Fatalf("step %d: %s\nthe latest calls:\n\t%s", r.step, fmt.Sprintf(format, args...), strings.Join(r.last, "\n\t"))
}

// compare compares an answer with the model's.
func (r *runner) compare(call string, got error, want syscall.Errno) {
	r.Helper()
	if r.last = append(r.last, fmt.Sprintf("%d: %s = %v", r.step, call, got)); len(r.last) > 40 {
		r.last = r.last[1:]
	}
	if got == nil && want == 0 {
		return
	}
	if !errors.Is(got, want) || want == 0 {
		r.fail("%s answers %v, want %v", call, got, want)
	}
}

func (r *runner) count(call string, errno syscall.Errno) {
	if errno != 0 {
		call += " " + unix.ErrnoName(errno)
	}
	r.did[call]++
}

func (r *runner) path() string { return randomPaths[r.rnd.IntN(len(randomPaths))] }

// dirPath returns a path that a directory may have: one at a guest
// configuration's place would take the guest from the VM list when it goes.
func (r *runner) dirPath() string {
	for {
		if p := r.path(); !guestPattern.MatchString(p) {
			return p
		}
	}
}

func (r *runner) bytes() string {
	size := r.rnd.IntN(300)
	switch r.rnd.IntN(20) {
	case 0:
		size = 4096 * (1 + r.rnd.IntN(3))
	case 1:
		size = r.rnd.IntN(100_000)
	}
	return strings.Repeat(string(rune('a'+r.rnd.IntN(26))), size)
}

func (r *runner) randomStep() {
	at := now()
	switch r.rnd.IntN(24) {
	case 0, 1, 2, 3:
		r.openFile()
	case 4, 5, 6, 7, 8:
		r.writeFile()
	case 9, 10:
		r.readFile()
	case 11, 12:
		r.closeFile()
	case 13:
		r.fsyncFile()
	case 14:
		r.resizeFile()
	case 15:
		p := r.dirPath()
		err := unix.Mkdir(r.n.path(p), 0o755)
		want := r.m.mkdir(p, during(at))
		r.compare("mkdir "+p, err, want)
		r.count("mkdir", want)
		r.check(p)
	case 16:
		p := r.path()
		err := unix.Unlink(r.n.path(p))
		want := r.m.remove(p, false)
		r.compare("unlink "+p, err, want)
		r.count("unlink", want)
		r.check(p)
	case 17:
		p := r.path()
		err := unix.Rmdir(r.n.path(p))
		want := r.m.remove(p, true)
		r.compare("rmdir "+p, err, want)
		r.count("rmdir", want)
		r.check(p)
	case 18, 19, 20:
		r.renamePath()
	case 21:
		p := r.path()
		sec := int64(r.rnd.IntN(1_000_000))
		if r.rnd.IntN(2) == 0 {
			sec += 3_000_000_000
		}
		err := unix.UtimesNanoAt(unix.AT_FDCWD, r.n.path(p), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: 999}}, 0)
		want := r.m.utime(p, sec)
		r.compare(fmt.Sprint("utime ", p, " ", sec), err, want)
		r.count("utime", want)
		r.check(p)
	case 22:
		r.check(r.path())
	default:
		switch {
		case r.rnd.IntN(12) == 0:
			r.restart(syscall.SIGKILL)
		case r.rnd.IntN(12) == 0:
			r.restart(syscall.SIGTERM)
		case r.rnd.IntN(3) == 0:
			r.checkAll()
		}
	}
}

func (r *runner) openFile() {
	if len(r.open) >= 6 {
		return
	}
	p := r.path()
	flags := []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}[r.rnd.IntN(3)]
	if r.rnd.IntN(3) > 0 {
		flags |= unix.O_CREAT
	}
	if flags&unix.O_CREAT != 0 && r.rnd.IntN(4) == 0 {
		flags |= unix.O_EXCL
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		switch r.rnd.IntN(4) {
		case 0, 1:
			flags |= unix.O_TRUNC
		case 2:
			flags |= unix.O_APPEND
		}
	} else if f := r.m.at[p]; f != nil && f.dir && flags&unix.O_CREAT == 0 {
		return // a directory's handle: readdir is for those
	}
	at := now()
	fd, err := unix.Open(r.n.path(p), flags|unix.O_CLOEXEC, 0o640)
	h, want := r.m.open(p, flags, during(at))
	r.compare(fmt.Sprintf("open %s %#o", p, flags), err, want)
	r.count("open", want)
	if err == nil {
		r.open = append(r.open, &openHandle{h, fd})
	}
	r.check(p)
}

// pick returns an open file that fits, or nil.
func (r *runner) pick(fits func(*openHandle) bool) *openHandle {
	var list []*openHandle
	for _, h := range r.open {
		if fits(h) {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[r.rnd.IntN(len(list))]
}

func (h *openHandle) writable() bool { return h.flags&unix.O_ACCMODE != unix.O_RDONLY }
func (h *openHandle) readable() bool { return h.flags&unix.O_ACCMODE != unix.O_WRONLY }

// String names an open file in the report.
func (h *openHandle) String() string {
	s := fmt.Sprintf("fd %d (%#o, inode %d", h.fd, h.flags, h.file.ino)
	if h.file.orphan {
		s += ", deleted"
	}
	if h.truncate {
		s += ", to be emptied"
	}
	return s + ")"
}

func (r *runner) writeFile() {
	h := r.pick((*openHandle).writable)
	if h == nil {
		return
	}
	data := r.bytes()
	offset := r.rnd.IntN(2*len(h.file.data) + 1)
	switch r.rnd.IntN(12) {
	case 0:
		offset = 0
	case 1:
		offset = memdb.MaxFileSize - r.rnd.IntN(400)
	case 2:
		offset = r.rnd.IntN(20_000)
	}
	call := fmt.Sprintf("pwrite %v, %d bytes at %d", h, len(data), offset)
	if h.file.orphan && len(data) > 0 && offset+len(data) > memdb.MaxFileSize/2 {
		return // what the model does with it takes long, and shows nothing
	}
	var (
		at  = now()
		n   int
		err error
	)
	if h.flags&unix.O_APPEND != 0 {
		call = fmt.Sprintf("append %v, %d bytes", h, len(data))
		n, err = unix.Write(h.fd, []byte(data))
	} else {
		n, err = unix.Pwrite(h.fd, []byte(data), int64(offset))
	}
	want := r.m.write(h.modelHandle, offset, data, during(at))
	r.compare(call, err, want)
	if err == nil && n != len(data) {
		r.fail("%s writes %d", call, n)
	}
	r.count("write", want)
	r.checkHandle(h)
	r.checkFile(h.file)
}

func (r *runner) readFile() {
	if h := r.pick((*openHandle).readable); h != nil {
		r.checkHandle(h)
	}
}

// checkHandle reads through an open file, from a random place.
func (r *runner) checkHandle(h *openHandle) {
	r.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		r.fail("fstat of %v: %v", h, err)
	}
	// Until it is emptied, either size is right.
	if size := int64(len(h.file.data)); st.Size != size && !(h.truncate && st.Size == 0) {
		r.fail("fstat of %v says %d bytes, want %d", h, st.Size, size)
	}
	if h.file.ino != 0 && st.Ino != h.file.ino {
		r.fail("fstat of %v says inode number %d, want %d", h, st.Ino, h.file.ino)
	}
	if wantLinks := map[bool]uint64{false: 1, true: 0}[h.file.orphan]; uint64(st.Nlink) != wantLinks {
		r.fail("fstat of %v says %d links, want %d", h, st.Nlink, wantLinks)
	}
	if !h.readable() {
		return
	}
	want := h.file.data
	if h.truncate {
		want = ""
	}
	offset := 0
	if len(want) > 0 && r.rnd.IntN(2) == 0 {
		offset = r.rnd.IntN(len(want) + 10)
	}
	want = want[min(offset, len(want)):]
	buf := make([]byte, len(want)+100)
	got, err := unix.Pread(h.fd, buf, int64(offset))
	r.compare(fmt.Sprintf("pread %v at %d", h, offset), err, 0)
	if string(buf[:got]) != want {
		r.fail("reading %v from %d gives %s, want %s", h, offset, brief(string(buf[:got])), brief(want))
	}
	r.count("read", 0)
}

func (r *runner) closeFile() {
	if len(r.open) == 0 {
		return
	}
	i := r.rnd.IntN(len(r.open))
	h := r.open[i]
	r.open = slices.Delete(r.open, i, i+1)
	call := fmt.Sprint("close ", h)
	at := now()
	err := unix.Close(h.fd)
	r.m.flush(h.modelHandle, during(at))
	r.compare(call, err, 0)
	r.count("close", 0)
	r.checkFile(h.file)
}

func (r *runner) fsyncFile() {
	h := r.pick(func(*openHandle) bool { return true })
	if h == nil {
		return
	}
	call := fmt.Sprint("fsync ", h)
	at := now()
	err := unix.Fsync(h.fd)
	r.m.fsync(h.modelHandle, during(at))
	r.compare(call, err, 0)
	r.count("fsync", 0)
	r.checkHandle(h)
	r.checkFile(h.file)
}

func (r *runner) resizeFile() {
	size := r.rnd.IntN(500)
	switch r.rnd.IntN(8) {
	case 0:
		size = 0
	case 1:
		size = memdb.MaxFileSize + 1
	case 2:
		size = r.rnd.IntN(50_000)
	}
	at := now()
	if h := r.pick((*openHandle).writable); h != nil && r.rnd.IntN(3) > 0 {
		call := fmt.Sprintf("ftruncate %v to %d", h, size)
		err := unix.Ftruncate(h.fd, int64(size))
		want := r.m.resize(h.file, h.modelHandle, size, during(at))
		r.compare(call, err, want)
		r.count("ftruncate", want)
		r.checkHandle(h)
		r.checkFile(h.file)
		return
	}
	p := r.path()
	f := r.m.at[p]
	if size == 0 && slices.ContainsFunc(r.open, func(h *openHandle) bool { return h.file == f && h.writable() }) {
		size = 1 // to 0, the kernel's request looks like the one that an open with O_TRUNC makes
	}
	err := unix.Truncate(r.n.path(p), int64(size))
	want := r.m.truncate(p, size, during(at))
	r.compare(fmt.Sprintf("truncate %s to %d", p, size), err, want)
	r.count("truncate", want)
	r.check(p)
}

func (r *runner) renamePath() {
	from, to := r.path(), r.path()
	for f := r.m.at[from]; f != nil && f.dir && guestPattern.MatchString(to); {
		to = r.path() // see dirPath
	}
	at := now()
	err := unix.Rename(r.n.path(from), r.n.path(to))
	want := r.m.rename(from, to, during(at))
	r.compare(fmt.Sprintf("rename %s to %s", from, to), err, want)
	r.count("rename", want)
	r.check(from)
	r.check(to)
}

// checkFile checks a file by the path that it has.
func (r *runner) checkFile(f *modelFile) {
	r.Helper()
	for p, g := range r.m.at {
		if f == g {
			r.check(p)
		}
	}
}

// check compares what a path shows with the model.
func (r *runner) check(p string) {
	r.Helper()
	var st unix.Stat_t
	err := unix.Lstat(r.n.path(p), &st)
	f := r.m.at[p]
	want := r.m.walk(p)
	if want == 0 && f == nil {
		want = syscall.ENOENT
	}
	r.compare("stat "+p, err, want)
	if f == nil {
		return
	}
	got := modelFile{dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, ino: st.Ino, mtime: [2]int64{st.Mtim.Sec, st.Mtim.Sec}}
	if !got.dir {
		b, err := readAll(r.n.path(p))
		if err != nil {
			r.fail("reading %s: %v", p, err)
		}
		got.data = b
	}
	if d := (modelState{at: map[string]modelFile{p: *f}}).diff(map[string]modelFile{p: got}); d != "" {
		r.fail("%s", d)
	}
	if int(st.Size) != len(f.data) || st.Blocks != (st.Size+4095)/4096 || st.Mode != f.mode(p) || st.Mtim.Nsec != 0 ||
		st.Uid != 0 || st.Gid != 33 || st.Nlink == 2 != f.dir {
		r.fail("stat %s: %+v, want size %d, mode %o", p, st, len(f.data), f.mode(p))
	}
	if f.ino == 0 { // from now on it has this one
		for q, g := range r.m.at {
			if g.ino == st.Ino {
				r.fail("%s has the inode number %d of %s", p, st.Ino, q)
			}
		}
		f.ino = st.Ino
	}
	f.mtime = got.mtime
}

func readAll(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf := make([]byte, memdb.MaxFileSize+1)
	n := 0
	for {
		m, err := unix.Read(fd, buf[n:])
		if err != nil || m == 0 {
			return string(buf[:n]), err
		}
		n += m
	}
}

// checkAll compares everything that the mount shows with the model.
func (r *runner) checkAll() {
	r.Helper()
	r.checkDir("")
	for p, f := range r.m.at {
		r.check(p)
		if f.dir {
			r.checkDir(p)
		}
	}
	for _, h := range r.open {
		r.checkHandle(h)
	}
	var list struct {
		IDs map[string]struct{ Node, Type string }
	}
	text, err := readAll(r.n.path(".vmlist"))
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	if err != nil {
		r.fail(".vmlist: %v", err)
	}
	for vmid, dir := range r.m.guests {
		g, ok := list.IDs[vmid]
		if kind := strings.Replace(path.Base(dir), "qemu-server", "qemu", 1); !ok || g.Node != path.Base(path.Dir(dir)) || g.Type != kind {
			r.fail(".vmlist has guest %s as %+v, want %s", vmid, g, dir)
		}
	}
	if len(list.IDs) != len(r.m.guests) {
		r.fail(".vmlist is %v, want %v", list.IDs, r.m.guests)
	}
	r.count("everything", 0)
}

// checkDir compares a directory's listing: names, types, inode numbers.
func (r *runner) checkDir(dir string) {
	r.Helper()
	fd, err := unix.Open(r.n.path(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		r.fail("opening the directory %q: %v", dir, err)
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			r.fail("listing %q: %v", dir, err)
		}
		if n == 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; { // getdents(2)
			size := binary.NativeEndian.Uint16(b[16:])
			ino, kind := binary.NativeEndian.Uint64(b), b[18]
			name := unix.ByteSliceToString(b[19:size])
			b = b[size:]
			if name == "." || name == ".." || dir == "" && isSpecial(name) {
				continue
			}
			names = append(names, name)
			p := path.Join(dir, name)
			f := r.m.at[p]
			if f != nil && (f.ino != 0 && ino != f.ino || f.dir != (kind == unix.DT_DIR)) {
				r.fail("the listing shows %s as type %d, inode %d; the model has %+v", p, kind, ino, f)
			}
		}
	}
	slices.Sort(names)
	if want := r.m.list(dir); !slices.Equal(names, want) {
		r.fail("the directory %q lists %q, want %q", dir, names, want)
	}
}

func isSpecial(name string) bool {
	return slices.Contains([]string{".version", ".members", ".vmlist", ".clusterlog", ".rrd", ".debug", "local", "qemu-server", "lxc", "openvz"}, name)
}

// restart ends the daemon, compares what is in the file with the model, and
// starts it again.
func (r *runner) restart(s syscall.Signal) {
	r.Helper()
	if s == syscall.SIGTERM {
		for len(r.open) > 0 {
			r.closeFile()
		}
		r.m.stored(r.m.seq)
		r.n.stop()
	} else {
		r.n.kill()
		r.closeAll()
	}
	r.compare(s.String(), nil, 0)
	r.count("restart by "+s.String(), 0)
	found := r.fromFile()
	var diffs []string
	for _, state := range slices.Backward(r.m.history) {
		d := state.diff(found)
		if d == "" {
			r.m.restore(state)
			r.n.start()
			r.checkAll()
			return
		}
		diffs = append(diffs, d)
	}
	r.fail("after %v the file holds none of the possible states:\n\t%s", s, strings.Join(diffs, "\n\t"))
}

// fromFile reads the database file.
func (r *runner) fromFile() map[string]modelFile {
	r.Helper()
	contents, err := sqlite.Read(r.n.db)
	if err != nil {
		r.fail("%v", err)
	}
	if len(contents.Problems) > 0 {
		r.fail("the file has problems: %v", contents.Problems)
	}
	byID := map[uint64]*memdb.Entry{}
	for _, e := range contents.Entries {
		byID[e.Inode] = e
	}
	found := map[string]modelFile{}
	for _, e := range contents.Entries {
		if e.Inode != memdb.RootInode {
			t := int64(e.MTime)
			found[pathOf(byID, e)] = modelFile{dir: e.IsDir(), data: string(e.Data()), ino: e.Inode, mtime: [2]int64{t, t}}
		}
	}
	return found
}
