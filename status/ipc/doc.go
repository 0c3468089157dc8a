// Package ipc serves pve2, the libqb service for Proxmox's tools and daemons. They ask it
// for data that changes often or must not be read through the mount: versions, the VM
// list, status values, the cluster log, guests' properties.
//
// A request is decoded by a pure function of its bytes (request.go), checked against the
// client's access, and answered from sources that this package declares
// (sources.go) and others implement.
//
// Decoding makes all checks that need only the request's bytes. Sources never see a
// length, a NUL or a path that a client made up.
package ipc
