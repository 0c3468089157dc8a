package metrics

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// errnoName returns an errno's name, "other" for what has none.
func errnoName(errno syscall.Errno) string {
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return "other"
}
