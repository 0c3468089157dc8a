// Package memdb is the configuration tree: every directory and file below
// /etc/pve, held in memory, with the operations that change it, the guests'
// VM list, the cluster-wide locks, and the digests by which nodes compare
// their trees.
//
// The package does no I/O and knows no clock: an operation carries its writer
// and its time, and answers with the exact changes that it made. From those a
// caller stores rows, tells the kernel what to forget, or takes the changes
// back again. The same sequence of operations gives the same tree on every
// node, errors included; that is what replication rests on.
//
// Deciding and doing are apart: rules.go says for each operation whether it is
// allowed, in the order of checks that the protocol prescribes, and changes
// nothing; effect.go carries out what was allowed and can't fail. So a refused
// operation leaves no trace, and a refusal can be foretold.
//
// What readers are given never changes under them. An Entry is one published
// state of a file or directory; a change publishes a new one. Reading a file is
// therefore a pointer and a slice, not a copy, and takes the tree's lock for a
// lookup only.
package memdb
