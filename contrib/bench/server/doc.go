// Package server starts the processes that the benchmark measures, reads what
// they use of the machine, and ends them.
package server
