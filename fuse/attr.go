package fuse

import (
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
)

// mode returns type and permission bits of an entry.
func (fs *FS) mode(e memdb.Info) uint32 {
	quorate := fs.store.Quorate()
	var mode uint32
	if e.IsDir() {
		mode = 0o777
		if !quorate && e.Inode != memdb.RootInode {
			mode = 0o555
		}
		mode &= 0o755
	} else {
		mode = 0o666
		if !quorate {
			mode = 0o444
		}
		if memdb.IsScript(e.Name) {
			mode |= 0o100
		}
		mode &= 0o750
	}
	if e.Private {
		mode &= 0o700
	}
	if e.IsDir() {
		return syscall.S_IFDIR | mode
	}
	return syscall.S_IFREG | mode
}

func (fs *FS) entryAttr(e memdb.Info, out *gofuse.Attr) {
	out.Ino = nodeID(e.Inode)
	out.Mode = fs.mode(e)
	out.Nlink = 1
	out.Size = uint64(e.Size())
	time := uint64(e.MTime)
	if inode, ok := fs.twins.shownAs(e.Inode, fs.tree); ok {
		out.Ino, out.Nlink = nodeID(inode), 2
	}
	if e.IsDir() {
		out.Nlink = 2
		if e.Inode == memdb.RootInode {
			time = 0
		}
	}
	fs.commonAttr(time, out)
}

func (fs *FS) commonAttr(time uint64, out *gofuse.Attr) {
	out.Blocks = (out.Size + 4095) / 4096
	out.Blksize = 4096
	out.Atime, out.Mtime, out.Ctime = time, time, time
	out.Uid, out.Gid = fs.uid, fs.gid
}

func (fs *FS) rootItemAttr(item *rootItem, out *gofuse.Attr) {
	out.Ino = item.id
	out.Nlink = 1
	out.Mode = fs.itemMode(item)
	if item.link != nil {
		out.Size = uint64(len(item.link.Target))
	} else {
		out.Size = uint64(len(item.special.Read()))
	}
	fs.commonAttr(0, out)
}

func (fs *FS) itemMode(item *rootItem) uint32 {
	switch {
	case item.link == nil:
		return syscall.S_IFREG | item.special.Mode&0o750
	case fs.store.Quorate():
		return syscall.S_IFLNK | 0o777&0o755
	}
	return syscall.S_IFLNK | 0o555
}

// entryOut answers a look-up that found e, or the making of e. If others change
// e, the kernel may not keep the attributes that come with the name: until it has
// read this answer it may not know the inode, and what it is told meanwhile of a
// change would be lost. It asks for them, and from then on keeps them: of an inode
// that it knows it drops an answer that a notification has overtaken.
func (fs *FS) entryOut(e memdb.Info, out *gofuse.EntryOut) {
	out.NodeId = nodeID(e.Inode)
	out.Generation = fs.generation.Load()
	if !fs.guarded(e.Parent) {
		out.SetEntryTimeout(cacheTime)
	}
	if !fs.shared {
		out.SetAttrTimeout(fs.attrTime(e.Inode))
	}
	fs.entryAttr(e, &out.Attr)
}

// madeOut answers the making of e, which someone else may have changed since.
func (fs *FS) madeOut(e memdb.Info, dir uint64, name string, out *gofuse.EntryOut) {
	fs.known.takeAbsent(dir, name)
	fs.known.add(nodeID(e.Inode))
	fs.entryOut(e, out)
	if now, ok := fs.tree.Child(inodeOf(dir), name); !ok || now.Entry != e.Entry {
		out.SetEntryTimeout(0)
		out.SetAttrTimeout(0)
	}
}

// Lookup finds a name in a directory. An absence may be cached, too.
func (fs *FS) Lookup(_ <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	fs.turns.take(pauseAtLatest)
	if !fs.mayIn(in, in.NodeId, mayExec) {
		return statusEACCES
	}
	if item := fs.reserved(in.NodeId, name); item != nil {
		out.NodeId = item.id
		out.SetEntryTimeout(cacheTime)
		if item.link != nil {
			out.SetAttrTimeout(cacheTime)
		}
		fs.known.add(item.id)
		fs.rootItemAttr(item, &out.Attr)
		return gofuse.OK
	}
	dir := inodeOf(in.NodeId)
	e, ok := fs.tree.Child(dir, name)
	for {
		switch {
		case !ok && len(name) > memdb.MaxNameLen:
			return statusENAMETOOLONG
		case !ok:
			noted := fs.known.addAbsent(in.NodeId, name)
			if e, ok = fs.tree.Child(dir, name); ok {
				fs.known.takeAbsent(in.NodeId, name)
				continue
			}
			if _, there := fs.tree.Get(dir); !there {
				fs.known.takeAbsent(in.NodeId, name)
				return statusESTALE
			}
			if noted && !fs.guarded(dir) {
				out.SetEntryTimeout(cacheTime)
			}
			out.NodeId = 0
			return gofuse.OK
		}
		id := nodeID(e.Inode)
		fs.known.add(id)
		now, there := fs.tree.Child(dir, name)
		if there && now.Entry == e.Entry {
			fs.entryOut(e, out)
			return gofuse.OK
		}
		fs.known.forget(id, 1)
		e, ok = now, there
	}
}

