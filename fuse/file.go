package fuse

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
)

func writable(flags uint32) bool { return flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// Open opens a file or a special file. A read through the kernel's cache then
// needs no further request but the release.
func (fs *FS) Open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	return fs.open(cancel, in, out, nil)
}

func (fs *FS) open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut, r *running) gofuse.Status {
	if item := fs.byID[in.NodeId]; item != nil {
		return fs.openItem(item, in, out)
	}
	e, ok := fs.tree.Get(inodeOf(in.NodeId))
	if !ok {
		e, ok = fs.orphan(inodeOf(in.NodeId)) // through /proc/PID/fd
	}
	switch {
	case !ok:
		return statusESTALE
	case e.IsDir():
		return statusEISDIR
	case !fs.may(&in.InHeader, fs.mode(e), wanted(in.Flags)):
		return statusEACCES
	}
	if in.Flags&syscall.O_TRUNC == 0 {
		fs.openEntry(e.Entry, in.Flags, in.Pid, out)
		return gofuse.OK
	}
	if !writable(in.Flags) {
		r.waits()
		if st := fs.resize(cancel, e.Inode, nil, 0); !st.Ok() {
			return st
		}
	} else if st := fs.mayEmpty(cancel); !st.Ok() {
		return st
	}
	fs.openEntry(e.Entry, in.Flags, in.Pid, out)
	fs.awaitReaders(e.Inode, r)
	return gofuse.OK
}

// mayEmpty reports whether a file may be opened with O_TRUNC. The first write or the close
// empties it; if nothing is written, only close could say that it was not stored.
func (fs *FS) mayEmpty(cancel <-chan struct{}) gofuse.Status {
	if !fs.store.Quorate() {
		return statusEACCES
	}
	err := fs.store.Writable(cancel)
	if err != nil {
		fs.changeFailed(err)
	}
	return status(err)
}

const (
	// readersTime bounds how long an open with O_TRUNC waits for readers.
	readersTime = 100 * time.Millisecond
	// readerAtRest is the age from which on a reader is one that keeps the file open.
	readerAtRest = time.Second
)

// awaitReaders waits until nobody reads a file through the kernel's pages, but not for readers that
// keep it open. When an open with O_TRUNC is answered, the kernel takes the file for empty
// until it asks again: a read that goes on at that moment would end without the content, which
// the file still has. Readers that come meanwhile bypass the pages.
func (fs *FS) awaitReaders(inode uint64, r *running) {
	if !fs.inPages(inode) {
		return
	}
	r.waits()
	pause := 50 * time.Microsecond
	for until := time.Now().Add(fs.readersTime); fs.inPages(inode); pause = min(2*pause, time.Millisecond) {
		if !time.Now().Before(until) {
			return
		}
		time.Sleep(pause)
	}
}

// openEntry opens a file. A reader uses the kernel's pages, and has nothing to
// report at close. A writer bypasses them: so a reader's page is replaced as a
// whole, and never shows half of a change. A file that is being changed is read
// past the pages, too: they would be dropped at once.
func (fs *FS) openEntry(e *memdb.Entry, flags, thread uint32, out *gofuse.OpenOut) {
	h := &handle{id: nodeID(e.Inode), inode: e.Inode, write: writable(flags), opener: thread}
	h.truncate = h.write && flags&syscall.O_TRUNC != 0
	h.empties = h.truncate
	h.paged = !h.write && !fs.recent.has(e.Inode)
	out.Fh = fs.addHandle(h)
	switch {
	case h.write:
		out.OpenFlags = gofuse.FOPEN_DIRECT_IO
	case !h.paged:
		out.OpenFlags = gofuse.FOPEN_DIRECT_IO | gofuse.FOPEN_NOFLUSH
	case fs.keepPages(e):
		out.OpenFlags = gofuse.FOPEN_KEEP_CACHE | gofuse.FOPEN_NOFLUSH
	default:
		out.OpenFlags = gofuse.FOPEN_NOFLUSH
	}
}

