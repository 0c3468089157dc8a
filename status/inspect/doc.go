// Package inspect answers what a running daemon knows about itself and its
// cluster: JSON documents over HTTP, below /v1/ on the daemon's own Unix socket,
// which only root may open. The commands pmxcfs status, log, locks, compare,
// doctor and report are its clients; the documents' types are in this package, for
// both sides.
//
// Looking must not be felt. No document takes a lock that a writer waits for
// longer than it takes to copy a list; nothing is computed before somebody asks;
// and every list in a document is bounded, by the tree's own limits at least.
//
// Package peers, below, asks the other nodes.
package inspect
