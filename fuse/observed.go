package fuse

import (
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// Operation is a kind of request of the kernel's.
type Operation uint8

// The operations that are counted, the most frequent ones first. What else there is answers at once.
const (
	OpLookup Operation = iota
	OpGetAttr
	OpSetAttr
	OpOpen
	OpRead
	OpWrite
	OpFlush
	OpRelease
	OpCreate
	OpUnlink
	OpMkdir
	OpRmdir
	OpRename
	OpMknod
	OpFsync
	OpOpenDir
	OpReadDir
	OpReleaseDir
	OpFsyncDir
	OpReadlink
	OpStatFs
	OpSymlink
	OpLink
	OpFallocate
	OpAccess
	Operations = iota // how many there are
)

const operationNames = "lookup getattr setattr open read write flush release create unlink mkdir rmdir rename mknod " +
	"fsync opendir readdir releasedir fsyncdir readlink statfs symlink link fallocate access"

// String returns the operation's name, as FUSE has it.
func (o Operation) String() string { return strings.Fields(operationNames)[o] }

// Observer is told of what fails. Its methods are called from many goroutines, and must be quick.
type Observer interface {
	// Failed tells of a request that was answered with an error.
	Failed(op Operation, errno syscall.Errno)
	// ChangeFailed tells of a change that was asked for and not made, or not stored, and whether
	// there was quorum then.
	ChangeFailed(err error, quorate bool)
}

// observed is a file system whose requests are counted, and timed: those that wait for a transaction or for
// the group each, of the many that are answered from memory some.
type observed struct{ *FS }

func (o *observed) Lookup(cancel <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.count(OpLookup)
	st := o.FS.Lookup(cancel, in, name, out)
	r.end(OpLookup, st)
	return st
}

func (o *observed) GetAttr(cancel <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	r := o.inFlight.count(OpGetAttr)
	st := o.FS.GetAttr(cancel, in, out)
	r.end(OpGetAttr, st)
	return st
}

func (o *observed) SetAttr(cancel <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	r := o.inFlight.count(OpSetAttr)
	st := o.FS.setAttr(cancel, in, out, &r)
	r.end(OpSetAttr, st)
	return st
}

func (o *observed) Readlink(cancel <-chan struct{}, in *gofuse.InHeader) ([]byte, gofuse.Status) {
	r := o.inFlight.count(OpReadlink)
	b, st := o.FS.Readlink(cancel, in)
	r.end(OpReadlink, st)
	return b, st
}

func (o *observed) Mknod(cancel <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.time(OpMknod)
	st := o.FS.Mknod(cancel, in, name, out)
	r.end(OpMknod, st)
	return st
}

func (o *observed) Mkdir(cancel <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.time(OpMkdir)
	st := o.FS.Mkdir(cancel, in, name, out)
	r.end(OpMkdir, st)
	return st
}

func (o *observed) Unlink(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	r := o.inFlight.time(OpUnlink)
	st := o.FS.Unlink(cancel, in, name)
	r.end(OpUnlink, st)
	return st
}

func (o *observed) Rmdir(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	r := o.inFlight.time(OpRmdir)
	st := o.FS.Rmdir(cancel, in, name)
	r.end(OpRmdir, st)
	return st
}

func (o *observed) Rename(cancel <-chan struct{}, in *gofuse.RenameIn, from, to string) gofuse.Status {
	r := o.inFlight.time(OpRename)
	st := o.FS.Rename(cancel, in, from, to)
	r.end(OpRename, st)
	return st
}

func (o *observed) Create(cancel <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	r := o.inFlight.time(OpCreate)
	st := o.FS.Create(cancel, in, name, out)
	r.end(OpCreate, st)
	return st
}

func (o *observed) Open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	r := o.inFlight.count(OpOpen)
	st := o.FS.open(cancel, in, out, &r)
	r.end(OpOpen, st)
	return st
}

func (o *observed) Read(cancel <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	r := o.inFlight.count(OpRead)
	res, st := o.FS.Read(cancel, in, buf)
	r.end(OpRead, st)
	return res, st
}

func (o *observed) Writev(cancel <-chan struct{}, in *gofuse.WriteIn, data [][]byte) (uint32, gofuse.Status) {
	r := o.inFlight.count(OpWrite)
	if o.shared {
		r.waits() // for the group to have it back
	}
	n, st := o.FS.write(cancel, in, joined(data), &r)
	r.end(OpWrite, st)
	return n, st
}

func (o *observed) Flush(cancel <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	r := o.inFlight.count(OpFlush)
	st := o.FS.flush(cancel, in, &r)
	r.end(OpFlush, st)
	return st
}

func (o *observed) Fsync(cancel <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	r := o.inFlight.time(OpFsync)
	st := o.FS.Fsync(cancel, in)
	r.end(OpFsync, st)
	return st
}

func (o *observed) Release(cancel <-chan struct{}, in *gofuse.ReleaseIn) {
	r := o.inFlight.count(OpRelease)
	o.FS.Release(cancel, in)
	r.end(OpRelease, gofuse.OK)
}

func (o *observed) OpenDir(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	r := o.inFlight.count(OpOpenDir)
	st := o.FS.OpenDir(cancel, in, out)
	r.end(OpOpenDir, st)
	return st
}

func (o *observed) ReadDir(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	r := o.inFlight.count(OpReadDir)
	st := o.FS.ReadDir(cancel, in, out)
	r.end(OpReadDir, st)
	return st
}

func (o *observed) ReleaseDir(in *gofuse.ReleaseIn) {
	r := o.inFlight.count(OpReleaseDir)
	o.FS.ReleaseDir(in)
	r.end(OpReleaseDir, gofuse.OK)
}

func (o *observed) FsyncDir(cancel <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	r := o.inFlight.time(OpFsyncDir)
	st := o.FS.FsyncDir(cancel, in)
	r.end(OpFsyncDir, st)
	return st
}

func (o *observed) StatFs(cancel <-chan struct{}, in *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	r := o.inFlight.count(OpStatFs)
	st := o.FS.StatFs(cancel, in, out)
	r.end(OpStatFs, st)
	return st
}

func (o *observed) Symlink(cancel <-chan struct{}, in *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.count(OpSymlink)
	st := o.FS.Symlink(cancel, in, target, name, out)
	r.end(OpSymlink, st)
	return st
}

func (o *observed) Link(cancel <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.count(OpLink)
	st := o.FS.Link(cancel, in, name, out)
	r.end(OpLink, st)
	return st
}

func (o *observed) Fallocate(cancel <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	r := o.inFlight.count(OpFallocate)
	st := o.FS.Fallocate(cancel, in)
	r.end(OpFallocate, st)
	return st
}

func (o *observed) Access(cancel <-chan struct{}, in *gofuse.AccessIn) gofuse.Status {
	r := o.inFlight.count(OpAccess)
	st := o.FS.Access(cancel, in)
	r.end(OpAccess, st)
	return st
}
