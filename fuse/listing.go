package fuse

import (
	"sync"

	"pmxcfs/memdb"
)

// listings say of which directories the kernel may keep the listing that it has.
//
// To have it dropped when a change comes is not enough: a listing that was read from the tree before
// the change may still be on its way, and the kernel keeps it afterwards. So each open
// says whether the kernel's is the present one, as far as that is certain: no handle is open, and none
// was closed, that is older than the last change. If it is not, the kernel drops it as
// part of the open.
type listings struct {
	mu   sync.Mutex
	dirs map[uint64]*listing // by node id
}

// listing is that of one directory.
type listing struct {
	changes uint64 // counted from 1
	kept    uint64 // changes that the kernel's has seen; 0: unknown
	handles int    // open, since the last change
	older   int    // open, since before
}

func newListings() *listings { return &listings{dirs: make(map[uint64]*listing)} }

// open notes that a directory is opened, before its listing is read from the tree. It
// returns the number of changes so far, which close takes, and whether the kernel may keep the listing that it has.
func (l *listings) open(dir uint64) (changes uint64, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.dirs[dir]
	if d == nil {
		d = &listing{changes: 1}
		l.dirs[dir] = d
	}
	keep = d.kept == d.changes && d.older == 0
	if d.older == 0 {
		d.kept = d.changes
	}
	d.handles++
	return d.changes, keep
}

// close notes that a handle is closed: whatever was answered to it has arrived.
func (l *listings) close(dir, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.dirs[dir]
	switch {
	case d == nil:
	case changes == d.changes:
		d.handles--
	default:
		d.older--
		d.kept = 0
	}
}

// changed notes that a directory has another listing now. The tree has it already.
func (l *listings) changed(dir uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.dirs[dir]; d != nil {
		d.changes++
		d.older += d.handles
		d.handles = 0
	}
}

// note takes in changes of the tree.
func (l *listings) note(changes []memdb.Change) {
	for _, c := range changes {
		if c.Old != nil && c.New != nil && c.Old.Parent == c.New.Parent && c.Old.Name == c.New.Name {
			continue
		}
		for _, e := range []*memdb.Entry{c.Old, c.New} {
			if e != nil && e.Inode != memdb.RootInode {
				l.changed(nodeID(e.Parent))
			}
		}
	}
}

// forget drops the note of a directory that the kernel has dropped. None of its handles is open.
func (l *listings) forget(dir uint64) {
	l.mu.Lock()
	delete(l.dirs, dir)
	l.mu.Unlock()
}