func (fs *FS) openItem(item *rootItem, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	flags := in.Flags
	if item.link != nil {
		return gofuse.Status(syscall.ELOOP)
	}
	if !fs.may(&in.InHeader, fs.itemMode(item), wanted(flags)) {
		return statusEACCES
	}
	h := &handle{id: item.id, item: item, write: writable(flags)}
	if h.write && item.special.Write == nil {
		return statusEACCES
	}
	if flags&syscall.O_ACCMODE != syscall.O_WRONLY {
		h.content = item.special.Read()
	}
	out.OpenFlags = gofuse.FOPEN_DIRECT_IO | gofuse.FOPEN_NOFLUSH
	out.Fh = fs.addHandle(h)
	return gofuse.OK
}

// Create makes a file and opens it. If another node was faster, the file is
// opened as it is, unless O_EXCL was asked for.
func (fs *FS) Create(cancel <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	if !fs.mayIn(&in.InHeader, in.NodeId, mayChange) {
		return statusEACCES
	}
	if fs.reserved(in.NodeId, name) != nil {
		return statusEACCES
	}
	path, st := fs.childPath(in.NodeId, name)
	if !st.Ok() {
		return st
	}
	change, err := fs.do(cancel, &memdb.Op{Kind: memdb.OpCreate, Path: path})
	e := change.New
	flags := in.Flags &^ syscall.O_TRUNC
	if errors.Is(err, syscall.EEXIST) && in.Flags&syscall.O_EXCL == 0 {
		there, ok := fs.tree.Child(inodeOf(in.NodeId), name)
		if !ok || there.IsDir() {
			return status(err)
		}
		if !fs.may(&in.InHeader, fs.mode(there), wanted(in.Flags)) {
			return statusEACCES
		}
		e, err, flags = there.Entry, nil, in.Flags
	}
	if err != nil {
		return status(err)
	}
	fs.madeOut(memdb.Info{Entry: e, Private: memdb.IsPrivate(path)}, in.NodeId, name, &out.EntryOut)
	fs.openEntry(e, flags, in.Pid, &out.OpenOut)
	return gofuse.OK
}

// Mknod makes a regular file; other kinds do not exist here.
func (fs *FS) Mknod(cancel <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	if !fs.mayIn(&in.InHeader, in.NodeId, mayChange) {
		return statusEACCES
	}
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return statusEPERM
	}
	return fs.make(cancel, memdb.OpCreate, &in.InHeader, name, out)
}

// Read answers from the content as it is now; the reply is written to the
// kernel from the tree's own bytes.
func (fs *FS) Read(_ <-chan struct{}, in *gofuse.ReadIn, _ []byte) (gofuse.ReadResult, gofuse.Status) {
	h := fs.handle(in.Fh)
	if h == nil {
		return nil, statusEBADF
	}
	content := h.content
	if h.item == nil {
		e, ok := fs.tree.Get(h.inode)
		if !ok {
			if e, ok = fs.orphan(h.inode); !ok {
				return nil, gofuse.ENOENT
			}
		}
		content = e.Data()
		if h.truncatePending() {
			content = nil
		}
	}
	if in.Offset >= uint64(len(content)) {
		return gofuse.ReadResultData(nil), gofuse.OK
	}
	content = content[in.Offset:]
	return gofuse.ReadResultData(content[:min(len(content), int(in.Size))]), gofuse.OK
}

// Write puts data into the tree and reports whether they are stored, because hardly any
// program checks close(2). Only the later writes of a longer stream return before they are
// stored, so that one transaction takes many; close, fsync or the next write reports
// their result.
func (fs *FS) Write(cancel <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	return fs.write(cancel, in, data, nil)
}

