package fuse

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
)

// Link makes a second file with the same content: an entry has one name, in the
// database and in the protocol. That is what programs that use link(2) need, which
// keep an old version by it (ssh-keygen -R), deliver by it (maildir), or take a lock
// (dotlockfile): the new name is made by one node in the cluster only. Who changes one
// of the two later does not change the other.
//
// A lock's taker looks whether both names are the same file, since over NFS link(2)
// may have succeeded and say otherwise. So they are shown as that, for a short time
// and as long as nobody changes either.
func (fs *FS) Link(cancel <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	if !fs.mayIn(&in.InHeader, in.NodeId, mayChange) {
		return statusEACCES
	}
	if fs.byID[in.Oldnodeid] != nil {
		return statusEPERM
	}
	if fs.reserved(in.NodeId, name) != nil {
		return statusEACCES
	}
	from, ok := fs.tree.Get(inodeOf(in.Oldnodeid))
	switch {
	case !ok:
		return statusESTALE
	case from.IsDir():
		return statusEPERM
	case !fs.may(&in.InHeader, fs.mode(from), mayRead): // a link would need no right to read; a copy does
		return statusEACCES
	}
	path, st := fs.childPath(in.NodeId, name)
	if !st.Ok() {
		return st
	}
	to, err := fs.copyTo(cancel, from.Entry, path)
	if err != nil {
		return status(err)
	}
	fs.twins.add(from.Entry, to)
	// The kernel drops the attributes that it has for the first name. This takes no lock in it.
	fs.notify.send(notice{kind: noticeAttributes, id: in.Oldnodeid})
	fs.madeOut(memdb.Info{Entry: to, Private: memdb.IsPrivate(path)}, in.NodeId, name, out)
	return gofuse.OK
}

// copyTo makes a file of the same content at a path where there is none.
func (fs *FS) copyTo(cancel <-chan struct{}, from *memdb.Entry, path string) (*memdb.Entry, error) {
	made, err := fs.do(cancel, &memdb.Op{Kind: memdb.OpCreate, Path: path})
	if err != nil || from.Size() == 0 {
		return made.New, err
	}
	written, err := fs.do(cancel, &memdb.Op{Kind: memdb.OpWrite, Path: path, Data: from.Data()})
	if err == nil {
		return written.New, nil
	}
	if now, ok := fs.tree.Lookup(path); ok && now.Inode == made.Inode {
		if _, derr := fs.do(nil, &memdb.Op{Kind: memdb.OpDelete, Path: path}); derr != nil && !refused(derr) {
			fs.log.Error("a file that a link was to be is left without content", "path", path, "error", errors.Join(err, derr))
		}
	}
	return nil, err
}

const (
	twinTime = 10 * time.Second // how long the files of a link are shown as one
	maxTwins = 1024             // links that are; others are shown as two files at once
)

// twins are the files that link(2) has made of one, those that are shown as one.
type twins struct {
	n  atomic.Int32 // pairs, for those who ask without the lock
	mu sync.Mutex
	of map[uint64]*pair // by the inode of either
}

// pair are two files: the one that was there shows its inode number for both.
type pair struct {
	from, to *memdb.Entry
	until    time.Time
}

func newTwins() *twins { return &twins{of: make(map[uint64]*pair)} }

func (t *twins) add(from, to *memdb.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, p := range t.of {
		if now.After(p.until) {
			t.drop(p)
		}
	}
	for _, e := range []*memdb.Entry{from, to} {
		if p := t.of[e.Inode]; p != nil {
			t.drop(p)
		}
	}
	if len(t.of) >= 2*maxTwins {
		return
	}
	p := &pair{from, to, now.Add(twinTime)}
	t.of[from.Inode], t.of[to.Inode] = p, p
	t.n.Add(1)
}

// drop ends a pair. mu is held.
func (t *twins) drop(p *pair) {
	if t.of[p.from.Inode] == p {
		delete(t.of, p.from.Inode)
		delete(t.of, p.to.Inode)
		t.n.Add(-1)
	}
}

// shownAs returns the inode that a file of a pair shows; false if it shows its own.
func (t *twins) shownAs(inode uint64, tree *memdb.Tree) (uint64, bool) {
	if t.n.Load() == 0 {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.of[inode]
	if p == nil {
		return 0, false
	}
	if time.Now().Before(p.until) && unchanged(tree, p.from) && unchanged(tree, p.to) {
		return p.from.Inode, true
	}
	t.drop(p)
	return 0, false
}

func unchanged(tree *memdb.Tree, e *memdb.Entry) bool {
	now, ok := tree.Get(e.Inode)
	return ok && now.Version == e.Version
}
