// Package diagnosis implements the commands for troubleshooting: pmxcfs status, log, locks,
// compare, doctor and report. It gathers facts from the running daemon (status/inspect),
// the host and corosync, so that it has an answer even when the daemon, corosync or both
// are down. Pure functions judge the facts; separate code writes the result, for people
// or as JSON.
//
// Every query that can hang (a mount without a daemon, a stopped corosync) has a time
// limit. A hanging query is left behind, since the process ends soon.
package diagnosis
