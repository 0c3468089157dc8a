package memdb

import (
	"io/fs"
	"math"
	"syscall"
	"time"
)

// Kind is what an operation does. The values are those of the configuration
// database's messages.
type Kind uint16

const (
	OpWrite  Kind = 1
	OpMkdir  Kind = 2
	OpDelete Kind = 3
	OpRename Kind = 4
	OpCreate Kind = 5
	OpMTime  Kind = 6
)

// String returns the operation's name as it stands in errors.
func (k Kind) String() string {
	switch k {
	case OpWrite:
		return "write"
	case OpMkdir:
		return "mkdir"
	case OpDelete:
		return "delete"
	case OpRename:
		return "rename"
	case OpCreate:
		return "create"
	case OpMTime:
		return "mtime"
	}
	return "operation " + itoa(uint64(k))
}

// Op is one change to the tree.
type Op struct {
	Kind     Kind
	Path     string // without a leading slash
	To       string // rename: the new path
	Data     []byte // write: the bytes to write; copied, not kept
	Offset   uint32 // write: where
	Truncate bool   // write: the file ends after the data
	Writer   uint32 // node id of the writer; 0 in local mode
	MTime    uint32 // seconds since 1970: the time of the change; mtime: the time to set

	// Now is this node's clock, by which it judges a lock's age. It is not
	// part of the replicated state.
	Now time.Time
}

// Change is one entry's step from one state to the next.
type Change struct {
	Inode uint64
	Old   *Entry // nil: the entry is new
	New   *Entry // nil: the entry is gone
}

// Result is what an operation that succeeded did.
type Result struct {
	Changes []Change // in order; the root's new version comes last
}

// Entry returns the entry that the operation made or changed; nil after a
// delete.
func (r Result) Entry() *Entry {
	if len(r.Changes) < 2 {
		return nil
	}
	return r.Changes[len(r.Changes)-2].New
}

// Apply carries out one operation. An error is a *fs.PathError around a
// syscall.Errno; the tree is then as it was. The order in which conditions are
// looked at is part of the protocol: all nodes must answer alike.
func (t *Tree) Apply(op *Op) (Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.apply(op)
}

// Room reports whether the tree's limits leave room for op: nil, or a
// *fs.PathError around ENOSPC. Apply itself does not ask, for what has been
// delivered must be applied on every node alike; the node that a user writes on
// asks before it sends.
func (t *Tree) Room(op *Op) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	full := false
	switch op.Kind {
	case OpCreate, OpMkdir:
		full = len(t.nodes) >= MaxEntries
	case OpWrite:
		grown := int64(op.Offset) + int64(len(op.Data))
		if t.bytes+grown <= MaxTreeBytes {
			break
		}
		if n := t.find(CleanPath(op.Path)); n != nil {
			grown -= int64(len(n.e.data))
		}
		full = grown > 0 && t.bytes+grown > MaxTreeBytes
	}
	if full {
		return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: syscall.ENOSPC}
	}
	return nil
}

func (t *Tree) apply(op *Op) (Result, error) {
	var (
		changes []Change
		errno   syscall.Errno
	)
	switch op.Kind {
	case OpMkdir:
		changes, errno = t.mkdir(op)
	case OpCreate:
		changes, errno = t.create(op)
	case OpWrite:
		changes, errno = t.write(op)
	case OpMTime:
		changes, errno = t.setMTime(op)
	case OpDelete:
		changes, errno = t.delete(op)
	case OpRename:
		changes, errno = t.rename(op)
	default:
		errno = syscall.EINVAL
	}
	if errno != 0 {
		return Result{}, &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: errno}
	}
	old := t.root.e
	t.root.e = old.next(t.nextVersion(), op.Writer, op.MTime)
	return Result{append(changes, Change{RootInode, old, t.root.e})}, nil
}

// nextVersion is the version number that the change in progress takes.
func (t *Tree) nextVersion() uint64 { return t.root.e.Version + 1 }

// replace publishes the next state of n's entry.
func (t *Tree) replace(n *node, e *Entry) Change {
	c := Change{n.inode, n.e, e}
	t.bytes += int64(len(e.data)) - int64(len(n.e.data))
	n.e = e
	return c
}

