package fuse

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// /proc tells about a caller what the kernel's request does not: the caller waits in its
// system call meanwhile. A caller in a foreign pid name space has no number here (0), and
// nothing is known of it.

// systemCalls knows the files of /proc that tell the system calls which threads are in. They are
// kept open for those that are asked about again and again: an overwrite is one question.
type systemCalls struct {
	mu    sync.Mutex
	files [16]struct {
		thread uint32
		fd     int
	}
	next int
}

const (
	lookAgain = 20                    // times, at once: a thread on its way to wait is there soon
	lookLater = 100                   // times
	lookPause = 20 * time.Microsecond // between those
)

// of returns the number and the arguments of the system call that a thread is in, as
// numbers in text; nothing if that can't be told. It has made a request and is about to wait for the
// answer: while it is still running, its call can't be read. See proc_pid_syscall(5).
func (c *systemCalls) of(thread uint32) (number int, args [][]byte, ok bool) {
	for i := range lookAgain + lookLater {
		b := make([]byte, 256)
		fields := bytes.Fields(c.read(thread, b))
		if len(fields) == 0 {
			return 0, nil, false
		}
		if n, err := strconv.Atoi(string(fields[0])); err == nil {
			return n, fields[1:], true
		}
		if i >= lookAgain {
			time.Sleep(lookPause)
		}
	}
	return 0, nil, false
}

func (c *systemCalls) read(thread uint32, into []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.files {
		f := &c.files[i]
		if f.thread != thread {
			continue
		}
		if n, err := unix.Pread(f.fd, into, 0); err == nil {
			return into[:n]
		}
		c.drop(i) // that thread has ended, and this is another one
		break
	}
	fd, err := unix.Open("/proc/"+strconv.FormatUint(uint64(thread), 10)+"/syscall", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	c.next = (c.next + 1) % len(c.files)
	c.drop(c.next)
	c.files[c.next].thread, c.files[c.next].fd = thread, fd
	n, err := unix.Pread(fd, into, 0)
	if err != nil {
		return nil
	}
	return into[:n]
}

// drop closes a file. mu is held.
func (c *systemCalls) drop(i int) {
	if c.files[i].thread != 0 {
		unix.Close(c.files[i].fd)
	}
	c.files[i].thread = 0
}

func (c *systemCalls) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.files {
		c.drop(i)
	}
}

// keepsOpen reports whether h will go on being open although thread has closed a
// descriptor of it: the descriptor was a copy (a shell opens the target of a
// redirection, copies the descriptor to where it is wanted, and closes the
// first), or the copy of a child. A process that has more descriptors of the file
// than it has opened has copies.
func (fs *FS) keepsOpen(h *handle, thread uint32) bool {
	if thread == 0 || h.opener == 0 {
		return false
	}
	proc := "/proc/" + strconv.FormatUint(uint64(thread), 10)
	if !sameProcess(proc, thread, h.opener) {
		return true // who opened it will see to it, or the release
	}
	dir, err := os.Open(proc + "/fdinfo")
	if err != nil {
		return false
	}
	defer dir.Close()
	descriptors := 0
	names, _ := dir.Readdirnames(-1) // none, of a process that ends
	want := []byte("\nino:\t" + strconv.FormatUint(h.id, 10) + "\n")
	b := make([]byte, 512)
	for _, fd := range names {
		info := readProc(proc+"/fdinfo/"+fd, b)
		if bytes.Contains(info, want) && writesTo(info) && fs.isOurs(proc+"/fd/"+fd) {
			descriptors++
		}
	}
	if descriptors == 0 {
		return false
	}
	opened := 0
	for _, opener := range fs.otherOpeners(h) {
		if sameProcess(proc, thread, opener) {
			opened++
		}
	}
	return descriptors > opened
}

// isOurs reports whether a descriptor, given by its name in /proc, is of a file of this
// mount, and not of one elsewhere that has the same inode number. (The mounts' numbers in
// fdinfo differ between name spaces.) The kernel is asked for what it has, and asks nobody:
// not this process, which would wait for itself.
func (fs *FS) isOurs(descriptor string) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, descriptor, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return false
	}
	return st.Dev_major == 0 && st.Dev_minor == fs.device.Load()
}

// otherOpeners returns the threads that have opened h's file for writing, those of
// other handles.
func (fs *FS) otherOpeners(h *handle) []uint32 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var list []uint32
	if f := fs.files[h.inode]; f != nil {
		for _, w := range f.writers {
			if w != h {
				list = append(list, w.opener)
			}
		}
	}
	return list
}

// sameProcess reports whether two threads belong to one process, whose directory
// is proc.
func sameProcess(proc string, a, b uint32) bool {
	if a == b {
		return true
	}
	_, err := os.Lstat(proc + "/task/" + strconv.FormatUint(uint64(b), 10))
	return err == nil
}

// writesTo reports whether a descriptor may be written to, by its fdinfo.
func writesTo(info []byte) bool {
	_, rest, _ := bytes.Cut(info, []byte("flags:\t"))
	octal, _, _ := bytes.Cut(rest, []byte("\n"))
	flags, err := strconv.ParseUint(string(octal), 8, 32)
	return err == nil && writable(uint32(flags))
}

// readProc reads the beginning of a file of /proc; nothing if it can't.
func readProc(path string, into []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, into)
	if err != nil {
		return nil
	}
	return into[:n]
}
