// Package health says in one struct how a node is: whether it runs alone or in a
// cluster, whether it is mounted, quorate and in step with the others, and if it
// can't be used, why and what to do. Whoever tells somebody of the node's state (the
// HTTP service, systemd's status line, the commands for people) tells it from here,
// so that all of them say the same.
//
// A Node is a snapshot that the caller fills; to judge it is a pure function.
// Liveness is the other question: not whether the node can be used, but whether the
// daemon's own loops turn. It is answered by checks with a bounded wait.
package health
