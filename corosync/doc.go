// Package corosync holds what all of corosync's client libraries have in
// common: node ids, group members and error codes. It needs no corosync
// itself; the packages below it bind one C library each.
//
// These share a way of working. A Conn is one connection. One goroutine, its
// owner, calls Next in a loop and gets what the library's callbacks brought, in
// their order; any goroutine may make calls meanwhile, call Wake to have Next
// return, or Close. A connection that is lost stays so ([ErrConnectionLost]):
// close it and open another, not too often, for corosync dislikes a process
// that connects over and over.
//
// Calls that need an answer (all but Next, Wake and Mcast of what fits one
// message) wait for a corosync that is stopped, not gone, without limit, and
// Close waits for them: who can't wait makes them from a goroutine to spare.
package corosync
