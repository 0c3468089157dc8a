// Package dcdb is the configuration database: the tree of package memdb, kept in
// a file by package sqlite and changed through a store that returns once a change
// is done.
//
// # From a change to the file
//
// A change is applied to the tree at once and joins the batch that will be the
// next transaction (group commit). While no transaction runs, the first waiter
// becomes the leader and commits the batch on its own goroutine, so a lone caller
// never waits for another goroutine to wake up. Changes that arrive while a
// transaction runs gather in the next batch, and one of their waiters becomes its
// leader. Batches grow with the load, and no timer delays a caller.
//
// Changes that could not be stored are not shown: when a transaction fails, its
// changes and those made on top of them are rolled back, and every caller that
// waits for them, or asks later, gets the error.
//
// # In a cluster
//
// A Cluster is the store of a node in a cluster. It sends a change to the group
// pve_dcdb_v1 and waits for it to come back in its place in the one order that
// all nodes share (package dfsm and its driver, group); every node applies what
// is delivered, and answers its own callers once that is stored. Changes without
// a waiter on this node (other nodes' changes, and own writes in the middle of a stream)
// join the next transaction, which begins at most 50 ms later: storing each of them
// at once would triple the work of a cluster of three, and a file written in 128
// pieces would be 128 rows. If a node is killed meanwhile, it gets those changes from
// the others again. So for 50 ms an acknowledged change may be in its own node's file
// only. It is lost if that file is lost for good and all other daemons are killed within
// that time; it is safe while one daemon that has applied it runs.
//
// Decisions that depend on the tree are made at delivery, by the same rules on all
// nodes. A change is refused before it is sent only if the refusal is certain, or if
// a peer could not process it.
//
// A synchronisation brings a node that was away up to date. The nodes compare indexes of
// their trees; the one with the greatest version is the leader and sends the entries that
// others lack. A node that is behind builds the new tree beside the old one, compares it with the leader's
// index, stores it in one transaction, and only then shows it: readers never wait.
//
// A node whose database fails returns to the state of its file and leaves the group; it
// retries the file until that can be written, and joins again. A node that cannot build
// the leader's tree from the leader's updates stays out until it is restarted.
package dcdb
