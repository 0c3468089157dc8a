// Command bench measures the daemon on one node: how many operations per second
// its mount carries out, how long each takes, what CPU time and disk traffic it
// costs, how much memory the daemon occupies with trees of several shapes, and
// how long it takes to start. README.md says how to read the result.
//
// Beside the daemon run two floors, in the same minutes and on the same
// machine, since absolute figures of a busy machine say little: a file system
// that does nothing but keep files in memory, and bare SQLite transactions.
//
// Every process that is measured, and every client, is a process of its own:
// this program started again with the name of a part (see parts). All of it runs
// in namespaces of its own for processes and mounts, so that whatever happens,
// the kernel leaves neither behind.
package main
