// Package look runs the commands by which people look at a node, on the hosts of
// a lab with real daemons and corosync: on nodes that are well, cut off, started by
// half, and broken. What they write is compared with frozen outputs, times and
// numbers aside.
package look
