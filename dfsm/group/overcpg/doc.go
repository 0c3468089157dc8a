// Package overcpg is the transport of the daemon: corosync's closed
// process groups, through package corosync/cpg.
package overcpg
