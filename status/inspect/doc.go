// Package inspect serves a running daemon's knowledge about itself and its
// cluster: JSON documents over HTTP, below /v1/ on the daemon's own Unix socket,
// which only root may open. The commands pmxcfs status, log, locks, compare,
// doctor and report are its clients; the documents' types are in this package, for
// both sides.
//
// Inspection must not slow the daemon down. No document holds a lock that writers need for
// longer than copying a list takes; nothing is computed before a client asks; every
// list in a document is bounded, at least by the tree's own limits.
//
// Package peers, below, asks the other nodes.
package inspect