func (fs *FS) write(cancel <-chan struct{}, in *gofuse.WriteIn, data []byte, r *running) (uint32, gofuse.Status) {
	h := fs.handle(in.Fh)
	if h == nil {
		return 0, statusEBADF
	}
	if h.item != nil {
		return fs.writeItem(h.item, in.Offset, data)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.settle(); err != nil {
		return 0, status(err)
	}
	offset := in.Offset
	appends := in.Flags&syscall.O_APPEND != 0
	e, path, ok := fs.tree.Locate(h.inode)
	if !ok {
		return fs.writeOrphan(h, offset, appends, data)
	}
	if appends {
		// The end that the tree has, not the one that the kernel remembers.
		if offset = uint64(e.Size()); h.truncate {
			offset = 0
		}
	}
	if tooBig(offset, data) {
		return 0, statusEFBIG
	}
	op := &memdb.Op{Kind: memdb.OpWrite, Path: path, Data: data, Offset: uint32(offset)}
	if h.truncate {
		op.Truncate = true
		if offset > 0 { // a gap in an emptied file is zeros
			op.Data, op.Offset = append(make([]byte, offset), data...), 0
		}
	}
	durable := in.Flags&syscall.O_DSYNC != 0 // a bit of O_SYNC, too
	wait := !h.streams || durable
	if wait {
		r.waits()
	}
	if appends {
		cancel = nil // told of an interruption, its caller would append once more
	}
	_, commit, err := fs.store.Write(cancel, op, wait)
	switch {
	case err == nil:
		h.wrote(commit)
	case commit != nil: // interrupted; close or the next write reports what became of it
		h.wrote(commit)
		fs.notify.content(h.id)
	default:
		h.failed()
		fs.changeFailed(err)
		return 0, status(err)
	}
	fs.contentChanged(h.inode)
	if err == nil && durable {
		err = fs.sync(cancel)
	}
	if err != nil {
		return 0, status(err)
	}
	return uint32(len(data)), gofuse.OK
}

// tooBig reports whether data at an offset reaches beyond what a file may have.
func tooBig(offset uint64, data []byte) bool {
	return offset > memdb.MaxFileSize || uint64(len(data)) > memdb.MaxFileSize-offset
}

// writeOrphan writes to a file that has no name any more: as everywhere, it
// lives on until it is closed, but it is nothing that is stored.
func (fs *FS) writeOrphan(h *handle, offset uint64, appends bool, data []byte) (uint32, gofuse.Status) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[h.inode]
	if f == nil || f.orphan == nil {
		return 0, gofuse.ENOENT
	}
	old := f.orphan.Data()
	if h.truncate {
		old = nil
	}
	if appends {
		offset = uint64(len(old))
	}
	if tooBig(offset, data) {
		return 0, statusEFBIG
	}
	end := offset + uint64(len(data))
	buf := make([]byte, max(end, uint64(len(old))))
	copy(buf, old)
	copy(buf[offset:], data)
	f.setOrphan(buf)
	h.truncate = false
	fs.notify.content(h.id)
	return uint32(len(data)), gofuse.OK
}

func (f *openFile) setOrphan(data []byte) {
	o := f.orphan
	f.orphan = memdb.NewEntry(o.Inode, o.Parent, o.Version, o.Writer, o.MTime, o.Type, o.Name, data)
}

func (fs *FS) orphanAttr(id uint64, out *gofuse.AttrOut) gofuse.Status {
	o, ok := fs.orphan(inodeOf(id))
	if !ok {
		return statusESTALE
	}
	fs.entryAttr(o, &out.Attr)
	out.Nlink = 0
	return gofuse.OK
}

// Writev is how go-fuse tells of a write.
func (fs *FS) Writev(cancel <-chan struct{}, in *gofuse.WriteIn, data [][]byte) (uint32, gofuse.Status) {
	return fs.write(cancel, in, joined(data), nil)
}

// joined returns pieces as one. What comes through /dev/fuse is in one piece.
func joined(data [][]byte) []byte {
	if len(data) == 1 {
		return data[0]
	}
	return bytes.Join(data, nil)
}

func (fs *FS) writeItem(item *rootItem, offset uint64, data []byte) (uint32, gofuse.Status) {
	if item.special.Write == nil || offset != 0 {
		return 0, gofuse.EIO
	}
	if err := item.special.Write(data); err != nil {
		return 0, status(err)
	}
	return uint32(len(data)), gofuse.OK
}

// setSize truncates or grows a file.
func (fs *FS) setSize(cancel <-chan struct{}, in *gofuse.SetAttrIn, size uint64) gofuse.Status {
	if size > memdb.MaxFileSize {
		return statusEFBIG
	}
	var h *handle
	if fh, ok := in.GetFh(); ok {
		h = fs.handle(fh)
	}
	if h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
	}
	return fs.resize(cancel, inodeOf(in.NodeId), h, size)
}

