package fuse

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"pmxcfs/memdb"
)

// The kernel leaves it to this package who may do what: with its own checks it would ask
// for the mode bits again after every change. What follows are those checks, bit by bit (see
// path_resolution(7), capabilities(7)); docs/kernel-cache.md says why what the kernel keeps
// leads nobody past them.

// The kinds of access to a file, as in the last three bits of a mode and in access(2).
const (
	mayExec  = 1 // or search, a directory
	mayWrite = 2
	mayRead  = 4

	mayChange = mayWrite | mayExec // the entries of a directory
)

// execFlag is among the flags of an open for execve(2). See FMODE_EXEC in the kernel's source.
const execFlag = 0x20

// wanted returns what an open with these flags asks for.
func wanted(flags uint32) (want uint32) {
	switch {
	case flags&execFlag != 0:
		return mayExec
	case flags&syscall.O_ACCMODE == syscall.O_RDONLY:
		want = mayRead
	case flags&syscall.O_ACCMODE == syscall.O_WRONLY:
		want = mayWrite
	default:
		want = mayRead | mayWrite
	}
	if flags&syscall.O_TRUNC != 0 {
		want |= mayWrite
	}
	return want
}

// may reports whether whoever makes a request may do what is wanted with something of that mode.
func (fs *FS) may(in *gofuse.InHeader, mode, want uint32) bool {
	if fs.kernelChecks {
		return true
	}
	bits := mode
	switch {
	case in.Uid == fs.uid:
		bits >>= 6
	case (bits^bits>>3)&want == 0: // the group makes no difference
	case in.Gid == fs.gid:
		bits >>= 3
	default:
		c := fs.credentialsOf(in)
		if c.inGroup(fs.gid) {
			bits >>= 3
		}
		return want&^bits == 0 || fs.mayOverride(c, mode, want)
	}
	return want&^bits == 0 || fs.mayOverride(fs.credentialsOf(in), mode, want)
}

// mayOverride reports whether capabilities grant what the bits of mode do not.
func (fs *FS) mayOverride(c *credentials, mode, want uint32) bool {
	if c.capable == 0 || !c.mapsUID(fs.uid) || !c.mapsGID(fs.gid) {
		return false
	}
	dir := mode&syscall.S_IFMT == syscall.S_IFDIR
	if c.has(unix.CAP_DAC_READ_SEARCH) && (want == mayRead || dir && want&mayWrite == 0) {
		return true
	}
	return c.has(unix.CAP_DAC_OVERRIDE) && (dir || want&mayExec == 0 || mode&0o111 != 0)
}

// mayAsOwner reports whether whoever makes a request is the owner, of all that there is, or has
// the capability to act as if.
func (fs *FS) mayAsOwner(in *gofuse.InHeader, capability int) bool {
	if in.Uid == fs.uid || fs.kernelChecks {
		return true
	}
	c := fs.credentialsOf(in)
	return c.has(capability) && c.mapsUID(fs.uid) && (capability == unix.CAP_FOWNER || c.mapsGID(fs.gid))
}

// mayIn reports whether whoever makes a request may do what is wanted in a directory, by its
// node id. Nobody is kept from a directory that is gone: there is nothing in it.
func (fs *FS) mayIn(in *gofuse.InHeader, dir uint64, want uint32) bool {
	e, ok := fs.tree.Get(inodeOf(dir))
	return !ok || !e.IsDir() || fs.may(in, fs.mode(e), want)
}

// guarded reports whether not everybody may search a directory. What is in it the kernel may not
// find by itself: it would not ask whether who wants it may.
func (fs *FS) guarded(dir uint64) bool {
	if fs.kernelChecks {
		return false
	}
	e, ok := fs.tree.Get(dir)
	return ok && fs.mode(e)&0o111 != 0o111
}

// Access answers access(2), and chdir(2), for which one must be able to search.
func (fs *FS) Access(_ <-chan struct{}, in *gofuse.AccessIn) gofuse.Status {
	mode, st := fs.modeOf(in.NodeId)
	if st.Ok() && !fs.may(&in.InHeader, mode, in.Mask&(mayRead|mayWrite|mayExec)) {
		st = statusEACCES
	}
	return st
}

