// Package record is what the commands history, snapshot and watch do: they read the history of
// the tree, show it, and bring back what was there.
//
// Reading needs no daemon. What changes the tree goes through the mount, as anybody's
// change does: it is replicated, refused without quorum, and recorded itself.
package record
