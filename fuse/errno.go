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

const (
	statusEPERM    = gofuse.Status(syscall.EPERM)
	statusEACCES   = gofuse.Status(syscall.EACCES)
	statusEEXIST   = gofuse.Status(syscall.EEXIST)
	statusEFBIG    = gofuse.Status(syscall.EFBIG)
	statusEISDIR   = gofuse.Status(syscall.EISDIR)
	statusEBADF    = gofuse.Status(syscall.EBADF)
	statusENOTSUPP = gofuse.Status(syscall.EOPNOTSUPP)
)
