// Package ipc serves pve2, the libqb service for Proxmox's tools and daemons. They ask it
// for data that changes often or must not be read through the mount: versions, the VM
// list, status values, the cluster log, guests' properties.
//
// A request is decoded by a pure function of its bytes (request.go), checked against the
// client's access, and answered from the tree and the status store. Neither waits for a
// writer or for another node.
//
// Decoding checks lengths, NULs and paths; the store checks values.
package ipc
