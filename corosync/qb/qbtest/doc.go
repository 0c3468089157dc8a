// Package qbtest gives tests a peer for libqb services that is written in C
// against libqb's own client and server API, runs in a process of its own, and so can
// have any user id, be stopped or killed at any point, and send what no
// well-behaved client would.
package qbtest
