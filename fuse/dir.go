package fuse

import (
	"cmp"
	"slices"
	"sort"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
)

// OpenDir opens a directory. The kernel keeps the listing that it reads: its own
// changes drop it, and for others it is told; see listings.
func (fs *FS) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	inode := inodeOf(in.NodeId)
	e, ok := fs.tree.Get(inode)
	switch {
	case !ok:
		return statusESTALE
	case !fs.may(&in.InHeader, fs.mode(e), mayRead):
		return statusEACCES
	}
	changes, keep := fs.listings.open(in.NodeId)
	out.Fh = fs.addHandle(&handle{id: in.NodeId, inode: inode, isDir: true, changes: changes})
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR
	if keep {
		out.OpenFlags |= gofuse.FOPEN_KEEP_CACHE
	}
	return gofuse.OK
}

// The offsets of a listing, which the kernel takes for signed numbers: those below
// cookieBase count the entries that no row stands for, then come the entries' inodes,
// and from oddCookies on those with inodes too great for that, counted.
const (
	cookieBase = 64
	oddCookies = 1 << 62
)

// cookies gives the entries of a listing, ascending by inode, their offsets.
type cookies struct {
	list []*memdb.Entry
	odd  int // index of the first entry whose inode is too great
}

func newCookies(list []*memdb.Entry) cookies {
	return cookies{list, sort.Search(len(list), func(i int) bool { return list[i].Inode >= oddCookies-cookieBase })}
}

// at returns the offset behind the entry at index i. They ascend.
func (c cookies) at(i int) uint64 {
	if i >= c.odd {
		return oddCookies + uint64(i-c.odd)
	}
	return c.list[i].Inode + cookieBase
}

// behind returns the index of the first entry behind an offset.
func (c cookies) behind(offset uint64) int {
	return sort.Search(len(c.list), func(i int) bool { return c.at(i) > offset })
}

// ReadDir lists a directory as it was when its beginning was read through the
// handle. An offset is made of an inode and the order is that of inodes: the
// kernel keeps parts of a listing, and may come back for the rest of it through
// another handle, when entries before have come or gone.
func (fs *FS) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	h := fs.handle(in.Fh)
	if h == nil {
		return statusEBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if in.Offset == 0 || !h.listed {
		// (A directory that is removed, but open, is empty.)
		list, _ := fs.tree.ReadDir(h.inode)
		h.dir = slices.SortedFunc(slices.Values(list), func(a, b *memdb.Entry) int { return cmp.Compare(a.Inode, b.Inode) })
		h.listed = true
	}
	if in.Offset < cookieBase {
		fixed := fs.fixedEntries(h)
		for i := int(in.Offset); i < len(fixed); i++ {
			fixed[i].Off = uint64(i + 1)
			if !out.AddDirEntry(fixed[i]) {
				return gofuse.OK
			}
		}
	}
	if fs.answering != nil {
		defer fs.answering()
	}
	offsets := newCookies(h.dir)
	for i := offsets.behind(in.Offset); i < len(h.dir); i++ {
		e := h.dir[i]
		if fs.reserved(h.id, e.Name) != nil || !memdb.ShownName(e.Name) {
			// Hidden by a special file or link, or for good.
			continue
		}
		if !out.AddDirEntry(gofuse.DirEntry{Name: e.Name, Ino: nodeID(e.Inode), Mode: typeBits(e), Off: offsets.at(i)}) {
			break
		}
	}
	return gofuse.OK
}

// fixedEntries are those that no row of the database stands for.
func (fs *FS) fixedEntries(h *handle) []gofuse.DirEntry {
	parent := uint64(rootID)
	if e, ok := fs.tree.Get(h.inode); ok {
		parent = nodeID(e.Parent)
	}
	list := []gofuse.DirEntry{
		{Name: ".", Ino: h.id, Mode: syscall.S_IFDIR},
		{Name: "..", Ino: parent, Mode: syscall.S_IFDIR},
	}
	if h.id != rootID {
		return list
	}
	for id := uint64(itemIDs); id < itemIDs+uint64(len(fs.byID)); id++ {
		if item := fs.byID[id]; item.link != nil {
			list = append(list, gofuse.DirEntry{Name: item.link.Name, Ino: id, Mode: syscall.S_IFLNK})
		} else {
			list = append(list, gofuse.DirEntry{Name: item.special.Name, Ino: id, Mode: syscall.S_IFREG})
		}
	}
	return list
}

