package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/fuse"
)

// umountWait is how long umount waits for a killed daemon to be gone.
const umountWait = 5 * time.Second

// Umount unmounts what is left at the mount point while no daemon runs, and
// returns how many mounts that were.
func Umount(o Options) (int, error) {
	lock, err := os.OpenFile(o.LockFile, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist): // no daemon has ever run
	case err != nil:
		return 0, err
	default:
		defer lock.Close()
		// Whoever comes next waits for this lock, so nobody mounts meanwhile.
		if err := lockAfterDying(lock, o); err != nil {
			return 0, err
		}
	}
	return fuse.Leftover(o.MountPoint)
}

// lockAfterDying takes the daemon's lock, at once or when the killed daemon that
// holds it has ended.
func lockAfterDying(lock *os.File, o Options) error {
	for deadline := time.Now().Add(umountWait); ; {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("locking %s: %w", o.LockFile, err)
		}
		pid, ended := 0, false
		if b, err := os.ReadFile(o.PidFile); err == nil {
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		if pid > 0 {
			if ended, err = fuse.EndDying(o.MountPoint, pid); err != nil {
				return err
			}
		}
		if !ended && !fuse.Dying(pid) || time.Now().After(deadline) {
			return fmt.Errorf("%s is locked: a daemon is running; stop it, and it unmounts", o.LockFile)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
