package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kinds are the FUSE requests that are counted by name, by their numbers in the protocol.
var kinds = map[string]int{
	"lookup": 1, "getattr": 3, "setattr": 4, "readlink": 5, "mkdir": 9, "unlink": 10, "rmdir": 11, "rename": 12,
	"open": 14, "read": 15, "write": 16, "statfs": 17, "release": 18, "fsync": 20, "getxattr": 22, "flush": 25,
	"opendir": 27, "readdir": 28, "releasedir": 29, "access": 34, "create": 35, "interrupt": 36, "rename2": 45,
}

const (
	everyKind = "all"
	otherKind = "other"
)

// Requests counts FUSE requests by kind.
type Requests map[string]int64

// Sub returns what was counted between o and r.
func (r Requests) Sub(o Requests) Requests {
	d := make(Requests)
	for kind, n := range r {
		if n -= o[kind]; n != 0 {
			d[kind] = n
		}
	}
	return d
}

// Add adds o to r.
func (r Requests) Add(o Requests) {
	for kind, n := range o {
		r[kind] += n
	}
}

// RequestCounter counts the requests that the kernel sends to the server of one mount, whoever
// that is: by the kernel's tracepoint, which Linux has from 6.10 on. FORGET is not among them.
type RequestCounter struct {
	events map[string][]*os.File // by kind, one for each processor
}

// CountRequests begins to count the requests to the mount on dir. The caller owes a Close.
func CountRequests(dir string) (c *RequestCounter, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("counting the requests to %s: %w", dir, err)
			c.Close()
			c = nil
		}
	}()
	c = &RequestCounter{events: make(map[string][]*os.File)}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return c, err
	}
	id, err := tracepoint("fuse/fuse_request_send")
	if err != nil {
		return c, err
	}
	connection := fmt.Sprintf("connection == %d", st.Dev)
	if err := c.open(everyKind, id, connection); err != nil {
		return c, err
	}
	for kind, opcode := range kinds {
		if err := c.open(kind, id, fmt.Sprintf("%s && opcode == %d", connection, opcode)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// open opens the counters of one kind.
func (c *RequestCounter) open(kind string, id uint64, filter string) error {
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}
	attr.Size = uint32(unsafe.Sizeof(*attr))
	text, err := unix.BytePtrFromString(filter)
	if err != nil {
		return err
	}
	for cpu := range runtime.NumCPU() {
		fd, err := unix.PerfEventOpen(attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("perf_event_open: %w", err)
		}
		c.events[kind] = append(c.events[kind], os.NewFile(uintptr(fd), kind))
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_FILTER, uintptr(unsafe.Pointer(text))); errno != 0 {
			return fmt.Errorf("filter %q: %w", filter, errno)
		}
	}
	return nil
}

// Read returns what has been counted so far.
func (c *RequestCounter) Read() (Requests, error) {
	r := make(Requests)
	rest := int64(0)
	for kind, files := range c.events {
		for _, f := range files {
			var b [8]byte
			if _, err := f.Read(b[:]); err != nil {
				return nil, err
			}
			n := int64(binary.NativeEndian.Uint64(b[:]))
			if kind == everyKind {
				rest += n
				continue
			}
			r[kind] += n
			rest -= n
		}
	}
	r[otherKind] = rest
	return r, nil
}

// Close ends the counting.
func (c *RequestCounter) Close() {
	for _, files := range c.events {
		for _, f := range files {
			f.Close()
		}
	}
}

// tracepoint returns the number of a tracepoint of the kernel's.
func tracepoint(name string) (uint64, error) {
	dir, err := traceFS()
	if err != nil {
		return 0, fmt.Errorf("tracefs: %w", err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, "events/"+name+"/id", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("tracepoint %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// traceFS returns a tracefs that is mounted nowhere.
func traceFS() (int, error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

// Uncountable reports whether an error of CountRequests means that this kernel has no means to
// count them.
func Uncountable(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS)
}
