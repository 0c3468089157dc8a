package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/internal/event"
)

// Resolve follows the symbolic links in path, as SQLite does before it appends "-wal"
// to it. What the last of them leads to need not exist.
func Resolve(path string) (string, error) {
	given := path
	for range 40 { // the kernel's limit, too
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		var at *fs.PathError
		if errors.As(err, &at) { // it names a directory above
			return "", &fs.PathError{Op: "open", Path: given, Err: at.Err}
		}
		if err != nil {
			return "", err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		switch {
		case errors.Is(err, syscall.EINVAL), errors.Is(err, fs.ErrNotExist): // no link, or nothing
			return path, nil
		case err != nil:
			return "", err
		case !filepath.IsAbs(target):
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", &fs.PathError{Op: "open", Path: given, Err: syscall.ELOOP}
}

// ErrInUse says that another daemon has the database open.
var ErrInUse = errors.New("another daemon has this database open")

// lockPatience is how long an earlier daemon that has just been killed may take to let
// go of its lock.
const lockPatience = 3 * time.Second

// lock takes the lock that belongs to the database's inode, whatever the options by which
// a daemon was started. It is held until the file is closed. (flock and the locks
// that SQLite takes on the same file have nothing to do with each other; but closing
// the file takes SQLite's away, so it must be the last that is closed.)
func lock(path string) (*os.File, error) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		f.Close()
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("locking the database: %w", err)
		case time.Now().After(deadline):
			return nil, ErrInUse
		}
	}
}

// protect gives the database's files the mode and owner that they must have: private
// keys are in them. A file that was put there by cp or tar often is readable to all.
func protect(path string, log *slog.Logger) error {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		st, err := os.Lstat(path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return &fs.PathError{Op: "open", Path: path + suffix, Err: errors.New("not a regular file")}
		}
		sys := st.Sys().(*syscall.Stat_t)
		uid, gid := os.Geteuid(), os.Getegid()
		if int(sys.Uid) != uid || int(sys.Gid) != gid {
			if err := os.Lchown(path+suffix, uid, gid); err != nil {
				return fmt.Errorf("giving a file of the database to its owner: %w", err)
			}
			log.Warn("a file of the database belonged to somebody else; it was given to the daemon's user", "path", path+suffix,
				"uid", sys.Uid, "gid", sys.Gid, event.Exposed.Attr())
		}
		if mode := st.Mode().Perm(); mode != 0o600 || st.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
			if err := os.Chmod(path+suffix, 0o600); err != nil {
				return fmt.Errorf("setting the mode of a file of the database: %w", err)
			}
			log.Warn("a file of the database had another mode than 0600; that was corrected. It holds secrets, which other users may have read",
				"path", path+suffix, "mode", fmt.Sprintf("%04o", mode), event.Exposed.Attr())
		}
	}
	return nil
}

// Traces returns the names of files beside a database that tell of an earlier one:
// its log, copies of it, and the stock tools' directory of backups. They are empty
// on a node that is new.
func Traces(path string) []string {
	path, err := Resolve(path)
	if err != nil {
		return nil
	}
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	var names []string
	base := filepath.Base(path)
	for _, e := range list {
		switch name := e.Name(); {
		case name == base, name == base+"-shm":
		case name == base+"-wal", name == base+"-journal":
			if info, err := e.Info(); err == nil && info.Size() > 0 {
				names = append(names, name)
			}
		case strings.HasPrefix(name, base):
			names = append(names, name)
		case name == "backup" && e.IsDir():
			if in, err := os.ReadDir(filepath.Join(filepath.Dir(path), name)); err == nil && len(in) > 0 {
				names = append(names, name)
			}
		}
	}
	return names
}
