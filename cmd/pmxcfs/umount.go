package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"pmxcfs/fuse"
)

// umountWait is how long umount waits for a killed daemon to be gone.
const umountWait = 5 * time.Second

// umountCommand returns the command that clears away what a killed daemon has left
// mounted. The service's unit runs it after each stop.
func umountCommand() *cli.Command {
	return &cli.Command{
		Name:  "umount",
		Usage: "unmount what a killed daemon has left at the mount point",
		Description: "After a daemon was killed, every access to its mount point fails until the next one starts, or this is done. " +
			"Options that move the mount point, the lock file or the pid file are given before the command, as they were to the daemon. " +
			"A daemon that runs is left alone: stop it instead.\n" +
			"Status 0: nothing is mounted there any more; 1: a daemon is running, or the mount can't be taken away.",
		HideHelpCommand: true,
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError(err) },
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError(fmt.Errorf("umount takes no arguments: %q", c.Args().First()))
			}
			o, err := parseOptions(c)
			if err != nil {
				return usageError(err)
			}
			n, err := umount(o)
			if err != nil {
				return cli.Exit("umount: "+err.Error(), exitFailure)
			}
			if n > 0 {
				fmt.Fprintf(c.App.Writer, "unmounted what an earlier run had left on %s\n", o.MountPoint)
			}
			return nil
		},
	}
}

// umount unmounts what is left at the mount point while no daemon runs, and
// returns how many mounts that were.
func umount(o *options) (int, error) {
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
func lockAfterDying(lock *os.File, o *options) error {
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
