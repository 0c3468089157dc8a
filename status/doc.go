// Package status is what a node knows of itself and the cluster beside the
// configuration tree: the versions of the files that clients watch, the VM list
// and the members, each rendered as the special file of that name. Nothing of it
// is stored.
package status
