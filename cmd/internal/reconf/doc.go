// Package reconf changes a living cluster's corosync.conf so that a mistake doesn't cost
// the cluster.
//
// Before the change each node gets a pledge: the present text, the new one's version, and
// a deadline. A guard on each node, a process that outlives the one that makes the change,
// waits for the word that the change is good, which is a file in the tree. If it
// doesn't come in time, or the node has no quorum for a while, the guard puts the
// present text back: through the tree, with a higher version, where there is quorum; and
// else first into the host's own file. Nothing of that needs the node that made the change.
package reconf
