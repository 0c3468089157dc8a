// Package cluster runs the daemon on the hosts of a lab (contrib/lab), each with a
// corosync of its own, and tells from the daemons' logs when they have found each
// other and when one has caught up.
package cluster
