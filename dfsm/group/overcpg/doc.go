// Package overcpg is the group.Transport of the daemon: corosync's closed
// process groups, through package corosync/cpg.
package overcpg