// newEntry links a new, empty entry.
func (t *Tree) newEntry(op *Op, dir *node, base string, typ Type) Change {
	v := t.nextVersion()
	e := NewEntry(v, dir.inode, v, op.Writer, op.MTime, typ, base, nil)
	t.link(e)
	return Change{Inode: v, New: e}
}

// lookupDir finds the directory that path lies in.
func (t *Tree) lookupDir(path string) (clean string, dir *node, base string, errno syscall.Errno) {
	clean = CleanPath(path)
	dirPath, base := Split(clean)
	dir = t.find(dirPath)
	switch {
	case dir == nil:
		return clean, nil, base, syscall.ENOENT
	case !dir.e.IsDir():
		return clean, nil, base, syscall.ENOTDIR
	case base == "" || base == "." || base == "..":
		return clean, nil, base, syscall.EACCES
	}
	return clean, dir, base, 0
}

func (t *Tree) mkdir(op *Op) ([]Change, syscall.Errno) {
	path, dir, base, errno := t.lookupDir(op.Path)
	if errno != 0 {
		return nil, errno
	}
	if dir.kids[base] != nil {
		return nil, syscall.EEXIST
	}
	c := t.newEntry(op, dir, base, TypeDir)
	t.noteLock(path, c.New, op.Now)
	return append(make([]Change, 0, 2), c), 0
}

// fileTarget makes the checks that create and write share.
func (t *Tree) fileTarget(op *Op) (path string, dir *node, base string, guest Guest, isGuest bool, errno syscall.Errno) {
	if uint64(op.Offset)+uint64(len(op.Data)) > MaxFileSize {
		return "", nil, "", Guest{}, false, syscall.EFBIG
	}
	path, dir, base, errno = t.lookupDir(op.Path)
	if errno != 0 {
		return "", nil, "", Guest{}, false, errno
	}
	guest, isGuest = ParseGuest(path)
	if isGuest && t.guests.taken(guest) {
		return "", nil, "", Guest{}, false, syscall.EEXIST
	}
	if n := dir.kids[base]; n != nil && n.e.IsDir() {
		return "", nil, "", Guest{}, false, syscall.ENOTDIR
	}
	return path, dir, base, guest, isGuest, 0
}

func (t *Tree) create(op *Op) ([]Change, syscall.Errno) {
	_, dir, base, guest, isGuest, errno := t.fileTarget(op)
	if errno != 0 {
		return nil, errno
	}
	if dir.kids[base] != nil {
		return nil, syscall.EEXIST
	}
	c := t.newEntry(op, dir, base, TypeFile)
	if isGuest {
		t.guests.register(guest)
	}
	return append(make([]Change, 0, 2), c), 0
}

func (t *Tree) write(op *Op) ([]Change, syscall.Errno) {
	_, dir, base, guest, isGuest, errno := t.fileTarget(op)
	if errno != 0 {
		return nil, errno
	}
	n := dir.kids[base]
	if n == nil {
		return nil, syscall.ENOENT
	}
	e := n.e.next(t.nextVersion(), op.Writer, op.MTime)
	e.data = t.splice(n, op.Data, int(op.Offset), op.Truncate)
	c := t.replace(n, e)
	if isGuest {
		t.guests.register(guest)
	}
	return append(make([]Change, 0, 2), c), 0
}

func (t *Tree) setMTime(op *Op) ([]Change, syscall.Errno) {
	path, dir, base, errno := t.lookupDir(op.Path)
	if errno != 0 {
		return nil, errno
	}
	n := dir.kids[base]
	if n == nil {
		return nil, syscall.ENOENT
	}
	_, lock := LockName(path)
	lock = lock && n.e.IsDir()
	if lock && (op.MTime < n.e.MTime || op.Writer != n.e.Writer) {
		return nil, syscall.EACCES
	}
	c := t.replace(n, n.e.next(t.nextVersion(), op.Writer, op.MTime))
	if lock {
		t.noteLock(path, c.New, op.Now)
	}
	return append(make([]Change, 0, 2), c), 0
}

