// Package ipc serves pve2, the libqb service through which Proxmox's tools and
// daemons ask for what changes often or must not be read through the mount: versions, the
// VM list, status values, the cluster log, guests' properties.
//
// A request is decoded by a pure function of its bytes (request.go), checked against the
// client's access, and answered from sources that this package declares
// (sources.go) and others implement.
//
// A decoded request has been checked for everything that its bytes can show. Sources never
// see a length, a NUL or a path that a client made up.
package ipc
