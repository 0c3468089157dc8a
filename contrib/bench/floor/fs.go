package floor

import (
	"cmp"
	"slices"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// memFS is a file system in memory. One lock guards all of it.
type memFS struct {
	gofuse.RawFileSystem

	mu     sync.RWMutex
	inodes map[uint64]*inode
	last   uint64                // inode number
	dirs   map[uint64][]dirEntry // listings of the directories that are open
	lastFh uint64
}

type inode struct {
	id     uint64
	parent uint64 // of a directory
	mode   uint32
	mtime  uint64
	data   []byte
	kids   map[string]*inode // nil means a file
	known  uint64            // how often the kernel has looked it up and not forgotten it
	gone   bool              // it has no name any more
}

type dirEntry struct {
	name string
	id   uint64
	mode uint32
}

// cacheTime and the flags at open are the daemon's.
const cacheTime = time.Hour

func newFS(version []byte) *memFS {
	fs := &memFS{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		inodes:        make(map[uint64]*inode),
		dirs:          make(map[uint64][]dirEntry),
	}
	root := fs.add(nil, "", syscall.S_IFDIR|0o755)
	fs.add(root, ".version", syscall.S_IFREG|0o640).data = version
	return fs
}

// add makes an inode; the first one is the root. The lock is held.
func (fs *memFS) add(dir *inode, name string, mode uint32) *inode {
	fs.last++
	n := &inode{id: fs.last, mode: mode, mtime: uint64(time.Now().Unix())}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.kids = make(map[string]*inode)
	}
	if dir != nil {
		dir.kids[name] = n
		n.parent = dir.id
	}
	fs.inodes[n.id] = n
	return n
}

func (n *inode) attr(out *gofuse.Attr) {
	out.Ino = n.id
	out.Mode = n.mode
	out.Nlink = 1
	if n.kids != nil {
		out.Nlink = 2
	}
	out.Size = uint64(len(n.data))
	out.Blocks = (out.Size + 4095) / 4096
	out.Blksize = 4096
	out.Atime, out.Mtime, out.Ctime = n.mtime, n.mtime, n.mtime
}

// entryOut answers with n, which the kernel knows from now on. The lock is held
// for writing.
func (n *inode) entryOut(out *gofuse.EntryOut) {
	n.known++
	out.NodeId = n.id
	out.SetEntryTimeout(cacheTime)
	out.SetAttrTimeout(cacheTime)
	n.attr(&out.Attr)
}

func openOut(flags uint32, out *gofuse.OpenOut) {
	out.OpenFlags = gofuse.FOPEN_KEEP_CACHE
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		out.OpenFlags |= gofuse.FOPEN_NOFLUSH
	}
}

func (fs *memFS) Lookup(_ <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.inodes[in.NodeId].kids[name]
	if n == nil {
		out.SetEntryTimeout(cacheTime)
		return gofuse.OK
	}
	n.entryOut(out)
	return gofuse.OK
}

func (fs *memFS) Forget(id, count uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if n := fs.inodes[id]; n != nil {
		if n.known -= min(count, n.known); n.known == 0 && n.gone {
			delete(fs.inodes, id)
		}
	}
}

func (fs *memFS) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	out.SetTimeout(cacheTime)
	fs.inodes[in.NodeId].attr(&out.Attr)
	return gofuse.OK
}

func (fs *memFS) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.inodes[in.NodeId]
	if size, ok := in.GetSize(); ok {
		n.resize(int(size))
	}
	if mtime, ok := in.GetMTime(); ok {
		n.mtime = uint64(mtime.Unix())
	}
	out.SetTimeout(cacheTime)
	n.attr(&out.Attr)
	return gofuse.OK
}

func (n *inode) resize(size int) {
	if old := len(n.data); size > old {
		n.data = append(n.data, make([]byte, size-old)...)
	}
	n.data = n.data[:size]
}

func (fs *memFS) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	if in.Flags&syscall.O_TRUNC != 0 {
		fs.mu.Lock()
		fs.inodes[in.NodeId].data = nil
		fs.mu.Unlock()
	}
	openOut(in.Flags, out)
	return gofuse.OK
}

func (fs *memFS) Create(_ <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	dir := fs.inodes[in.NodeId]
	if dir.kids[name] != nil {
		return gofuse.Status(syscall.EEXIST)
	}
	fs.add(dir, name, syscall.S_IFREG|0o640).entryOut(&out.EntryOut)
	openOut(in.Flags, &out.OpenOut)
	return gofuse.OK
}

