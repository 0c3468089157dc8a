// Package follow follows corosync for a daemon: whether the node has quorum, the members
// and their addresses from corosync's map, and the host's copy of corosync.conf.
//
// Each of them is a Worker with a connection of its own, which is made again whenever
// corosync comes back. Corosync's libraries wait for a corosync that is stopped without any
// limit, so Close leaves a goroutine behind rather than wait for it.
package follow
