// Package dfsm is the state machine that keeps the nodes of a group in the same state: the
// DFSM protocol over one totally ordered stream of messages and membership
// changes (a corosync closed process group).
//
// A Machine only decides. Step takes an Event: a view, a delivery, the time, a
// local submission, an answer of the application. Actions returns the actions in the
// order in which they must be carried out: bytes to send, a batch for the application, a reply
// to a local caller, leaving the group. The package has no clock, goroutine, lock, random
// number or map order: the same events give the same actions, so the simulation can run
// a hundred thousand histories and replay any of them from its seed.
//
// One action at a time waits for an answer; events that arrive meanwhile are queued
// inside the machine. Perform carries out the application's actions; the driver (package
// dfsm/group, or the simulated one) only sends, replies and leaves.
package dfsm
