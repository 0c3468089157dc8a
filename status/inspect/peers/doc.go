// Package peers has the daemons of a cluster tell each other how they are, and
// compare their trees.
//
// It uses a process group of its own, pmxcfs_inspect_v2, which only these daemons
// join: the groups that a stock daemon is in see nothing of it, and a stock daemon
// shows by its absence. Whatever happens in this group, the daemon goes on without
// it: no call of another package waits for it.
//
// Every member tells its state when somebody comes, when its database has changed
// (at most once a second), and every 10 s. A comparison is a row of questions that
// all members answer to all: first for the digest of the index of the tree, in one
// state that all pass through; if those differ, for the digests of ranges of
// inodes, then for the entries of ranges that differ, and last for what those
// entries are. So equal trees cost one small message each, and one differing entry
// of 262,144 some tens of kilobytes.
//
// Members are not trusted: what they send is bounded in size, number and rate, and
// what they ask for costs a bounded amount of work and memory.
package peers
