package rrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoDirectory is the error while the directory of the files is missing. It
// is not created: without it this host keeps no RRD files.
var ErrNoDirectory = errors.New("rrd: no directory")

// library is what files needs of librrd.
type library interface {
	create(path string, step time.Duration, start time.Time, definitions []string) error
	update(path, sample string) error
}

// files is the directory of RRD files.
type files struct {
	dir string
	lib library
	now func() time.Time
	// settled tells whether the clock is known to be right: only then is a file that
	// seems to be of the future.
	settled func() bool
}

// path is the file of s.
func (d *files) path(s *sample) string {
	return filepath.Join(append([]string{d.dir}, s.file...)...)
}

// check answers an error that wraps ErrNoDirectory if the directory is missing.
func (d *files) check() error {
	if info, err := os.Stat(d.dir); err != nil {
		return fmt.Errorf("%w: %w", ErrNoDirectory, err)
	} else if !info.IsDir() {
		return fmt.Errorf("%w: %s is none", ErrNoDirectory, d.dir)
	}
	return nil
}

// ensure makes the file of s, and the directories that lead to it, unless it
// exists, and tells whether it did. A new file begins at this day's midnight by
// the clock's time zone.
func (d *files) ensure(s *sample) (created bool, err error) {
	path := d.path(s)
	if _, err := os.Stat(path); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("rrd: %w", err)
	}
	parent := d.dir
	for _, name := range s.file[:len(s.file)-1] {
		parent = filepath.Join(parent, name)
		if err := makeDir(parent); err != nil {
			return false, fmt.Errorf("rrd: %w", err)
		}
	}
	now := d.now()
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	if err := d.lib.create(path, step, midnight, s.family.definitions()); err != nil {
		return false, explain(err, parent, s.family.fileSize())
	}
	return true, nil
}

// makeDir makes one directory of mode 0750, whatever the umask.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o750)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, 0o750)
}

// explain gives librrd's error about creating a file its cause, which librrd
// tells in words, if at all.
func explain(err error, dir string, need uint64) error {
	var st unix.Statfs_t
	switch cause := unix.Access(dir, unix.W_OK|unix.X_OK); {
	case cause != nil:
		return fmt.Errorf("rrd: %s: %w (%w)", dir, cause, err)
	case unix.Statfs(dir, &st) == nil && st.Bfree*uint64(st.Bsize) < need+need/8:
		return fmt.Errorf("rrd: %s: %w (%w)", dir, unix.ENOSPC, err)
	case st.Files > 0 && st.Ffree == 0:
		return fmt.Errorf("rrd: %s: %w (%w)", dir, unix.ENOSPC, err)
	}
	return fmt.Errorf("rrd: %w", err)
}

// update writes s to its file, which exists.
func (d *files) update(s *sample) error {
	path := d.path(s)
	if err := makeSafe(path, d.now()); err != nil {
		return fmt.Errorf("rrd: %s: %w", path, err)
	}
	if err := d.lib.update(path, s.update); err != nil {
		return fmt.Errorf("rrd: %w", err)
	}
	return nil
}

// copyOnWriteReserve is how many free bytes a file system must have that needs
// room for every change.
const copyOnWriteReserve = 32 << 20

// makeSafe makes sure that librrd can have the file without ending the process
// by a signal: its header is sane, and the disk has room for whatever librrd
// changes in it.
//
// As to the latter, librrd writes through a mapping, where a lack of room is a SIGBUS that
// ends the process. Its files have no holes, and most file systems change them
// in place: then nothing is to be done. Holes are filled here. Btrfs needs room
// for a change in any case, so there some must be free. (ZFS takes pages in
// without looking for room, and has no fallocate.)
func makeSafe(path string, now time.Time) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a plain file")
	}
	if err := checkHeader(f, st.Size, now); err != nil {
		return err
	}
	if st.Blocks*512 < st.Size {
		err := unix.Fallocate(fd, 0, 0, st.Size)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return err
		}
	}
	var sys unix.Statfs_t
	if err := unix.Fstatfs(fd, &sys); err != nil {
		return err
	}
	if sys.Type == unix.BTRFS_SUPER_MAGIC && sys.Bavail*uint64(sys.Bsize) < copyOnWriteReserve {
		return unix.ENOSPC
	}
	return nil
}

// asideSuffix is what the name of a file ends in that was set aside.
const asideSuffix = ".damaged"

// spoilt returns why the file of s takes no samples and never will, if it is so.
func (d *files) spoilt(s *sample) error {
	err := makeSafe(d.path(s), d.now())
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrFuture) && d.settled() {
		return err
	}
	return nil
}

// setAside makes way for a new file of s. The old one stays beside it, in place of what
// was set aside before; an empty one is removed.
func (d *files) setAside(s *sample) (aside string, err error) {
	path := d.path(s)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("rrd: %w", err)
	case info.Size() == 0:
		err = os.Remove(path)
	default:
		aside = path + asideSuffix
		err = os.Rename(path, aside)
	}
	if err != nil {
		return "", fmt.Errorf("rrd: %w", err)
	}
	return aside, nil
}

// settledAfter is how long after its start a process believes a clock that nobody
// synchronises.
const settledAfter = time.Hour

// clockSettled returns a function that tells whether the clock can be believed: the
// kernel says that it is synchronised, or it has been what it is for a while.
func clockSettled() func() bool {
	start := time.Now()
	return func() bool {
		const unsynchronised = 5 // TIME_ERROR, adjtimex(2)
		var t unix.Timex
		state, err := unix.Adjtimex(&t)
		return err == nil && state != unsynchronised && t.Status&unix.STA_UNSYNC == 0 || time.Since(start) > settledAfter
	}
}
