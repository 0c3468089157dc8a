package fuse

import (
	"errors"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// status is the one place that turns errors into what the kernel is told. An
// error without an errno is EIO.
func status(err error) gofuse.Status {
	if err == nil {
		return gofuse.OK
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != 0 {
		return gofuse.Status(errno)
	}
	return gofuse.EIO
}

// refused reports whether an error is the answer to what was asked, and says nothing
// about how this node is: no quorum, no such file any more, an interrupt.
func refused(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINTR)
}

const (
	statusEPERM        = gofuse.Status(syscall.EPERM)
	statusEACCES       = gofuse.Status(syscall.EACCES)
	statusEEXIST       = gofuse.Status(syscall.EEXIST)
	statusEFBIG        = gofuse.Status(syscall.EFBIG)
	statusEISDIR       = gofuse.Status(syscall.EISDIR)
	statusEBADF        = gofuse.Status(syscall.EBADF)
	statusENAMETOOLONG = gofuse.Status(syscall.ENAMETOOLONG)
	statusENOTSUPP     = gofuse.Status(syscall.EOPNOTSUPP)
)

// statusESTALE answers a request about an entry that is gone: another node, or a rename
// over it, replaced it after the kernel had looked its path up. The kernel then walks the
// path once more, asking for each name, and finds what is there now; with ENOENT a program
// would miss a file that exists all the time.
const statusESTALE = gofuse.Status(syscall.ESTALE)
