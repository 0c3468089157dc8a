// Package group drives a dfsm.Machine over a connection to a process group:
// it joins, dispatches, sends, leaves and rejoins, and lets any number of
// goroutines submit messages and wait for their results.
//
// One goroutine, Run's, receives. The messages of one dispatch are one batch, so the
// application can apply them in one transaction; waiters are woken once Apply has
// returned.
//
// If the group is at rest, the caller that submits a message sends it itself. A lock
// guards machine and connection; Run releases it only while it waits for events. A
// caller that doesn't get the lock leaves its message in a list, and the holder
// checks the list again after releasing the lock. So sending needs no other goroutine to wake
// up, and messages leave in the order of their counts. Sending does not block a
// caller: when the group's queues are full, or nothing comes back, messages stay here
// and Run retries a moment later, while deliveries go on and empty the queues.
// Callers of Begin, Post and Call may hold locks of their own, but none that
// ModeChanged or Cleanup take, which may be called from within.
package group
