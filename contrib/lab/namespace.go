package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// The namespaces that a host has of its own.
const hostNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS | unix.CLONE_NEWPID

// startIn starts cmd in those namespaces (a mask of CLONE_NEW…) of the process
// behind pidfd. cmd is a child of this process all the same: its pid and
// exit status are seen from here. setns(2). With a mount namespace it gets that process's
// root directory, too: setns leads to the namespace's, which is outside if the lab was
// made in a chroot.
func startIn(pidfd int, namespaces int, cmd *exec.Cmd) error {
	return onThread(func() error {
		root := -1
		if namespaces&unix.CLONE_NEWNS != 0 {
			var err error
			if root, err = openRoot(pidfd); err != nil {
				return err
			}
			defer unix.Close(root)
		}
		if namespaces&unix.CLONE_NEWNS != 0 {
			// setns refuses a mount namespace while root and working
			// directory are shared with the other threads.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
		}
		if err := unix.Setns(pidfd, namespaces); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		if root >= 0 {
			if err := unix.Fchdir(root); err != nil {
				return fmt.Errorf("changing to the host's root directory: %w", err)
			}
			if err := unix.Chroot("."); err != nil {
				return fmt.Errorf("taking the host's root directory: %w", err)
			}
		}
		return cmd.Start()
	})
}

// openRoot opens the root directory of the process behind a pidfd.
func openRoot(pidfd int) (int, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return -1, err
	}
	for line := range strings.Lines(string(info)) {
		if pid, ok := strings.CutPrefix(line, "Pid:"); ok {
			name := "/proc/" + strings.TrimSpace(pid) + "/root"
			fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, fmt.Errorf("%s: %w", name, err)
			}
			return fd, nil
		}
	}
	return -1, fmt.Errorf("the process behind descriptor %d has no number: %q", pidfd, info)
}

// onThread runs f on a thread that is thrown away afterwards, so that f may
// change the thread's namespaces.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// Go cannot end the main thread, and /proc/self is the main
			// thread's view: occupy it while another one does the work.
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // no unlock: the thread ends with this goroutine
	}()
	return <-done
}
