// Package health describes the state of a node in one struct: whether it runs alone or in
// a cluster, whether it is mounted, quorate and in step with the others, and if it is not
// ready, why and what to do. The HTTP service, systemd's status line and the commands
// all report from here, so they say the same.
//
// A Node is a snapshot that the caller fills; a pure function judges it. Liveness is a
// separate question: not whether the node can be used, but whether the daemon's own
// loops make progress. Checks with a bounded wait answer it.
package health
