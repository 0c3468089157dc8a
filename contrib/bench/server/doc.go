// Package server starts the processes that the benchmark measures, reads what
// they use of the machine, and ends them.
//
// They run in the benchmark's PID namespace and end with its first process. The
// kernel's parent death signal would be no help: it means the parent's thread, and
// threads that have been on a host of a lab end.
package server
