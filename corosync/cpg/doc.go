// Package cpg binds libcpg, corosync's closed process groups: all members of a
// group see the same messages and membership changes in the same order.
// cpg_overview(3).
//
// Load-bearing: the library's callbacks run inside cpg_dispatch, which only
// [Conn.Next] calls, so that what they append to needs no lock. A message
// belongs to the library until the callback returns and is copied there, once.
// cpg_mcast_joined from two threads at a time breaks the connection: calls other
// than dispatching go one by one.
//
// Where many goroutines want to send, they do better to queue their messages for
// the owner and [Conn.Wake] it than to crowd at that mutex: with 64 outstanding
// twice the messages, as many as a C program's single thread, and no slower with
// one (BenchmarkOwnerSends, BenchmarkThroughput).
package cpg
