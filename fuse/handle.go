package fuse

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

// openFile is what all handles of one inode share.
type openFile struct {
	readers int          // handles that are for reading only
	paged   int          // those of them through which the kernel reads its own pages
	pagedAt time.Time    // when the last of these was opened
	writers []*handle    // the other handles, in the order of their opening
	orphan  *memdb.Entry // the file's last state, once it is deleted
	private bool         // that was for root alone
}

// handle is an open file, directory or special file.
type handle struct {
	id    uint64 // node id
	inode uint64
	item  *rootItem // of a special file

	content  []byte // of a special file, as it was at open
	isDir    bool
	changes  uint64         // of a directory: those that it had before it was opened
	listed   bool           // dir is filled
	dir      []*memdb.Entry // listing of a directory, ascending by inode
	write    bool           // may be written to
	paged    bool           // read through the kernel's pages
	opener   uint32         // thread that opened it, as the kernel names it
	empties  bool           // opened with O_TRUNC
	reported atomic.Bool    // the last close has told of an error

	mu       sync.Mutex   // held for the whole of a write, flush or fsync
	truncate bool         // opened with O_TRUNC, nothing written yet
	spares   bool         // a write that was to carry the truncation has failed: close leaves the file as it is
	streams  bool         // a write through it was stored, and none has failed since
	commit   *dcdb.Commit // of the last write; nil means it is stored
	emptied  bool         // commit is of the write that carried the truncation
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

// settle returns the error of the last write's transaction, once, if it is known to
// have failed.
func (h *handle) settle() error {
	if h.commit == nil {
		return nil
	}
	err := h.commit.Failed()
	if err != nil {
		h.failed()
	}
	return err
}

// failed takes note that a write was not made, or taken back. What it was to overwrite stays,
// unless another write succeeds: better the old content than none. mu is held.
func (h *handle) failed() {
	h.truncate = h.truncate || h.emptied
	h.spares = h.truncate
	h.commit, h.emptied, h.streams = nil, false, false
}

// wrote takes note of a write: commit is its transaction, nil if that is over. mu is held.
func (h *handle) wrote(commit *dcdb.Commit) {
	if commit == nil {
		h.streams = true
	}
	h.emptied = commit != nil && h.truncate
	h.truncate, h.spares, h.commit = false, false, commit
}

// addHandle registers h and returns its number. A regular file is counted as
// open from here on; while somebody has it open with O_TRUNC, nobody reads it through the
// kernel's pages.
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
		if h.write {
			f.writers = append(f.writers, h)
		} else {
			f.readers++
		}
		if h.paged = h.paged && !f.emptying(); h.paged {
			f.paged++
			f.pagedAt = time.Now()
		}
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
	f := fs.files[h.inode]
	if f == nil || h.item != nil || h.isDir {
		return
	}
	if i := slices.Index(f.writers, h); i >= 0 {
		f.writers = slices.Delete(f.writers, i, i+1)
	} else {
		f.readers--
	}
	if h.paged {
		f.paged--
	}
	if f.readers == 0 && len(f.writers) == 0 {
		delete(fs.files, h.inode)
	}
}

// orphan returns the last state of a file that was deleted while open.
func (fs *FS) orphan(inode uint64) (memdb.Info, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.files[inode]; f != nil && f.orphan != nil {
		return memdb.Info{Entry: f.orphan, Private: f.private}, true
	}
	return memdb.Info{}, false
}

// attrTime is how long the kernel may keep an inode's attributes. It may not
// while the file is about to be emptied by a close or an fsync, which the kernel
// does not take for changes; nor while the file is shown as another one.
func (fs *FS) attrTime(inode uint64) time.Duration {
	if _, ok := fs.twins.shownAs(inode, fs.tree); ok {
		return 0
	}
	if fs.emptying(inode) {
		return 0
	}
	return cacheTime
}

// emptying reports whether a file is open with O_TRUNC.
func (fs *FS) emptying(inode uint64) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[inode]
	return f != nil && f.emptying()
}

func (f *openFile) emptying() bool {
	return slices.ContainsFunc(f.writers, func(h *handle) bool { return h.empties })
}

// inPages reports whether a file was opened a moment ago, and still is open, for reading through
// the kernel's pages.
func (fs *FS) inPages(inode uint64) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[inode]
	return f != nil && f.paged > 0 && time.Since(f.pagedAt) < readerAtRest
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

// contentKept notes that a change did not touch the content: the kernel's pages
// are as right as before.
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

// contentChanged makes the kernel drop the pages that it has of an inode, if
// somebody may be reading through them. (The next open drops them otherwise,
// seeing another version.) It is called by the request that made the change,
// before its answer, so that the change is visible when that returns. This is
// safe here only: whoever writes has no page locked, since writers bypass the
// kernel's cache, and dropping pages takes no other lock than theirs.
func (fs *FS) contentChanged(inode uint64) {
	fs.mu.Lock()
	f := fs.files[inode]
	readers := f != nil && f.readers > 0
	fs.mu.Unlock()
	if readers {
		fs.notify.send(notice{kind: noticeContent, id: nodeID(inode)})
	}
}