// modeOf returns the mode of whatever has that node id.
func (fs *FS) modeOf(id uint64) (uint32, gofuse.Status) {
	if item := fs.byID[id]; item != nil {
		return fs.itemMode(item), gofuse.OK
	}
	e, ok := fs.tree.Get(inodeOf(id))
	if !ok {
		if e, ok = fs.orphan(inodeOf(id)); !ok {
			return 0, statusESTALE
		}
	}
	return fs.mode(e), gofuse.OK
}

// Tmpfile makes no files without a name.
func (fs *FS) Tmpfile(_ <-chan struct{}, in *gofuse.CreateIn, _ *gofuse.CreateOut) gofuse.Status {
	if !fs.mayIn(&in.InHeader, in.NodeId, mayChange) {
		return statusEACCES
	}
	return statusENOTSUPP
}

// maySetAttr says whether whoever makes a request may change what it changes in something of
// that mode.
func (fs *FS) maySetAttr(in *gofuse.SetAttrIn, mode uint32) gofuse.Status {
	const times = gofuse.FATTR_ATIME | gofuse.FATTR_MTIME
	const now = gofuse.FATTR_ATIME_NOW | gofuse.FATTR_MTIME_NOW
	caller := &in.InHeader
	switch {
	case in.Valid&gofuse.FATTR_SIZE != 0:
		// A caller that has the file open for writing may, whatever has become of the file.
		if in.Valid&gofuse.FATTR_FH == 0 && !fs.may(caller, mode, mayWrite) {
			return statusEACCES
		}
	case in.Valid&(times|now) == times|now: // to the present: who may write may do that, too
		if !fs.mayAsOwner(caller, unix.CAP_FOWNER) && !fs.may(caller, mode, mayWrite) {
			return statusEACCES
		}
	case in.Valid&(times|gofuse.FATTR_MODE) != 0:
		if !fs.mayAsOwner(caller, unix.CAP_FOWNER) {
			return statusEPERM
		}
	}
	if in.Valid&(gofuse.FATTR_UID|gofuse.FATTR_GID) != 0 && !fs.mayAsOwner(caller, unix.CAP_CHOWN) {
		return statusEPERM
	}
	return gofuse.OK
}

// credentials are what a request does not say of the thread that makes it. The zero value has
// neither groups nor capabilities: so it is for a thread of which nothing is known.
type credentials struct {
	groups  []byte // the supplementary ones, as decimal numbers, a blank after each
	capable uint64 // capabilities by number

	uids, gids idMap // of its user name space
}

func (c *credentials) has(capability int) bool { return c.capable>>capability&1 != 0 }

func (c *credentials) inGroup(gid uint32) bool {
	want := strconv.AppendUint(nil, uint64(gid), 10)
	for _, g := range bytes.Fields(c.groups) {
		if bytes.Equal(g, want) {
			return true
		}
	}
	return false
}

// A capability is good for files whose owner and group there are in the name space that it is of.
func (c *credentials) mapsUID(uid uint32) bool { return c.uids.maps(uid) }
func (c *credentials) mapsGID(gid uint32) bool { return c.gids.maps(gid) }

// credentialsOf asks /proc about the thread that makes a request. It is waiting for the answer, so
// it is there, and stays as it is: see proc_pid_status(5).
func (fs *FS) credentialsOf(in *gofuse.InHeader) *credentials {
	c := &credentials{}
	if in.Pid == 0 {
		return c
	}
	proc := "/proc/" + strconv.FormatUint(uint64(in.Pid), 10)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return c
	}
	uids, gids := numbersOf(status, "Uid"), numbersOf(status, "Gid")
	if len(uids) != 4 || len(gids) != 4 {
		return c
	}
	const real, file = 0, 3
	byFile := uids[file] == in.Uid && gids[file] == in.Gid
	byReal := uids[real] == in.Uid && gids[real] == in.Gid
	if !byFile && !byReal {
		return c // it acts in another's name (overlayfs, io_uring): what it is itself must not count
	}
	c.groups = fieldOf(status, "Groups")
	effective, permitted := maskOf(status, "CapEff"), maskOf(status, "CapPrm")
	if effective|permitted == 0 {
		return c
	}
	if sameUserNamespace(proc) {
		c.uids, c.gids = identity, identity
	} else {
		c.uids, c.gids = readIDMap(proc+"/uid_map"), readIDMap(proc+"/gid_map")
	}
	c.capable = effective
	byAccess := uint64(0) // access(2) judges by the real ids: root's allow what root may do, others' nothing
	if c.uids.inside(0) == uids[real] {
		byAccess = permitted
	}
	if !byFile || byReal && byAccess != effective && fs.inAccess(in.Pid) {
		c.capable = byAccess
	}
	return c
}

