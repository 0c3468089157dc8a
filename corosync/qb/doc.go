// Package qb binds libqb's IPC: a shared-memory server (qbipcs.h, QB_IPC_SHM)
// whose requests are answered in Go, and a client (qbipcc.h).
//
// # The loop
//
// libqb's server has no threads and no locks: every call into it belongs to
// one event loop, which the application supplies. A Server runs that loop on an
// operating system thread of its own; nothing else in the process touches the
// service. The loop is our own epoll loop, not libqb's qb_loop, because it must
// be woken by goroutines (an eventfd), must be able to stop listening to one
// connection while its request is being worked on, must give up on peers that
// never finish the handshake, and must exist several times in one process;
// qb_loop offers none of the first three and is meant to be a process's only
// one. libqb finds the loop through a thread-local variable, as its poll
// callbacks carry no context.
//
// Waiting, dispatching, short requests' copies and short answers' sending are C
// (bridge.c): a request costs one call into Go, for its answer, and none out of it. The
// loop returns to Go for all that is rarer: handshakes, hang-ups, workers' replies, long
// requests, full rings, what is due by time. A connection whose requests C may
// deal with is called hot. Measured with client and server on one processor: 4.8 instead
// of 5.8 µs of CPU time a request, where a bare libqb server takes 4.0.
//
// # Nobody waits for anybody
//
//   - A handler answers at once, on the loop's thread, what is quick (no
//     hand-over: its wake-ups would cost several times the answer). The others go to
//     a goroutine each, at most one per connection, whose reply comes back
//     to the loop's thread.
//   - libqb, after handling n queued requests in one go, waits without limit
//     for the n notification bytes of the client. A client stopped between its
//     request and its byte would hang the server. The message callback therefore
//     always returns "back off", which makes libqb handle one request per byte
//     that epoll has seen, and is fairer among clients too.
//   - A client that does not fetch its replies fills its response ring. Its
//     reply is kept (one per connection), its requests are no longer read, the
//     send is tried again a few times a second, and after Config.SlowLimit the
//     connection is dropped.
//
// # What a client can do to us
//
// libqb hands over the length from the request's header, which is the client's
// to choose; it is checked against the length of the ring's chunk and against the
// buffer size. The bytes lie in memory that the client can still write, so
// they are copied once, before anything looks at them (up to 1 KiB once more for a worker).
//
// A client can truncate the files of its rings, and then memory that we read or write
// is gone: SIGBUS. Our calls into libqb and the copy are guarded (bridge.c), and such a
// client is dropped. For that a handler of SIGBUS is installed in front of Go's, once per
// process; a signal from elsewhere goes on to Go's. libqb, when it closes such rings,
// leaves their mappings.
//
// What cannot be checked from here is libqb's own bookkeeping in the shared rings
// (positions, sizes): a client that is let in can falsify it, and libqb believes it. Let
// in only whom you trust that far.
//
// # Where things are
//
// On Linux the socket is in the abstract name space (@NAME, private to the
// network name space) unless /etc/libqb/force-filesystem-sockets exists, then in
// libqb's socket directory (/run on Debian). Each connection has a directory
// /dev/shm/qb-SERVERPID-CLIENTPID-FD-XXXXXX with a header and a data file for
// each of three rings (request, response, event): 3 × (BufferSize + one page),
// touched in full when the connection is made. They belong to the client's uid and gid,
// mode 0600, and go with the connection; if the server is killed, the clients
// remove them.
//
// Sources: qbipcs.h(3), qbipcc.h(3), qb_ipcs_response_sendv(3), and
// measurement against libqb 2.0.6.
package qb
