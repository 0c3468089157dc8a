// Package cluster holds tests of pvecm on real hosts: namespaces of contrib/lab with a
// corosync, an sshd and the programs under test each, and a stand-in for systemctl that
// starts and stops them. A host begins as a fresh Debian with the package installed is:
// the daemon in local mode, no cluster.
package cluster
