// Package qbclient binds libqb's IPC client (qbipcc.h), with which Proxmox's programs call a
// service. pvecm writes to the cluster log with it; the
// rest is tests and measurements. The daemon itself calls nobody this way.
package qbclient
