package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// The namespaces that a host has of its own.
const hostNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS | unix.CLONE_NEWPID

// startIn starts cmd in those namespaces (a mask of CLONE_NEW…) of the process
// behind pidfd. cmd is a child of this process all the same: its pid and
// exit status are seen from here. setns(2).
func startIn(pidfd int, namespaces int, cmd *exec.Cmd) error {
	return onThread(func() error {
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
		return cmd.Start()
	})
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
