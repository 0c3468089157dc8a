package qb

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// socketName is the length in bytes of an abstract socket's name: libqb uses all of sun_path,
// NULs included.
const socketName = 107

// Where sockets are in the file system if the file exists (libqb of Debian 12 and 13).
const (
	forceFilesystem = "/etc/libqb/force-filesystem-sockets"
	socketDir       = "/tmp"
)

// address is where a service listens.
func address(name string) *net.UnixAddr {
	if _, err := os.Stat(forceFilesystem); err == nil {
		return &net.UnixAddr{Net: "unix", Name: filepath.Join(socketDir, name)}
	}
	return &net.UnixAddr{Net: "unix", Name: "@" + name + strings.Repeat("\x00", socketName-len(name))}
}

func listen(name string) (*net.UnixListener, error) {
	addr := address(name)
	inFiles := !strings.HasPrefix(addr.Name, "@")
	if inFiles {
		// An earlier process's. It is not removed if somebody listens: libqb does, and then
		// there are two services of one name.
		if c, err := net.DialUnix("unix", nil, addr); err == nil {
			c.Close()
			return nil, unix.EADDRINUSE
		}
		if err := unix.Unlink(addr.Name); err != nil && err != unix.ENOENT {
			return nil, fmt.Errorf("%s is in the way: %w", addr.Name, unix.EADDRINUSE)
		}
	}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, err
	}
	if inFiles {
		if err := os.Chmod(addr.Name, 0o777); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// passCredentials says whether the kernel is to tell whose the bytes are that are read.
func passCredentials(socket *net.UnixConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, value)
	})
	return errors.Join(err, failed)
}

// descriptor returns a socket's number, which only makes names differ.
func descriptor(socket *net.UnixConn) (n int) {
	if raw, err := socket.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n = int(fd) })
	}
	return n
}

// A Process is one that holds a service's name.
type Process struct {
	PID  int
	UID  uint32
	Name string
}

// Holder finds the process that has a service's name, from what the kernel shows in
// /proc. The error wraps fs.ErrNotExist if there is none in this process's view.
func Holder(name string) (Process, error) {
	inode, err := socketInode(address(name).Name)
	if err != nil {
		return Process{}, err
	}
	link := "socket:[" + inode + "]"
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return Process{}, err
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", p.Name())
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // it has ended, or is another user's
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && to == link {
				return describe(pid, dir), nil
			}
		}
	}
	return Process{}, fmt.Errorf("the holder of socket %s: %w", name, fs.ErrNotExist)
}

func describe(pid int, dir string) Process {
	p := Process{PID: pid}
	if b, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
		p.Name = strings.TrimSpace(string(b))
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err == nil {
		p.UID = st.Uid
	}
	return p
}

// socketInode finds a socket in the kernel's list, which shows NULs in names as @.
func socketInode(address string) (string, error) {
	list, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return "", err
	}
	want := strings.ReplaceAll(address, "\x00", "@")
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		// Num RefCount Protocol Flags Type St Inode Path; flag 0x10000: it listens; a
		// connection of a server's bears the name as well, and is of state 3.
		if len(f) == 8 && f[7] == want && f[5] != "03" {
			return f[6], nil
		}
	}
	return "", fmt.Errorf("socket %s: %w", strings.TrimRight(want, "@"), fs.ErrNotExist)
}
