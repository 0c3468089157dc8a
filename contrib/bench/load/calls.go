package load

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// path is a path as the kernel wants it, made once and used often.
type path struct {
	b []byte
}

func newPath(format string, args ...any) path {
	return path{append(fmt.Appendf(nil, format, args...), 0)}
}

func (p path) String() string { return string(p.b[:len(p.b)-1]) }

func (p path) ptr() uintptr { return uintptr(unsafe.Pointer(&p.b[0])) }

// failure is what a worker panics with when a call fails.
type failure struct{ err error }

func check(call string, p path, errno unix.Errno) {
	if errno != 0 {
		panic(failure{fmt.Errorf("%s %s: %w", call, p, errno)})
	}
}

const atFDCWD = -100

// The calls below go to the kernel without telling the Go scheduler (see
// doc.go). Byte slices and paths live as long as the worker: no garbage
// collection moves or frees them.

func open(p path, flags int) uintptr {
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, at(), p.ptr(), uintptr(flags), 0o640, 0, 0)
	check("open", p, errno)
	return fd
}

func at() uintptr { d := atFDCWD; return uintptr(d) }

func write(fd uintptr, p path, b []byte) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	check("write", p, errno)
	if int(n) != len(b) {
		panic(failure{fmt.Errorf("write %s: %d bytes of %d written", p, n, len(b))})
	}
}

func read(fd uintptr, p path, b []byte) int {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	check("read", p, errno)
	return int(n)
}

func closeFD(fd uintptr, p path) {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	check("close", p, errno)
}

func unlink(p path, flags int) {
	_, _, errno := unix.RawSyscall(unix.SYS_UNLINKAT, at(), p.ptr(), uintptr(flags))
	check("unlink", p, errno)
}

func rename(from, to path) {
	_, _, errno := unix.RawSyscall6(unix.SYS_RENAMEAT, at(), from.ptr(), at(), to.ptr(), 0, 0)
	check("rename", from, errno)
}

func mkdir(p path) {
	_, _, errno := unix.RawSyscall(unix.SYS_MKDIRAT, at(), p.ptr(), 0o750)
	check("mkdir", p, errno)
}

func fstatat(p path, st *unix.Stat_t) {
	_, _, errno := unix.RawSyscall6(unix.SYS_NEWFSTATAT, at(), p.ptr(), uintptr(unsafe.Pointer(st)), 0, 0, 0)
	check("stat", p, errno)
}

func statx(p path, flags int, st *unix.Statx_t) {
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, at(), p.ptr(), uintptr(flags), unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
	check("statx", p, errno)
}

// getdents reads the whole of a directory and returns the bytes of it.
func getdents(fd uintptr, p path, b []byte) (total int) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_GETDENTS64, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		check("getdents", p, errno)
		if n == 0 {
			return total
		}
		total += int(n)
	}
}
