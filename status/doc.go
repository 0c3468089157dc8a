// Package status holds a node's knowledge of itself and the cluster beside the
// configuration tree: the versions of watched files, the VM list, the members, each
// node's key/value pairs, the cluster log and the newest RRD samples. Each is rendered
// as the special file of that name (version.go, vmlist.go, members.go,
// logbook.go). Nothing of it is stored, except for RRD files.
//
// The nodes share it through the process group pve_kvstore_v1, whose application is
// App. The cluster log is that group's only common state: a node's values are its own.
// It sets them locally, broadcasts them, and broadcasts them again after each
// synchronisation. So every member counts as synced at once, and a node that was away
// gets the values that it missed with the next membership change.
//
// Polled documents are kept rendered until something changes. The package does no I/O:
// messages go to the group's driver, samples to a writer with its own queue.
package status
