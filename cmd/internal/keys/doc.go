// Package keys makes and keeps what nodes of a cluster trust each other by: the cluster's
// certificate authority and the nodes' certificates, and ssh's keys and known hosts.
//
// certificate.go and ssh.go decide and make, from bytes to bytes; update.go is what
// "pvecm updatecerts" does on a host with them.
package keys