func (t *Tree) delete(op *Op) ([]Change, syscall.Errno) {
	path := CleanPath(op.Path)
	n := t.find(path)
	switch {
	case n == nil:
		return nil, syscall.ENOENT
	case n == t.root:
		return nil, syscall.EACCES
	case len(n.kids) > 0:
		return nil, syscall.ENOTEMPTY
	}
	return append(make([]Change, 0, 2), t.remove(n, path)), 0
}

// remove takes a file or empty directory out of the tree, the VM list and the
// locks.
func (t *Tree) remove(n *node, path string) Change {
	c := Change{Inode: n.inode, Old: n.e}
	t.unlink(n)
	if g, ok := ParseGuest(path); ok {
		t.guests.remove(g.VMID)
	}
	delete(t.locks, path)
	return c
}

func (t *Tree) rename(op *Op) ([]Change, syscall.Errno) {
	from, to := CleanPath(op.Path), CleanPath(op.To)
	n := t.find(from)
	switch {
	case n == nil:
		return nil, syscall.ENOENT
	case n == t.root:
		return nil, syscall.EACCES
	}
	fromGuest, fromIsGuest := ParseGuest(from)
	toGuest, toIsGuest := ParseGuest(to)
	file := n.e.Type == TypeFile
	if file && toIsGuest && t.guests.taken(toGuest) && !(fromIsGuest && fromGuest.VMID == toGuest.VMID) {
		return nil, syscall.EEXIST
	}
	if _, lock := LockName(from); lock && !file {
		return nil, syscall.EACCES
	}
	target := t.find(to)
	switch {
	case target == t.root:
		return nil, syscall.EACCES
	case target != nil && target != n && len(target.kids) > 0:
		return nil, syscall.ENOTEMPTY
	}
	_, dir, base, errno := t.lookupDir(to)
	if errno != 0 {
		return nil, errno
	}
	if len(n.kids) > 0 {
		return nil, syscall.ENOTEMPTY
	}
	if dir == n { // an empty directory into itself
		return nil, syscall.EINVAL
	}

	changes := make([]Change, 0, 3)
	if target != nil && target != n {
		changes = append(changes, t.remove(target, to))
	}
	e := n.e.next(t.nextVersion(), op.Writer, op.MTime)
	e.Parent, e.Name = dir.inode, base
	delete(n.parent.kids, n.e.Name)
	n.parent = dir
	dir.kids[base] = n
	changes = append(changes, t.replace(n, e))
	if fromIsGuest {
		t.guests.remove(fromGuest.VMID)
	}
	if toIsGuest && file {
		t.guests.register(toGuest)
	}
	return changes, 0
}

// splice returns a file's content after a write of data at offset.
//
// Published content never changes, but what lies in its array behind its end
// belongs to nobody: an append that fits there is made in place. n.used tells
// how far an array has been given out, so that no two states of a file ever
// append to the same bytes.
func (t *Tree) splice(n *node, data []byte, offset int, truncate bool) []byte {
	old := n.e.data
	end := offset + len(data)
	size := max(end, len(old))
	if truncate {
		size = end
	}
	switch {
	case size == 0:
		n.used = -1
		return nil
	case offset == 0 && len(data) == size:
		n.used = size
		return append([]byte(nil), data...)
	case offset >= len(old) && n.used == len(old) && size <= cap(old):
		buf := old[:size]
		clear(buf[len(old):offset])
		copy(buf[offset:], data)
		n.used = size
		return buf
	}
	room := size
	if offset > 0 && offset >= len(old) && len(data) > 0 { // grows at its end, and will again
		room = min(size+max(size/2, 4096), max(MaxFileSize, size))
		t.loose[n] = math.MaxUint64
	}
	buf := make([]byte, size, room)
	copy(buf, old[:min(len(old), size)])
	copy(buf[offset:], data)
	n.used = size
	return buf
}

// Trim gives back the spare room of files that were appended to and have not
// changed since the last call. It is to be called now and then.
func (t *Tree) Trim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, seen := range t.loose {
		e := n.e
		if e.Version != seen {
			t.loose[n] = e.Version
			continue
		}
		delete(t.loose, n)
		if cap(e.data)-len(e.data) <= len(e.data)/8 {
			continue
		}
		trimmed := NewEntry(e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, append([]byte(nil), e.data...))
		trimmed.index.Store(e.index.Load())
		n.e, n.used = trimmed, len(trimmed.data)
	}
}
