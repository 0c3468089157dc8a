// Package prometheus is what a Prometheus needs to watch a cluster: an example of a scrape
// configuration, recording rules, and alerts with tests of their own, which run
// with
//
//	promtool test rules pmxcfs-alerts.test.yml
//
// The tests here run those, check that the rules ask for metrics that exist, and have a
// real Prometheus watch a real cluster through partition, kill and synchronisation.
package prometheus
