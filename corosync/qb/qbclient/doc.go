// Package qbclient binds libqb's IPC client (qbipcc.h), with which Proxmox's programs call a
// service. It is for tests and measurements: the daemon calls nobody this way.
package qbclient
