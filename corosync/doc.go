// Package corosync has the types that all of corosync's client libraries share: node
// ids, group members and error codes. It needs no corosync itself; each package below it
// binds one C library.
//
// The bindings work alike. A Conn is one connection. One goroutine, its owner, calls
// Next in a loop and gets the events of the library's callbacks in their order. Any
// goroutine may make calls meanwhile, call Wake to make Next return, or Close. A lost
// connection stays lost ([ErrConnectionLost]): close it and open another, but not too
// often, since corosync penalises a process that keeps reconnecting.
//
// Calls that need an answer (all but Next, Wake and Mcast of a message that fits in one
// piece) wait without limit for a corosync that is stopped (SIGSTOP) but not gone, and
// Close waits for them. A caller that can't wait makes them from a goroutine that it can
// leave behind.
package corosync