// GetAttr answers a stat.
func (fs *FS) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	fs.turns.take(pauseAtLatest)
	if item := fs.byID[in.NodeId]; item != nil {
		if item.link != nil {
			out.SetTimeout(cacheTime)
		}
		fs.rootItemAttr(item, &out.Attr)
		if h := fs.handle(in.Fh()); h != nil && h.item == item {
			out.Attr.Size = uint64(len(h.content))
		}
		return gofuse.OK
	}
	e, ok := fs.tree.Get(inodeOf(in.NodeId))
	if !ok {
		return fs.orphanAttr(in.NodeId, out)
	}
	out.SetTimeout(fs.attrTime(e.Inode))
	fs.entryAttr(e, &out.Attr)
	if in.Flags()&gofuse.FUSE_GETATTR_FH != 0 {
		if h := fs.handle(in.Fh()); h != nil && h.truncatePending() {
			// The opener with O_TRUNC sees the file as it will be.
			out.Attr.Size, out.Attr.Blocks = 0, 0
			out.SetTimeout(0)
		}
	}
	return gofuse.OK
}

// Readlink returns a link's target.
func (fs *FS) Readlink(_ <-chan struct{}, in *gofuse.InHeader) ([]byte, gofuse.Status) {
	if item := fs.byID[in.NodeId]; item != nil && item.link != nil {
		return []byte(item.link.Target), gofuse.OK
	}
	return nil, gofuse.EINVAL
}

// SetAttr changes a size or a time; mode and owner can only be set to what they
// are. (With Config.IgnoreChmod they may be asked to be anything, and stay.)
func (fs *FS) SetAttr(cancel <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	return fs.setAttr(cancel, in, out, nil)
}

func (fs *FS) setAttr(cancel <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut, r *running) gofuse.Status {
	get := gofuse.GetAttrIn{InHeader: in.InHeader}
	if st := fs.GetAttr(cancel, &get, out); !st.Ok() {
		return st
	}
	if st := fs.maySetAttr(in, out.Attr.Mode); !st.Ok() {
		return st
	}
	if !fs.ignoreChmod && !fs.chmodAccepted(in, out.Attr.Mode) {
		return statusEPERM
	}
	if item := fs.byID[in.NodeId]; item != nil {
		return fs.setItemAttr(item, in)
	}
	if size, ok := in.GetSize(); ok {
		r.waits()
		if st := fs.setSize(cancel, in, size); !st.Ok() {
			return st
		}
		get.Flags_, get.Fh_ = gofuse.FUSE_GETATTR_FH, in.Fh
		if in.Valid&gofuse.FATTR_FH == 0 {
			get.Flags_ = 0
		}
	} else if in.Valid&gofuse.FATTR_MTIME != 0 {
		// (A truncation sets the time by itself.)
		r.waits()
		if st := fs.setMTime(cancel, in); !st.Ok() {
			return st
		}
	}
	before := *out
	*out = gofuse.AttrOut{}
	if st := fs.GetAttr(cancel, &get, out); st != statusESTALE {
		if fs.shared { // this kind of answer the kernel keeps whatever it was told meanwhile
			out.SetTimeout(0)
		}
		return st
	}
	*out = before // a lock that this call has broken
	out.SetTimeout(0)
	return gofuse.OK
}

// chmodAccepted reports whether a mode and an owner, if they are to be set, are what
// a file that shows mode has.
func (fs *FS) chmodAccepted(in *gofuse.SetAttrIn, shown uint32) bool {
	if mode, ok := in.GetMode(); ok && mode&0o7777 != chmodMode(shown) {
		return false
	}
	if uid, ok := in.GetUID(); ok && uid != fs.uid {
		return false
	}
	if gid, ok := in.GetGID(); ok && gid != fs.gid {
		return false
	}
	return true
}

// chmodMode is the mode that chmod accepts for a file that shows mode: 0600 at
// private places, 0640 elsewhere, of directories too.
func chmodMode(mode uint32) uint32 {
	if mode&0o077 == 0 {
		return 0o600
	}
	return 0o640
}

func (fs *FS) setItemAttr(item *rootItem, in *gofuse.SetAttrIn) gofuse.Status {
	size, ok := in.GetSize()
	switch {
	case in.Valid&(gofuse.FATTR_SIZE|gofuse.FATTR_MTIME) == 0, mtimeAlone(in), !ok && fs.ignoreChmod:
		return gofuse.OK
	case ok && size == 0 && item.special != nil && item.special.Write != nil:
		return gofuse.OK // a shell's ">"
	}
	return statusEACCES
}

// mtimeAlone reports whether no other attribute is to be set, as tar does to a directory
// that it has unpacked. That must not fail for an item without a time of its own.
func mtimeAlone(in *gofuse.SetAttrIn) bool {
	const others = gofuse.FATTR_ATIME | gofuse.FATTR_SIZE | gofuse.FATTR_MODE | gofuse.FATTR_UID | gofuse.FATTR_GID
	return in.Valid&gofuse.FATTR_MTIME != 0 && in.Valid&others == 0
}

func (fs *FS) setMTime(cancel <-chan struct{}, in *gofuse.SetAttrIn) gofuse.Status {
	path, ok := fs.tree.Path(inodeOf(in.NodeId))
	if !ok {
		return gofuse.OK // deleted, but still open: nobody will see its time
	}
	if in.NodeId == rootID {
		if mtimeAlone(in) || fs.ignoreChmod {
			return gofuse.OK // the root shows none
		}
		return statusEACCES
	}
	op := &memdb.Op{Kind: memdb.OpMTime, Path: path}
	if mtime, ok := in.GetMTime(); ok {
		if sec := mtime.Unix(); sec < 0 || sec > 1<<32-1 {
			return gofuse.EINVAL
		}
		op.MTime = uint32(mtime.Unix())
	}
	change, err := fs.do(cancel, op)
	if err == nil {
		fs.contentKept(change)
	}
	return status(err)
}
