// Package watch has a real Prometheus watch a real cluster: the daemons run on hosts
// with a corosync (contrib/lab), Prometheus on one of them, with the rules and alerts
// of contrib/prometheus. What it has recorded must agree with what the test did, and the
// alerts must fire and clear as nodes are cut off, killed and come back.
//
// Only the alerts' waiting times are shortened; expressions are as they are shipped.
package watch
