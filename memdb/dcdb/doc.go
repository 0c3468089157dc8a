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
package dcdb
