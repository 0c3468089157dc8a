// Package wire frames the messages that the members of a process group
// exchange under the DFSM protocol: a fixed header, little-endian throughout,
// and a payload that belongs to the application or, for verification, to the
// protocol itself.
//
// The layout is the stock daemon's, byte for byte; the constants here and the
// frozen recordings in testdata are what holds it in place. Nothing in this
// package keeps state, and no input makes a decoder panic or allocate: what is
// decoded points into the caller's bytes.
package wire
