// Package memdb is the configuration tree: every directory and file below
// /etc/pve, held in memory, with the operations that change it, the guests'
// VM list, the cluster-wide locks, and the digests by which nodes compare
// their trees.
//
// The package does no I/O and has no clock: an operation carries its writer and
// its time, and returns the exact changes that it made. From those a caller
// stores rows, invalidates the kernel's caches, or rolls the changes back. The same
// sequence of operations gives the same tree on every node, errors included;
// replication rests on that.
//
// Deciding and doing are separate: rules.go decides whether an operation is
// allowed, in the order of checks that the protocol prescribes, and changes
// nothing; effect.go carries out an allowed operation and can't fail. A refused
// operation therefore leaves no trace, and a caller can predict a refusal.
//
// Published state never changes. An Entry is one published state of a file or
// directory; a change publishes a new one. Reading a file therefore takes a pointer
// and a slice, not a copy, and holds the tree's lock for a lookup only.
package memdb