func (fs *memFS) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	data := fs.inodes[in.NodeId].data
	data = data[min(in.Offset, uint64(len(data))):]
	return gofuse.ReadResultData(buf[:copy(buf, data)]), gofuse.OK
}

func (fs *memFS) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.inodes[in.NodeId]
	if off := int(in.Offset); off == len(n.data) {
		n.data = append(n.data, data...)
	} else {
		n.resize(max(len(n.data), off+len(data)))
		copy(n.data[off:], data)
	}
	return uint32(len(data)), gofuse.OK
}

func (fs *memFS) Flush(<-chan struct{}, *gofuse.FlushIn) gofuse.Status { return gofuse.OK }

func (fs *memFS) Release(<-chan struct{}, *gofuse.ReleaseIn) {}

func (fs *memFS) Fsync(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status { return gofuse.OK }

func (fs *memFS) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	dir := fs.inodes[in.NodeId]
	if dir.kids[name] != nil {
		return gofuse.Status(syscall.EEXIST)
	}
	fs.add(dir, name, syscall.S_IFDIR|0o755).entryOut(out)
	return gofuse.OK
}

func (fs *memFS) Unlink(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.remove(in.NodeId, name)
}

func (fs *memFS) Rmdir(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	return fs.remove(in.NodeId, name)
}

func (fs *memFS) remove(dir uint64, name string) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	d := fs.inodes[dir]
	n := d.kids[name]
	switch {
	case n == nil:
		return gofuse.ENOENT
	case len(n.kids) > 0:
		return gofuse.Status(syscall.ENOTEMPTY)
	}
	delete(d.kids, name)
	fs.unnamed(n)
	return gofuse.OK
}

// unnamed drops n as soon as the kernel has forgotten it.
func (fs *memFS) unnamed(n *inode) {
	if n.gone = true; n.known == 0 {
		delete(fs.inodes, n.id)
	}
}

func (fs *memFS) Rename(_ <-chan struct{}, in *gofuse.RenameIn, oldName, newName string) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	from, to := fs.inodes[in.NodeId], fs.inodes[in.Newdir]
	n, target := from.kids[oldName], to.kids[newName]
	switch {
	case in.Flags != 0:
		return gofuse.EINVAL
	case n == nil:
		return gofuse.ENOENT
	case target == n:
		return gofuse.OK
	case target != nil && len(target.kids) > 0:
		return gofuse.Status(syscall.ENOTEMPTY)
	case target != nil:
		fs.unnamed(target)
	}
	delete(from.kids, oldName)
	to.kids[newName] = n
	n.parent = to.id
	return gofuse.OK
}

func (fs *memFS) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.lastFh++
	fs.dirs[fs.lastFh] = nil
	out.Fh = fs.lastFh
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR | gofuse.FOPEN_KEEP_CACHE
	return gofuse.OK
}

func (fs *memFS) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	// A handle's first request may be about the end: the beginning came from the
	// kernel's cache, which then lost a page.
	if in.Offset == 0 || fs.dirs[in.Fh] == nil {
		fs.dirs[in.Fh] = fs.list(fs.inodes[in.NodeId])
	}
	list := fs.dirs[in.Fh]
	for i := in.Offset; i < uint64(len(list)); i++ {
		e := list[i]
		if !out.AddDirEntry(gofuse.DirEntry{Name: e.name, Ino: e.id, Mode: e.mode, Off: i + 1}) {
			break
		}
	}
	return gofuse.OK
}

func (fs *memFS) list(dir *inode) []dirEntry {
	list := make([]dirEntry, 0, len(dir.kids)+2)
	list = append(list, dirEntry{".", dir.id, syscall.S_IFDIR}, dirEntry{"..", max(dir.parent, gofuse.FUSE_ROOT_ID), syscall.S_IFDIR})
	for name, n := range dir.kids {
		list = append(list, dirEntry{name, n.id, n.mode})
	}
	// An order that every handle has alike, for the kernel may go on with one's
	// listing where it has dropped another's.
	slices.SortFunc(list[2:], func(a, b dirEntry) int { return cmp.Compare(a.id, b.id) })
	return list
}

func (fs *memFS) ReleaseDir(in *gofuse.ReleaseIn) {
	fs.mu.Lock()
	delete(fs.dirs, in.Fh)
	fs.mu.Unlock()
}

func (fs *memFS) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	out.Bsize, out.NameLen = 4096, 255
	return gofuse.OK
}
