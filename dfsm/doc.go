// Package dfsm is the state machine that keeps a group of nodes alike: the
// DFSM protocol over one totally ordered stream of messages and membership
// changes (a corosync closed process group).
//
// A Machine only decides. What happened comes in through Step as an Event:
// a view, a delivery, the time, a local submission, an answer of the
// application. What is to be done comes out of Actions, in the order in which
// it must be done: bytes to send, a batch for the application, a reply to a
// local caller, leaving the group. There is no clock, goroutine, lock, random
// number or map order in here: the same events give the same actions, which
// is what lets the simulation run a hundred thousand histories and replay any
// of them from its seed.
//
// One action at a time waits for an answer; events stepped meanwhile wait
// inside the machine in their order. Perform carries out the actions that are
// the application's; the driver (package dfsm/group, or the simulated one)
// has only the sending, the replying and the leaving to do itself.
package dfsm
