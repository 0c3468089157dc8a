package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"pmxcfs/internal/signals"
)

// withScratch calls f with an empty directory that is gone in any case when it
// returns, or when a signal ends the process.
func withScratch(f func(dir string, h signals.Held) error) (err error) {
	h := signals.Hold()
	defer h.Release()
	dir, err := os.MkdirTemp("", "pmxcfs-db-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return f(dir, h)
}

// writeNew makes a file of mode 0600 with this content and brings it to the disk. It
// appears whole or not at all; a file that exists is an error around fs.ErrExist.
func writeNew(path string, content []byte) error {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
		err = writeNamed(path, content)
	case err != nil:
		err = &fs.PathError{Op: "create a file in", Path: dir, Err: err}
	default:
		f := os.NewFile(uintptr(fd), path)
		err = fillFile(f, content)
		if err == nil {
			err = link(fmt.Sprintf("/proc/self/fd/%d", fd), path)
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

func link(from, to string) error {
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &fs.PathError{Op: "create", Path: to, Err: err}
	}
	return nil
}

// writeNamed is writeNew on a file system that has no files without a name, as
// network file systems: the file has another name until it is whole.
func writeNamed(path string, content []byte) (err error) {
	h := signals.Hold()
	defer h.Release()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".partial-*")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(f.Name()); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if err := errors.Join(fillFile(f, content), f.Close()); err != nil {
		return err
	}
	err = link(f.Name(), path)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) { // no links there
		if err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
			err = &fs.PathError{Op: "create", Path: path, Err: err}
		}
	}
	return err
}

// fillFile writes a file, brings it to the disk, and compares what it holds then.
func fillFile(f *os.File, content []byte) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync()); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	got := make([]byte, 1<<20)
	for rest := content; ; {
		n, err := f.Read(got)
		if n > len(rest) || !bytes.Equal(got[:n], rest[:min(n, len(rest))]) {
			return fmt.Errorf("%s does not hold what was written to it", f.Name())
		}
		rest = rest[n:]
		switch {
		case err == io.EOF && len(rest) == 0:
			return nil
		case err == io.EOF:
			return fmt.Errorf("%s lacks %d bytes of what was written to it", f.Name(), len(rest))
		case err != nil:
			return err
		}
	}
}

func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return nil
}
