package daemon

import "os"

// The kernel's names of the two processes, for killall(1) and the like: signals that
// people send by name are for the daemon, never for the guard of its mount. A program
// that was started through /proc/self/exe would be called "exe".
const (
	daemonName = "pmxcfs"
	guardName  = "pmxcfs-guard" // 15 bytes are kept
)

// nameProcess gives this process the name by which others find it. Without /proc it
// keeps the old one, which keeps it from nothing.
func nameProcess(name string) {
	// Of the process's first thread, whichever this is.
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}
