// Package status is what a node knows of itself and the cluster beside the
// configuration tree: the versions of the files that clients watch, the VM list,
// the members, each node's key/value pairs, the cluster log and the newest RRD
// samples; each rendered as the special file of that name. Nothing of it is
// stored, RRD files aside.
//
// The nodes share it through the process group pve_kvstore_v1, whose application
// App is. That group has no common state but the cluster log: a node's values are
// its own, it sets them at once and then tells the others, and tells them again
// after each synchronisation. So everybody counts as synced at once, and what a
// node missed while it was away reaches it with the next membership change.
//
// What is polled is kept rendered until something changes. No I/O happens here:
// messages are handed to the group's driver, samples to a writer with a queue of
// its own.
package status
