package fuse

import (
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// Operation is a kind of request of the kernel's.
type Operation uint8

// The operations that are counted. What else there is answers at once.
const (
	OpLookup Operation = iota
	OpGetAttr
	OpSetAttr
	OpReadlink
	OpMknod
	OpMkdir
	OpUnlink
	OpRmdir
	OpRename
	OpCreate
	OpOpen
	OpRead
	OpWrite
	OpFlush
	OpFsync
	OpRelease
	OpOpenDir
	OpReadDir
	OpReleaseDir
	OpFsyncDir
	OpStatFs
	OpSymlink
	OpLink
	OpFallocate
	Operations = iota // how many there are
)

const operationNames = "lookup getattr setattr readlink mknod mkdir unlink rmdir rename create open read write " +
	"flush fsync release opendir readdir releasedir fsyncdir statfs symlink link fallocate"

// String returns the operation's name, as FUSE has it.
func (o Operation) String() string { return strings.Fields(operationNames)[o] }

// quick tells whether requests of this kind are answered from memory, and wait for
// nobody. They are the many.
func (o Operation) quick() bool {
	switch o {
	case OpLookup, OpGetAttr, OpReadlink, OpOpen, OpRead, OpRelease, OpOpenDir, OpReadDir, OpReleaseDir, OpStatFs,
		OpSymlink, OpLink, OpFallocate:
		return true
	}
	return false
}

// Observer is told of what fails. Its methods are called from many goroutines, and must be quick.
type Observer interface {
	// Failed tells of a request that was answered with an error.
	Failed(op Operation, errno syscall.Errno)
	// ChangeFailed tells of a change that was asked for and not made, or not stored, and whether
	// there was quorum then.
	ChangeFailed(err error, quorate bool)
}

// observed is a file system whose requests are counted, and timed.
type observed struct{ *FS }

func (o *observed) Lookup(cancel <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.begin(OpLookup)
	st := o.FS.Lookup(cancel, in, name, out)
	o.inFlight.end(OpLookup, r, st)
	return st
}

func (o *observed) GetAttr(cancel <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	r := o.inFlight.begin(OpGetAttr)
	st := o.FS.GetAttr(cancel, in, out)
	o.inFlight.end(OpGetAttr, r, st)
	return st
}

func (o *observed) SetAttr(cancel <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	r := o.inFlight.begin(OpSetAttr)
	st := o.FS.SetAttr(cancel, in, out)
	o.inFlight.end(OpSetAttr, r, st)
	return st
}

func (o *observed) Readlink(cancel <-chan struct{}, in *gofuse.InHeader) ([]byte, gofuse.Status) {
	r := o.inFlight.begin(OpReadlink)
	b, st := o.FS.Readlink(cancel, in)
	o.inFlight.end(OpReadlink, r, st)
	return b, st
}

func (o *observed) Mknod(cancel <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.begin(OpMknod)
	st := o.FS.Mknod(cancel, in, name, out)
	o.inFlight.end(OpMknod, r, st)
	return st
}

func (o *observed) Mkdir(cancel <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.begin(OpMkdir)
	st := o.FS.Mkdir(cancel, in, name, out)
	o.inFlight.end(OpMkdir, r, st)
	return st
}

func (o *observed) Unlink(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	r := o.inFlight.begin(OpUnlink)
	st := o.FS.Unlink(cancel, in, name)
	o.inFlight.end(OpUnlink, r, st)
	return st
}

func (o *observed) Rmdir(cancel <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	r := o.inFlight.begin(OpRmdir)
	st := o.FS.Rmdir(cancel, in, name)
	o.inFlight.end(OpRmdir, r, st)
	return st
}

func (o *observed) Rename(cancel <-chan struct{}, in *gofuse.RenameIn, from, to string) gofuse.Status {
	r := o.inFlight.begin(OpRename)
	st := o.FS.Rename(cancel, in, from, to)
	o.inFlight.end(OpRename, r, st)
	return st
}

func (o *observed) Create(cancel <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	r := o.inFlight.begin(OpCreate)
	st := o.FS.Create(cancel, in, name, out)
	o.inFlight.end(OpCreate, r, st)
	return st
}

func (o *observed) Open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	r := o.inFlight.begin(OpOpen)
	st := o.FS.Open(cancel, in, out)
	o.inFlight.end(OpOpen, r, st)
	return st
}

func (o *observed) Read(cancel <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	r := o.inFlight.begin(OpRead)
	res, st := o.FS.Read(cancel, in, buf)
	o.inFlight.end(OpRead, r, st)
	return res, st
}

func (o *observed) Write(cancel <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	r := o.inFlight.begin(OpWrite)
	n, st := o.FS.Write(cancel, in, data)
	o.inFlight.end(OpWrite, r, st)
	return n, st
}

func (o *observed) Flush(cancel <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	r := o.inFlight.begin(OpFlush)
	st := o.FS.Flush(cancel, in)
	o.inFlight.end(OpFlush, r, st)
	return st
}

func (o *observed) Fsync(cancel <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	r := o.inFlight.begin(OpFsync)
	st := o.FS.Fsync(cancel, in)
	o.inFlight.end(OpFsync, r, st)
	return st
}

func (o *observed) Release(cancel <-chan struct{}, in *gofuse.ReleaseIn) {
	r := o.inFlight.begin(OpRelease)
	o.FS.Release(cancel, in)
	o.inFlight.end(OpRelease, r, gofuse.OK)
}

func (o *observed) OpenDir(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	r := o.inFlight.begin(OpOpenDir)
	st := o.FS.OpenDir(cancel, in, out)
	o.inFlight.end(OpOpenDir, r, st)
	return st
}

func (o *observed) ReadDir(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	r := o.inFlight.begin(OpReadDir)
	st := o.FS.ReadDir(cancel, in, out)
	o.inFlight.end(OpReadDir, r, st)
	return st
}

func (o *observed) ReleaseDir(in *gofuse.ReleaseIn) {
	r := o.inFlight.begin(OpReleaseDir)
	o.FS.ReleaseDir(in)
	o.inFlight.end(OpReleaseDir, r, gofuse.OK)
}

func (o *observed) FsyncDir(cancel <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	r := o.inFlight.begin(OpFsyncDir)
	st := o.FS.FsyncDir(cancel, in)
	o.inFlight.end(OpFsyncDir, r, st)
	return st
}

func (o *observed) StatFs(cancel <-chan struct{}, in *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	r := o.inFlight.begin(OpStatFs)
	st := o.FS.StatFs(cancel, in, out)
	o.inFlight.end(OpStatFs, r, st)
	return st
}

func (o *observed) Symlink(cancel <-chan struct{}, in *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.begin(OpSymlink)
	st := o.FS.Symlink(cancel, in, target, name, out)
	o.inFlight.end(OpSymlink, r, st)
	return st
}

func (o *observed) Link(cancel <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	r := o.inFlight.begin(OpLink)
	st := o.FS.Link(cancel, in, name, out)
	o.inFlight.end(OpLink, r, st)
	return st
}

func (o *observed) Fallocate(cancel <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	r := o.inFlight.begin(OpFallocate)
	st := o.FS.Fallocate(cancel, in)
	o.inFlight.end(OpFallocate, r, st)
	return st
}
