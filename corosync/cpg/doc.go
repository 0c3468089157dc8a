// Package cpg binds libcpg, corosync's closed process groups: all members of a
// group see the same messages and membership changes in the same order.
// cpg_overview(3).
//
// The library's callbacks run inside cpg_dispatch, which only [Conn.Next] calls, so
// the list that they append to needs no lock. A message belongs to the library until the
// callback returns, so it is copied there, once. cpg_mcast_joined from two threads at a
// time breaks the connection, so a mutex serialises all calls except dispatching.
//
// If many goroutines send, they should queue their messages for the owner and [Conn.Wake]
// it instead of contending for that mutex: with 64 messages in flight this doubles the
// rate, to that of a single-threaded C program, and one message in flight is no slower
// (BenchmarkOwnerSends, BenchmarkThroughput).
package cpg
