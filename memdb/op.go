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
	Path     string // without a leading slash
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
	Old   *Entry // nil: the entry is new
	New   *Entry // nil: the entry is gone
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
// looked at is part of the protocol: all nodes must answer alike.
func (t *Tree) Apply(op *Op) (Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.apply(op)
}

// Refusal returns the error that Apply would answer at this moment, or nil. It
// changes nothing. A node asks it before it sends an operation to the others;
// the answer of the delivered operation still decides.
func (t *Tree) Refusal(op *Op) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if _, errno := t.plan(op); errno != 0 {
		return op.fail(errno)
	}
	return nil
}

// Room reports whether the tree's limits leave room for op: nil, or a
// *fs.PathError around ENOSPC, ENAMETOOLONG for the name that it would give, EIO at the
// end of all version numbers. An operation that Apply would refuse needs no space.
// Apply itself does not ask, because a delivered operation must be applied on
// every node alike; the node that a user writes on asks before it sends.
func (t *Tree) Room(op *Op) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.root.e.Version >= MaxVersion {
		return op.fail(syscall.EIO)
	}
	if _, name := Split(CleanPath(op.gives())); len(name) > MaxNameLen {
		return op.fail(syscall.ENAMETOOLONG)
	}
	full := false
	switch op.Kind {
	case OpCreate, OpMkdir:
		full = len(t.nodes) >= MaxEntries
	case OpWrite:
		size := int64(op.Offset) + int64(len(op.Data))
		if t.bytes+size <= MaxTreeBytes {
			break
		}
		if n := t.find(CleanPath(op.Path)); n != nil {
			size -= int64(len(n.e.data))
		}
		full = size > 0 && t.bytes+size > MaxTreeBytes
	}
	if !full {
		return nil
	}
	if _, errno := t.plan(op); errno != 0 {
		return nil
	}
	return op.fail(syscall.ENOSPC)
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
	changes := t.carryOut(op, &s)
	old := t.root.e
	t.root.e = old.next(t.nextVersion(), op.Writer, op.MTime)
	t.publish()
	return Result{append(changes, Change{RootInode, old, t.root.e})}, nil
}

// nextVersion is the version number that the change in progress takes.
func (t *Tree) nextVersion() uint64 { return t.root.e.Version + 1 }
