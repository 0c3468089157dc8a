package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isolate runs the benchmark proper in a mount and a PID namespace of its own,
// and removes its directory afterwards. When the benchmark's process ends,
// however that comes, the kernel ends every other process in there and drops
// their mounts.
func isolate(ctx context.Context, c *config, args []string, stdout, stderr io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("the benchmark must run as root: it mounts file systems")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(c.tempDir, &st); err != nil {
		return fmt.Errorf("%s: %w", c.tempDir, err)
	}
	if st.Type == unix.TMPFS_MAGIC {
		fmt.Fprintf(stderr, "bench: %s is a tmpfs: nothing will be written to a disk (-dir names another place)\n", c.tempDir)
	}
	dir, err := os.MkdirTemp(c.tempDir, "pmxcfs-bench-")
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	inside := exec.Command("/proc/self/exe", append([]string{partInside, dir}, args...)...)
	inside.Stdout, inside.Stderr = stdout, stderr
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Setpgid:    true, // a terminal's interrupt comes through here, once
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := inside.Start(); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	ended := make(chan error, 1)
	go func() { ended <- inside.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		inside.Process.Signal(syscall.SIGTERM)
		select {
		case err = <-ended:
		case <-time.After(time.Minute):
			inside.Process.Kill()
			err = <-ended
		}
		err = errors.Join(errors.New("interrupted"), err)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// enterNamespaces finishes what isolate's clone has begun.
func enterNamespaces() error {
	if os.Getpid() != 1 {
		return errors.New(partInside + " is for the benchmark itself")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}