// resize changes a file's size now. The handle's lock, if there is a handle, is
// held.
func (fs *FS) resize(cancel <-chan struct{}, inode uint64, h *handle, size uint64) gofuse.Status {
	e, path, ok := fs.tree.Locate(inode)
	if !ok {
		if h != nil && h.truncate {
			h.truncate = false
			fs.resizeOrphan(inode, 0) // what it grows by is zeros
		}
		return fs.resizeOrphan(inode, size)
	}
	if e.IsDir() {
		return statusEISDIR
	}
	op := &memdb.Op{Kind: memdb.OpWrite, Path: path, Offset: uint32(size), Truncate: true}
	if emptied := h != nil && h.truncate; size > 0 && (e.Size() == 0 || emptied) {
		// A peer might keep no bytes for the part that an empty file grows by:
		// write them.
		op.Data, op.Offset = make([]byte, size), 0
	}
	if _, err := fs.do(cancel, op); err != nil {
		return status(err)
	}
	if h != nil {
		h.truncate = false
	}
	return gofuse.OK // the kernel drops its pages by itself
}

func (fs *FS) resizeOrphan(inode, size uint64) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[inode]
	if f == nil || f.orphan == nil {
		return statusESTALE
	}
	buf := make([]byte, size)
	copy(buf, f.orphan.Data())
	f.setOrphan(buf)
	return gofuse.OK
}

// Flush is close(2), of one of perhaps several descriptors of a handle: it returns
// once all writes are stored; a single write already is.
func (fs *FS) Flush(cancel <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	return fs.flush(cancel, in, nil)
}

func (fs *FS) flush(cancel <-chan struct{}, in *gofuse.FlushIn, r *running) gofuse.Status {
	h := fs.handle(in.Fh)
	if h == nil || !h.write || h.item != nil {
		return gofuse.OK
	}
	if h.truncatePending() && fs.keepsOpen(h, in.Pid) {
		return gofuse.OK // nothing was written, and it may still be
	}
	err := fs.finish(cancel, h, r)
	h.reported.Store(err != nil)
	return status(err)
}

// finish carries out a truncation that no write has carried, and waits for the
// last write's transaction.
func (fs *FS) finish(cancel <-chan struct{}, h *handle, r *running) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.truncate || h.commit != nil {
		r.waits()
	}
	if err := fs.truncateNow(cancel, h); err != nil {
		return err
	}
	if h.commit == nil {
		return nil
	}
	err := h.commit.Wait(cancel)
	switch err {
	case nil:
		h.wrote(nil)
		return nil
	case syscall.EINTR:
	default:
		h.failed()
	}
	fs.changeFailed(err)
	return err
}

func (fs *FS) truncateNow(cancel <-chan struct{}, h *handle) error {
	if !h.truncate || h.spares {
		return nil
	}
	path, ok := fs.tree.Path(h.inode)
	if !ok { // deleted meanwhile
		h.truncate = false
		fs.resizeOrphan(h.inode, 0)
		fs.contentChanged(h.inode)
		return nil
	}
	if _, err := fs.do(cancel, &memdb.Op{Kind: memdb.OpWrite, Path: path, Truncate: true}); err != nil {
		return err
	}
	h.truncate = false
	fs.contentChanged(h.inode)
	return nil
}

// Fsync returns when the file's changes have reached the disk.
func (fs *FS) Fsync(cancel <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	if h := fs.handle(in.Fh); h != nil && h.write && h.item == nil {
		if err := fs.finish(cancel, h, nil); err != nil {
			return status(err)
		}
	}
	return status(fs.sync(cancel))
}

// FsyncDir returns when all changes have reached the disk.
func (fs *FS) FsyncDir(cancel <-chan struct{}, _ *gofuse.FsyncIn) gofuse.Status {
	return status(fs.sync(cancel))
}

// Release ends a handle. No caller is left to hear of an error: a failure that close has
// reported is not tried again.
func (fs *FS) Release(cancel <-chan struct{}, in *gofuse.ReleaseIn) {
	if h := fs.handle(in.Fh); h != nil && h.truncatePending() && !h.reported.Load() {
		if err := fs.finish(cancel, h, nil); err != nil {
			level := slog.LevelError
			if refused(err) {
				level = slog.LevelDebug
			}
			fs.log.Log(context.Background(), level, "truncating a file at its release failed", "inode", h.inode, "error", err)
		}
	}
	fs.dropHandle(in.Fh)
	fs.turns.take(pauseAtRelease)
}

// Fallocate is not supported: space is not reserved here.
func (fs *FS) Fallocate(<-chan struct{}, *gofuse.FallocateIn) gofuse.Status { return statusENOTSUPP }
