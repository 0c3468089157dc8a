// Package diagnosis is behind the commands by which people look at a node: pmxcfs
// status, log, locks, compare, doctor and report. It asks the running daemon
// (status/inspect), and what it can see itself of the host and of corosync, so that
// it has an answer too when the daemon, corosync or both are down. What it finds is
// judged by functions that only look at what was gathered; how it is written, for
// people or as JSON, is separate again.
//
// Everything that can hang, a mount without a daemon or a corosync that is stopped,
// is asked with a time limit; what hangs is left behind, since the process ends
// soon.
package diagnosis