// inAccess reports whether a thread is in access(2), or in one of its kind that judges by the real
// ids.
func (fs *FS) inAccess(thread uint32) bool {
	number, args, ok := fs.calls.of(thread)
	if !ok {
		return false
	}
	switch number {
	case unix.SYS_ACCESS, unix.SYS_FACCESSAT:
		return true
	case unix.SYS_FACCESSAT2:
		if len(args) < 4 {
			return true
		}
		flags, err := strconv.ParseUint(string(args[3]), 0, 64)
		return err != nil || flags&unix.AT_EACCESS == 0
	}
	return false
}

// fieldOf returns the rest of the line of a status file that begins with a name.
func fieldOf(status []byte, name string) []byte {
	_, rest, _ := bytes.Cut(status, []byte("\n"+name+":\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return line
}

func numbersOf(status []byte, name string) (list []uint32) {
	for _, word := range bytes.Fields(fieldOf(status, name)) {
		n, err := strconv.ParseUint(string(word), 10, 32)
		if err != nil {
			return nil
		}
		list = append(list, uint32(n))
	}
	return list
}

func maskOf(status []byte, name string) uint64 {
	n, err := strconv.ParseUint(string(fieldOf(status, name)), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// idMap are the ids that there are in a user name space, as ranges. See user_namespaces(7).
type idMap []idRange

type idRange struct{ inside, outside, count uint32 }

var identity = idMap{{0, 0, 1<<32 - 1}}

// maps reports whether an id, as we have it, is one there, too.
func (m idMap) maps(id uint32) bool {
	for _, r := range m {
		if id >= r.outside && id-r.outside < r.count {
			return true
		}
	}
	return false
}

// inside returns what we call an id of theirs; the greatest number of all, which is none: nothing.
func (m idMap) inside(id uint32) uint32 {
	for _, r := range m {
		if id >= r.inside && id-r.inside < r.count {
			return r.outside + id - r.inside
		}
	}
	return 1<<32 - 1
}

func readIDMap(path string) (m idMap) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(b) {
		f := numbersOf(append([]byte("\nid:\t"), line...), "id")
		if len(f) == 3 {
			m = append(m, idRange{f[0], f[1], f[2]})
		}
	}
	return m
}

func sameUserNamespace(proc string) bool {
	theirs, err := os.Readlink(proc + "/ns/user")
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	return err == nil && theirs == ours
}

// renamed tells the kernel of a directory that has another place or name, what it may not go on
// believing of all that lies below: modes follow from paths, and what the kernel found by itself
// may now be for root alone.
func (fs *FS) renamed(dir uint64) {
	guarded := fs.guarded(dir)
	if guarded {
		for _, name := range fs.known.takeAbsentIn(nodeID(dir)) {
			fs.notify.name(nodeID(dir), name)
		}
	}
	list, _ := fs.tree.ReadDir(dir)
	for _, e := range list {
		if id := nodeID(e.Inode); fs.known.has(id) {
			fs.notify.attributes(id)
			if guarded {
				fs.notify.name(nodeID(dir), e.Name)
			}
		}
		if e.IsDir() {
			fs.renamed(e.Inode)
		}
	}
}

// privateEntry reports whether an entry that is gone was for root alone. In doubt it was.
func (fs *FS) privateEntry(e *memdb.Entry) bool {
	dir, ok := fs.tree.Path(e.Parent)
	return !ok || memdb.IsPrivate(memdb.Join(dir, e.Name))
}
