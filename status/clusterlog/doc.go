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
// Packing an entry converts its text to ASCII and escapes most of what JSON forbids
// (ascii.go), as other nodes expect. Dumping the log escapes the rest (dump.go), so the dump is
// valid JSON for any input of a node or a user.
//
// The package does no I/O and does not log; callers log the errors they get.
package clusterlog
