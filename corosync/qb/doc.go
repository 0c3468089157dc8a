// Package qb serves requests of libqb's clients (qbipcc.h) over libqb's shared-memory transport
// (QB_IPC_SHM), without libqb.
//
// # Why not libqb's server
//
// libqb trusts the memory that it shares with its clients. It unlinks the paths in a ring's header
// when a connection ends, and uses positions and lengths from there as offsets of its reads
// and writes. Any accepted client, even one that may only read, can make the server delete
// its files, crash, or write out of bounds. Two alternatives were tried. Its socket
// transport, which the server may choose and clients follow, carries messages of 1 MiB only if
// the kernel's net.core.wmem_max is that large, which it is not by default, and shares a
// control file nevertheless. A process without privileges between clients and daemon would
// double the wake-ups, which are most of a request's cost.
//
// So this package accesses the memory itself. It keeps private copies of the state that the
// handshake fixed (the paths, the length of a ring, the position of the next chunk); see shared in
// ring.go for the rules. Every value from the client is checked against those, and a client
// that violates the protocol is dropped.
//
// # The protocol
//
// The client connects to an abstract socket @NAME whose address fills sun_path (or to /tmp/NAME if
// /etc/libqb/force-filesystem-sockets exists), and sends a message that asks for a size of
// buffers. The kernel adds the credentials (SCM_CREDENTIALS). The answer names three rings, for
// requests, responses and events, whose files the client opens: a header, with the
// positions and a semaphore, and the data. From then on a request is a chunk in the request
// ring and a byte on the socket, and its response a chunk in the response ring and the
// semaphore counted up. Events are not used here. When the socket is closed the connection
// is over, whoever closed it. The layouts are in wire.go and ring.go. libqb 2.0.6 and 2.0.8 (Debian
// 12 and 13) are the same in all of this; the tests run against the installed one.
//
// # Files
//
// A connection has a directory /dev/shm/qb-SERVERPID-CLIENTPID-FD-X with two files for each ring,
// 3 × (BufferSize + one page) in all, which the client allocates. The files are the client's,
// mode 0600. The directory is the server's, unlike libqb's, so that no client can put anything into
// its place. If the server is killed, its successor removes what is left.
//
// A client can truncate the files, and then memory that we read or write is gone: SIGBUS, which Go
// turns into a panic that guard catches.
//
// # Slow clients
//
// Each connection has a goroutine, which reads a request, passes it to the handler and writes the
// answer, so no client waits for another. A client that does not fetch its answers fills its
// ring: the write is retried a few times a second, and after Config.SlowLimit the client is dropped.
package qb
