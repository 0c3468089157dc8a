// Package metrics exports the daemon's metrics to Prometheus. It alone uses
// client_golang.
//
// There are two kinds of metrics. Durations are observed where they occur: each package
// declares a small interface, its Observer, which a type of this package implements
// (observers.go). Everything else is a counter that its package keeps anyway as an atomic. At a
// scrape a Collector (collector.go) reads those counters through Sources (sources.go), so a scrape
// takes no lock that a writer could wait for, and its cost does not grow with the tree.
//
// Labels take few values, all known in advance except for the names of the cluster's nodes;
// never a path, a VMID or a user. docs/metrics.md describes each metric; a test compares
// it with the output of a daemon.
package metrics
