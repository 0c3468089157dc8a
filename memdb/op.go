package memdb

import (
	"io/fs"
	"syscall"
	"time"
)

// Kind is the kind of an operation. The values are those of the configuration
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

// Op is one change to the tree. Fields that its kind does not name are not
// looked at.
type Op struct {
	Kind     Kind
	Path     string // clean: see CleanPath
	To       string // rename: the new path
	Data     []byte // write: the bytes to write; copied, not kept
	Offset   uint32 // write: where
	Truncate bool   // write: the file ends after the data
	Writer   uint32 // node id of the writer; 0 in local mode
	MTime    uint32 // seconds since 1970: the time of the change; mtime: the time to set

	// Now is this node's clock, by which it judges a lock's age. It is not
	// part of the replicated state. Zero: a lock's age begins when it is next
	// looked at.
	Now time.Time
}

// Change is one entry's step from one state to the next.
type Change struct {
	Inode uint64
	Old   *Entry // nil means the entry is new
	New   *Entry // nil means the entry is gone
}

// Result holds the changes of an operation that succeeded.
type Result struct {
	Changes []Change // in order; the root's new version comes last
}

// Change returns the change of the operation's own entry.
func (r Result) Change() Change {
	if len(r.Changes) < 2 {
		return Change{}
	}
	return r.Changes[len(r.Changes)-2]
}

// Apply carries out one operation. An error is a *fs.PathError around a
// syscall.Errno; the tree is then as it was. The order in which conditions are
// looked at is part of the protocol: all nodes must answer alike. So the tree's limits
// are none of them: see Check.
func (t *Tree) Apply(op *Op) (Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.apply(op)
}

// ApplyWithin is Check, and Apply if that has no objection.
func (t *Tree) ApplyWithin(op *Op) (Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, errno := t.check(op)
	if errno != 0 {
		return Result{}, op.fail(errno)
	}
	return t.publishChange(op, &s), nil
}

// Check returns why a user's operation is refused at this moment, or nil; it changes
// nothing. That is the error of Apply, but for ENAMETOOLONG for the name that it
// would give, which comes first, and ENOSPC if it would be allowed and the tree's limits
// leave no room. The node that a user writes on checks before it sends; what was
// delivered must be applied on every node alike.
func (t *Tree) Check(op *Op) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if _, errno := t.check(op); errno != 0 {
		return op.fail(errno)
	}
	return nil
}

// check is plan for a user's operation.
func (t *Tree) check(op *Op) (step, syscall.Errno) {
	if _, name := Split(op.gives()); len(name) > MaxNameLen && t.nextVersion() <= MaxVersion {
		return step{}, syscall.ENAMETOOLONG
	}
	s, errno := t.plan(op)
	if errno == 0 && !t.room(op, &s) {
		errno = syscall.ENOSPC
	}
	return s, errno
}

// room reports whether the tree's limits leave room for an allowed operation.
func (t *Tree) room(op *Op, s *step) bool {
	switch op.Kind {
	case OpCreate, OpMkdir:
		return len(t.nodes) < MaxEntries
	case OpWrite:
		grows := int64(op.Offset) + int64(len(op.Data)) - int64(len(s.node.e.data))
		return grows <= 0 || t.bytes+grows <= MaxTreeBytes
	}
	return true
}

// gives returns the path whose last component op gives to an entry; "" if it gives
// none.
func (op *Op) gives() string {
	switch op.Kind {
	case OpCreate, OpMkdir:
		return op.Path
	case OpRename:
		return op.To
	}
	return ""
}

func (op *Op) fail(errno syscall.Errno) error {
	return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: errno}
}

func (t *Tree) apply(op *Op) (Result, error) {
	s, errno := t.plan(op)
	if errno != 0 {
		return Result{}, op.fail(errno)
	}
	return t.publishChange(op, &s), nil
}

// publishChange carries out what plan has allowed.
func (t *Tree) publishChange(op *Op, s *step) Result {
	changes := t.carryOut(op, s)
	old := t.root.e
	t.root.e = old.next(t.nextVersion(), op.Writer, op.MTime)
	t.publish()
	return Result{append(changes, Change{RootInode, old, t.root.e})}
}

// nextVersion is the version number that the change in progress takes.
func (t *Tree) nextVersion() uint64 { return t.root.e.Version + 1 }
