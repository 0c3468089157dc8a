// Package web is the daemon's HTTP server: one listener on TCP, for monitoring, with TLS
// and passwords if a file says so (the format of Prometheus' own exporters), and one on
// a Unix socket that only root, or whoever runs the daemon, can open.
//
// It knows nothing of what is served. It is built so that nothing that happens to it
// concerns the daemon: an address that is taken, or not there yet, is logged and tried
// again; what a client may cost is bounded in connections, time and bytes.
package web
