// Package metrics tells Prometheus what the daemon does. It alone uses
// client_golang.
//
// There are two kinds of metrics. How long things take is observed where they happen:
// the packages concerned know a small interface of their own, which an observer of this
// package satisfies, and call it. Everything else those packages count anyway: at a scrape
// a Collector reads their counters, which are atomics, so that a scrape takes no lock
// that a writer could wait for, and looks at nothing whose size depends on the tree.
//
// Labels take few values, all known beforehand, but for the names of the cluster's nodes;
// never a path, a VMID or a user. docs/metrics.md describes each metric; a test compares
// it with what a daemon really gives.
package metrics
