package fuse

import (
	"sync"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

// openFile is what all handles of one inode share.
type openFile struct {
	handles int
	orphan  *memdb.Entry // the file's last state, once it is deleted
}

// handle is an open file, directory or special file.
type handle struct {
	id    uint64 // node id
	inode uint64
	item  *rootItem // of a special file

	content []byte // of a special file, as it was at open
	isDir   bool
	dir     []*memdb.Entry // listing of a directory, from its beginning
	write   bool           // may be written to
	direct  bool           // the kernel keeps no pages for it

	mu       sync.Mutex   // held for the whole of a write, flush or fsync
	truncate bool         // opened with O_TRUNC, nothing written yet
	commit   *dcdb.Commit // of the last write
}

// truncatePending reports whether the file will be emptied by the next write
// through h.
func (h *handle) truncatePending() bool {
	if !h.write {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.truncate
}

// settle forgets the last write's transaction and returns its error, if it is
// known to have failed.
func (h *handle) settle() error {
	if h.commit == nil {
		return nil
	}
	err := h.commit.Failed()
	if err != nil {
		h.commit = nil
	}
	return err
}

// addHandle registers h and returns its number. A regular file is counted as
// open from here on.
func (fs *FS) addHandle(h *handle) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.lastFh++
	fs.handles[fs.lastFh] = h
	if h.item == nil && !h.isDir {
		f := fs.files[h.inode]
		if f == nil {
			f = &openFile{}
			fs.files[h.inode] = f
		}
		f.handles++
	}
	return fs.lastFh
}

func (fs *FS) handle(fh uint64) *handle {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.handles[fh]
}

func (fs *FS) dropHandle(fh uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	h := fs.handles[fh]
	if h == nil {
		return
	}
	delete(fs.handles, fh)
	if f := fs.files[h.inode]; f != nil && h.item == nil && !h.isDir {
		if f.handles--; f.handles == 0 {
			delete(fs.files, h.inode)
		}
	}
}

// orphan returns the last state of a file that was deleted while open.
func (fs *FS) orphan(inode uint64) *memdb.Entry {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.files[inode]; f != nil {
		return f.orphan
	}
	return nil
}

// keepPages reports whether the kernel may keep the pages that it has of e, and
// notes that from now on they show e. If not, the kernel drops them as part of
// the open, and what it reads afterwards is e or newer.
func (fs *FS) keepPages(e *memdb.Entry) bool {
	id := nodeID(e.Inode)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if v, ok := fs.shown[id]; ok && v == e.Version {
		return true
	}
	fs.shown[id] = e.Version
	return false
}

// contentKept notes that a change left the kernel's pages right: either it did
// not touch the content, or the kernel has changed its pages in the same way.
func (fs *FS) contentKept(c memdb.Change) {
	if c.Old == nil || c.New == nil || c.New.IsDir() {
		return
	}
	id := nodeID(c.Inode)
	fs.mu.Lock()
	if v, ok := fs.shown[id]; ok && v == c.Old.Version {
		fs.shown[id] = c.New.Version
	}
	fs.mu.Unlock()
}

// forgetPages notes that the kernel's pages of an inode may be wrong, and has
// them dropped.
func (fs *FS) forgetPages(inode uint64) {
	fs.mu.Lock()
	delete(fs.shown, nodeID(inode))
	fs.mu.Unlock()
	fs.notify.content(nodeID(inode))
}
