package memdb

import "syscall"

// step is the plan of an allowed operation.
type step struct {
	node   *node  // the entry concerned; nil if it is to be made
	dir    *node  // where it will be
	base   string // what it will be called
	target *node  // rename: the entry in the way; nil if there is none

	gain, lose   Guest // the VM list's new and old line
	gains, loses bool
	lock         bool // node is a lock
}

// plan decides whether op is allowed. It changes nothing. The order of the
// checks is part of the protocol.
func (t *Tree) plan(op *Op) (step, syscall.Errno) {
	if t.nextVersion() > MaxVersion { // the file could not be loaded any more
		return step{}, syscall.EIO
	}
	switch op.Kind {
	case OpMkdir:
		return t.planMkdir(op)
	case OpCreate:
		return t.planFile(op, 0)
	case OpWrite:
		return t.planFile(op, uint64(op.Offset)+uint64(len(op.Data)))
	case OpMTime:
		return t.planMTime(op)
	case OpDelete:
		return t.planDelete(op)
	case OpRename:
		return t.planRename(op)
	}
	return step{}, syscall.EINVAL
}

// lookupDir finds the directory that a clean path lies in.
func (t *Tree) lookupDir(path string) (dir *node, base string, errno syscall.Errno) {
	dirPath, base := Split(path)
	dir = t.find(dirPath)
	switch {
	case dir == nil:
		return nil, base, syscall.ENOENT
	case !dir.e.IsDir():
		return nil, base, syscall.ENOTDIR
	case base == "" || base == "." || base == "..":
		return nil, base, syscall.EACCES
	}
	return dir, base, 0
}

// inodeFree reports whether the next version number can be a new entry's inode.
// It can't only in a tree whose root is behind its entries, or at the end of
// all numbers: such a tree comes from a damaged database.
func (t *Tree) inodeFree() bool {
	next := t.nextVersion()
	if last := t.order[len(t.order)-1]; last.inode < next {
		return true
	}
	return t.nodes[next] == nil
}

func (t *Tree) planMkdir(op *Op) (step, syscall.Errno) {
	dir, base, errno := t.lookupDir(op.Path)
	switch {
	case errno != 0:
		return step{}, errno
	case dir.kids[base] != nil:
		return step{}, syscall.EEXIST
	case !t.inodeFree():
		return step{}, syscall.EIO
	}
	return step{dir: dir, base: base}, 0
}

// planFile decides create and write; end is where the written bytes end.
func (t *Tree) planFile(op *Op, end uint64) (step, syscall.Errno) {
	if end > MaxFileSize {
		return step{}, syscall.EFBIG
	}
	dir, base, errno := t.lookupDir(op.Path)
	if errno != 0 {
		return step{}, errno
	}
	s := step{dir: dir, base: base, node: dir.kids[base]}
	s.gain, s.gains = ParseGuest(op.Path)
	switch {
	case s.gains && t.guests.taken(s.gain):
		return step{}, syscall.EEXIST
	case s.node != nil && s.node.e.IsDir():
		return step{}, syscall.ENOTDIR
	case op.Kind == OpWrite && s.node == nil:
		return step{}, syscall.ENOENT
	case op.Kind == OpCreate && s.node != nil:
		return step{}, syscall.EEXIST
	case op.Kind == OpCreate && !t.inodeFree():
		return step{}, syscall.EIO
	}
	return s, 0
}

func (t *Tree) planMTime(op *Op) (step, syscall.Errno) {
	dir, base, errno := t.lookupDir(op.Path)
	if errno != 0 {
		return step{}, errno
	}
	n := dir.kids[base]
	if n == nil {
		return step{}, syscall.ENOENT
	}
	lock := n.e.IsDir() && isLockPath(op.Path)
	if lock && (op.MTime < n.e.MTime || op.Writer != n.e.Writer) {
		return step{}, syscall.EACCES
	}
	return step{dir: dir, base: base, node: n, lock: lock}, 0
}

func (t *Tree) planDelete(op *Op) (step, syscall.Errno) {
	n := t.find(op.Path)
	switch {
	case n == nil:
		return step{}, syscall.ENOENT
	case n == t.root:
		return step{}, syscall.EACCES
	case len(n.kids) > 0:
		return step{}, syscall.ENOTEMPTY
	}
	return step{node: n}, 0
}

func (t *Tree) planRename(op *Op) (step, syscall.Errno) {
	n := t.find(op.Path)
	switch {
	case n == nil:
		return step{}, syscall.ENOENT
	case n == t.root:
		return step{}, syscall.EACCES
	}
	s := step{node: n}
	s.lose, s.loses = ParseGuest(op.Path)
	s.gain, s.gains = ParseGuest(op.To)
	s.gains = s.gains && n.e.Type == TypeFile
	if s.gains && t.guests.taken(s.gain) && !(s.loses && s.lose.VMID == s.gain.VMID) {
		return step{}, syscall.EEXIST
	}
	if n.e.IsDir() && isLockPath(op.Path) {
		return step{}, syscall.EACCES
	}
	s.target = t.find(op.To)
	switch {
	case s.target == n:
		s.target = nil // onto itself: nothing is in the way
	case s.target == t.root:
		return step{}, syscall.EACCES
	case s.target != nil && len(s.target.kids) > 0:
		return step{}, syscall.ENOTEMPTY
	}
	var errno syscall.Errno
	s.dir, s.base, errno = t.lookupDir(op.To)
	switch {
	case errno != 0:
		return step{}, errno
	case len(n.kids) > 0:
		return step{}, syscall.ENOTEMPTY
	case s.dir == n: // an empty directory into itself
		return step{}, syscall.EINVAL
	}
	return s, 0
}
