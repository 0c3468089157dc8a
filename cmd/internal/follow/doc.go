// Package follow tracks corosync's state for the daemon: quorum, the members and their
// addresses from corosync's map (cmap), and the host's copy of corosync.conf.
//
// Each of them has a Worker with a connection of its own, which reconnects whenever corosync
// comes back. Corosync's libraries wait without limit for a corosync that is stopped (SIGSTOP), so
// Close leaves a goroutine behind instead of waiting.
package follow
