// Package clusterlog keeps the cluster log: the last few thousand messages of
// all nodes, in a ring buffer of 131,072 bytes.
//
// The ring is kept in its binary form, because that form is the state which
// the members of the process group pve_kvstore_v1 exchange when they
// synchronise; every member then merges what it got into the same ring. Single
// entries travel as normal messages in the same layout (layout.go).
//
// Nothing that comes from a peer is trusted. An entry or a ring is checked as a
// whole before any of it is used: [ParseEntry] and [ParseRing] either refuse it
// with an error that wraps [ErrEntry] or [ErrRing], or give entries whose
// accessors cannot go out of bounds. Our own ring is only ever written by this
// package, from entries that passed these checks.
//
// The text of a message is made ASCII and nearly fit for JSON when the entry is
// packed (ascii.go), for that is what other nodes expect to receive. What is
// still missing is made good when the log is dumped (dump.go), so that the dump
// is valid JSON whatever a node or a user has sent.
//
// The package does no I/O and does not log; callers log the errors they get.
package clusterlog