func typeBits(e *memdb.Entry) uint32 {
	if e.IsDir() {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

// ReleaseDir ends a directory handle.
func (fs *FS) ReleaseDir(in *gofuse.ReleaseIn) {
	if h := fs.handle(in.Fh); h != nil {
		fs.listings.close(h.id, h.changes)
	}
	fs.dropHandle(in.Fh)
	fs.turns.take(pauseAtRelease)
}

// Mkdir makes a directory; in priv/lock it takes a lock.
func (fs *FS) Mkdir(cancel <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	return fs.make(cancel, memdb.OpMkdir, &in.InHeader, name, out)
}

func (fs *FS) make(cancel <-chan struct{}, kind memdb.Kind, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	dir := in.NodeId
	if !fs.mayIn(in, dir, mayChange) {
		return statusEACCES
	}
	if fs.reserved(dir, name) != nil {
		return statusEACCES
	}
	path, st := fs.childPath(dir, name)
	if !st.Ok() {
		return st
	}
	change, err := fs.do(cancel, &memdb.Op{Kind: kind, Path: path})
	if err != nil {
		return status(err)
	}
	fs.madeOut(memdb.Info{Entry: change.New, Private: memdb.IsPrivate(path)}, dir, name, out)
	return gofuse.OK
}

// Unlink and Rmdir are the same delete; which of them may be called on what the
// kernel has checked.
func (fs *FS) Unlink(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.remove(cancel, in, name)
}

// Rmdir deletes an empty directory.
func (fs *FS) Rmdir(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.remove(cancel, in, name)
}

func (fs *FS) remove(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	defer fs.turns.take(pauseAtLatest)
	dir := in.NodeId
	if !fs.mayIn(in, dir, mayChange) {
		return statusEACCES
	}
	if fs.reserved(dir, name) != nil {
		return statusEACCES
	}
	path, st := fs.childPath(dir, name)
	if !st.Ok() {
		return st
	}
	_, err := fs.do(cancel, &memdb.Op{Kind: memdb.OpDelete, Path: path})
	return status(err)
}

// renameNoReplace is RENAME_NOREPLACE of renameat2(2).
const renameNoReplace = 1

// Rename moves an entry, over an existing file or empty directory if need be.
func (fs *FS) Rename(cancel <-chan struct{}, in *gofuse.RenameIn, oldName, newName string) gofuse.Status {
	if !fs.mayIn(&in.InHeader, in.NodeId, mayChange) || !fs.mayIn(&in.InHeader, in.Newdir, mayChange) {
		return statusEACCES
	}
	if in.NodeId != in.Newdir {
		// A directory's ".." changes.
		if e, ok := fs.tree.Child(inodeOf(in.NodeId), oldName); ok && e.IsDir() && !fs.may(&in.InHeader, fs.mode(e), mayWrite) {
			return statusEACCES
		}
	}
	if in.Flags&^renameNoReplace != 0 {
		return gofuse.EINVAL
	}
	if fs.reserved(in.NodeId, oldName) != nil || fs.reserved(in.Newdir, newName) != nil {
		return statusEACCES
	}
	from, st := fs.childPath(in.NodeId, oldName)
	if !st.Ok() {
		return st
	}
	to, st := fs.childPath(in.Newdir, newName)
	if !st.Ok() {
		return st
	}
	if in.Flags&renameNoReplace != 0 {
		if _, ok := fs.tree.Lookup(to); ok {
			return statusEEXIST
		}
	}
	change, err := fs.do(cancel, &memdb.Op{Kind: memdb.OpRename, Path: from, To: to})
	if err != nil {
		return status(err)
	}
	fs.known.takeAbsent(in.Newdir, newName) // the name has moved there in the kernel, too
	fs.contentKept(change)
	if memdb.IsPrivate(from) != memdb.IsPrivate(to) || memdb.IsScript(oldName) != memdb.IsScript(newName) {
		fs.notify.attributes(nodeID(change.Inode)) // the mode is another one here
	}
	if change.New.IsDir() {
		fs.renamed(change.Inode)
	}
	if fs.guarded(inodeOf(in.Newdir)) {
		fs.notify.name(in.Newdir, newName) // the kernel may have found it where everybody could
	}
	return gofuse.OK
}

// Symlink is not supported: the only links are those that the daemon makes.
func (fs *FS) Symlink(_ <-chan struct{}, in *gofuse.InHeader, _, _ string, _ *gofuse.EntryOut) gofuse.Status {
	if !fs.mayIn(in, in.NodeId, mayChange) {
		return statusEACCES
	}
	return statusEPERM
}
