// Package dcdb is the configuration database as its users see it: the tree of
// package memdb, kept in a file by package sqlite, changed through a store that
// answers when a change is done.
//
// # From a change to the file
//
// A change is applied to the tree at once and joins the batch that will be the
// next transaction. Whoever waits for its batch while no transaction runs
// carries the transaction out itself, on its own goroutine: alone, a caller
// never waits for another goroutine to wake. Whatever is applied while a
// transaction runs gathers in the next batch, and one of its waiters is told to
// carry that out. So a batch is as large as the load makes it, and no timer
// delays anyone.
//
// What was not stored is not shown: when a transaction fails, its changes and
// those made on top of them are taken back from the tree, and everybody who
// waits for them, or asks later, gets the error.
//
// # In a cluster
//
// A Cluster is the store of a node in a cluster. It sends a change to the group
// pve_dcdb_v1 and waits for it to come back in its place in the one order that
// all nodes share (package dfsm and its driver, group); every node applies what
// is delivered, and answers its own callers when that is stored. What nobody here
// waits for, other nodes' changes and own writes that their callers do not wait
// for, joins the next transaction, which begins at most 50 ms later: three nodes that store each
// change at once cost three times what one does, and a file written in 128 pieces
// is 128 rows. A node that is killed meanwhile gets those changes from the others
// again. So for that long an acknowledged change may be in the file of its own node
// only: should that be lost for good and all others be killed in the same moment,
// it is lost. As long as one daemon that has applied it runs, it is not. What depends on the tree is decided at the delivery, by the same
// rules on all nodes. Only what is certain, or what a peer could not digest, is
// refused before.
//
// A node that was away is brought up to date by a synchronisation: the states
// that are compared are indexes of the trees, the leader is the one with the
// greatest version, and it sends the entries that others lack. The new tree is
// built beside the old one, compared with the leader's index, stored in one
// transaction, and only then shown: readers never wait.
//
// A node whose database fails goes back to what its file holds and leaves the
// group; it tries the file until that can be written, and joins again. A node
// that cannot make the leader's tree of the leader's updates stays out until it
// is restarted.
package dcdb
