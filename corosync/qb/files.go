package qb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ring is one of the rings of a connection.
type ring int

const (
	request ring = iota
	response
	event // nothing is ever sent through it, but clients open it
	rings
)

func (r ring) String() string { return [...]string{"request", "response", "event"}[r] }

const shmDir = "/dev/shm"

// files are a connection's files. The directory is this process's, so that the client can't
// put something else into the place of a file or of the directory, whatever it does to
// the files, which are its own.
type files struct {
	dir  string
	name string // the service's

	reader reader
	writer writer
}

func (f *files) base(r ring) string { return fmt.Sprintf("%s/qb-%v-%s", f.dir, r, f.name) }

// makeFiles makes the files of a new connection, which the peer can open, and maps what
// of them the server touches. The data files' memory is left to the client to allocate, which
// does so before it sends anything.
func makeFiles(service string, peer Peer, fd int, bufferSize int) (f *files, err error) {
	dir, err := os.MkdirTemp(shmDir, fmt.Sprintf("qb-%d-%d-%d-*", os.Getpid(), peer.PID, fd))
	if err != nil {
		return nil, err
	}
	f = &files{dir: dir, name: service}
	defer func() {
		if err != nil {
			f.remove()
		}
	}()
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	words := ringWords(bufferSize)
	for r := range rings {
		m, err := f.makeRing(r, peer, words)
		if err != nil {
			return nil, fmt.Errorf("%v ring: %w", r, err)
		}
		switch r {
		case request:
			f.reader = reader{shared: m, words: words}
		case response:
			f.writer = writer{shared: m, words: words}
		}
	}
	return f, nil
}

func (f *files) makeRing(r ring, peer Peer, words uint32) (m shared, err error) {
	headerPath, dataPath := f.base(r)+"-header", f.base(r)+"-data"
	defer func() {
		if err != nil {
			m.unmap()
			m = shared{}
		}
	}()
	if m.data, err = makeFile(dataPath, peer, int(words)*4, 0); err != nil {
		return m, err
	}
	// Its one page is written here, before the client knows of it: it must be there.
	if m.header, err = makeFile(headerPath, peer, headerSize, headerSize); err != nil {
		return m, err
	}
	if err := guard(func() error { initHeader(m.header, words, headerPath, dataPath); return nil }); err != nil {
		return m, err
	}
	if r == event {
		m.unmap()
		m = shared{}
	}
	return m, nil
}

// makeFile makes a file of the peer's and maps it. reserve bytes of it are allocated.
func makeFile(path string, peer Peer, size, reserve int) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fd := int(file.Fd())
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, &os.PathError{Op: "ftruncate", Path: path, Err: err}
	}
	if reserve > 0 {
		if err := unix.Fallocate(fd, 0, 0, int64(reserve)); err != nil {
			return nil, &os.PathError{Op: "fallocate", Path: path, Err: err}
		}
	}
	if err := file.Chmod(0o600); err != nil { // whatever the umask
		return nil, err
	}
	if err := file.Chown(int(peer.UID), int(peer.GID)); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	return mem, nil
}

func (m *shared) unmap() {
	for _, mem := range [][]byte{m.header, m.data} {
		if mem != nil {
			_ = unix.Munmap(mem) // fails for what was never mapped only
		}
	}
}

// remove takes the files away. Their names are those that they were made with.
func (f *files) remove() {
	f.reader.unmap()
	f.writer.unmap()
	for r := range rings {
		_ = unix.Unlink(f.base(r) + "-header")
		_ = unix.Unlink(f.base(r) + "-data")
	}
	_ = unix.Rmdir(f.dir)
}

// removeStaleServer removes the rings in /dev/shm that a server of that name left which is no longer
// there. Clients that are still connected to it see that it is gone, and need them no more. It
// returns the directories removed.
func removeStaleServer(service string) ([]string, error) {
	return removeStale(func(_ int, names []string) bool {
		for _, n := range names { // none: its maker was killed early
			if _, of, ok := strings.Cut(strings.TrimPrefix(n, "qb-"), "-"); !ok || of != service+"-header" && of != service+"-data" {
				return false
			}
		}
		return true
	})
}

// RemoveStaleClient removes the rings in /dev/shm of this process's connections to servers that
// are no longer there: a killed server can't, and libqb's client leaves them if it
// finds out at the wrong moment. It returns the directories removed.
func RemoveStaleClient() ([]string, error) {
	self := os.Getpid()
	return removeStale(func(client int, _ []string) bool { return client == self })
}

func removeStale(match func(client int, names []string) bool) (removed []string, err error) {
	dirs, err := filepath.Glob(shmDir + "/qb-*-*-*-*")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, dir := range dirs {
		var server, client, fd int
		if _, err := fmt.Sscanf(filepath.Base(dir), "qb-%d-%d-%d-", &server, &client, &fd); err != nil {
			continue
		}
		if server <= 0 || unix.Kill(server, 0) != unix.ESRCH {
			continue
		}
		switch ok, err := removeDir(dir, client, match); {
		case err != nil:
			errs = append(errs, fmt.Errorf("qb: remove the rings of a process that is gone, %s: %w", dir, err))
		case ok:
			removed = append(removed, dir)
		}
	}
	return removed, errors.Join(errs...)
}

// removeDir removes a directory with files if it matches. Anybody may write to /dev/shm, so the
// directory is opened once, and nothing is followed.
func removeDir(dir string, client int, match func(int, []string) bool) (bool, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	names, err := d.Readdirnames(2 * int(rings))
	if err != nil && err != io.EOF {
		return false, err
	}
	if !match(client, names) {
		return false, nil
	}
	for _, n := range names {
		if err := unix.Unlinkat(fd, n, 0); err != nil {
			return false, err
		}
	}
	if err := unix.Rmdir(dir); err != nil {
		return false, err
	}
	return true, nil
}
