// Package daemon is the running pmxcfs: it starts the parts in their order, stops them
// in the reverse one, and watches them in between.
//
// daemon.go is the order of start and stop. The mount has a guard beside it, a process
// that ends the mount of a killed daemon (guard.go); the watchdog asks each part for a sign
// of life and notifies the service manager (watchdog.go, sdnotify.go). memory.go, malloc.go and
// procs.go set up Go's and C's memory and the number of processors. The package knows nothing
// of command lines: it takes Options and returns errors, for which package exit has exit statuses.
package daemon
