// Package load is the client's side of the benchmark: threads that make system
// calls on a mounted file system and note how long each operation took.
//
// A measurement runs in a process of its own (see [Job] and [Serve]), which does
// nothing else: its threads call the kernel directly, without the Go scheduler
// between, nothing is allocated while the time runs, and neither the garbage
// collector nor preemption signals disturb it. (A signal to a thread that waits
// for a FUSE request makes the kernel send an INTERRUPT request after it.)
package load
