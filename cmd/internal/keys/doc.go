// Package keys makes and maintains the keys by which the nodes of a cluster trust each other: the
// cluster's certificate authority, the nodes' certificates, ssh's keys and known hosts.
//
// certificate.go and ssh.go are pure functions from bytes to bytes; update.go applies them to a
// host for "pvecm updatecerts".
package keys
