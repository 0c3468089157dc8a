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
	mountPoint, err := fuse.Resolve(o.MountPoint)
	if err != nil {
		return 0, err
	}
	o.MountPoint = mountPoint
	lock, err := os.OpenFile(o.LockFile, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist): // no daemon has ever run
	case err != nil:
		return 0, err
	default:
		defer lock.Close()
		// The next daemon waits for this lock, so nothing is mounted meanwhile.
		if err := lockAfterDying(lock, o); err != nil {
			return 0, err
		}
	}
	return fuse.Leftover(o.MountPoint)
}

// endDying ends the connection of the mount at the mount point if process pid, which
// holds the daemon's lock, has been killed and can't end. What is mounted there before
// it is looked at is its own: nobody mounts without the lock.
func endDying(mountPoint string, pid int) (bool, error) {
	connection, there, err := fuse.Connection(mountPoint)
	if err != nil || !there {
		return false, err
	}
	return fuse.EndDying(connection, pid)
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
			if ended, err = endDying(o.MountPoint, pid); err != nil {
				return err
			}
		}
		if !ended && !fuse.Dying(pid) || time.Now().After(deadline) {
			return fmt.Errorf("%s is locked: a daemon is running; stop it, and it unmounts", o.LockFile)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
