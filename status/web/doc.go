// Package web is the daemon's HTTP server: one listener on TCP, for monitoring, with TLS
// and passwords if a file asks for them (in the format of Prometheus' own exporters), and one
// on a Unix socket that only root, or the user of the daemon, can open.
//
// It doesn't know the handlers that it serves. No trouble of the server affects the daemon: an address
// that is in use, or not there yet, is logged and retried; a client's connections,
// time and bytes are bounded.
package web
