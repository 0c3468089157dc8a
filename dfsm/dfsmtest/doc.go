// Package dfsmtest simulates a process group, for tests of package dfsm and of
// the applications that are driven by it.
//
// A Cluster is a set of hosts on a network that can be cut. The hosts that
// reach each other form a ring; a ring has one total order of messages and
// membership changes, and every member of the group gets it at its own pace. A
// ring's end cuts that order at any point, and what a member had not yet got
// into the order leaves in a later view than it was sent in: everything that
// corosync's closed process groups do, at the pace of a pseudorandom number
// generator.
//
// Three ways to use it: Scenario runs readable command files, Random runs a
// history from a seed and checks what must hold in all of them, and Replay
// feeds a machine with one recorded node's events and compares what it sends.
package dfsmtest
