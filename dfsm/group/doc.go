// Package group drives a dfsm.Machine over a connection to a process group:
// it joins, dispatches, sends, leaves and comes back, and lets any number of
// goroutines submit messages and wait for what became of them.
//
// One goroutine, Run's, receives. It takes what one dispatch brought as one batch,
// so the application makes the changes of a batch in one transaction, and wakes
// those who wait for them when Apply has returned.
//
// A message leaves by whoever submits it, if the group is at rest: machine and
// connection belong to who holds a lock, which Run lets go of only while it waits for
// events. Who doesn't get the lock leaves the message in a list, which the holder
// looks through again when it has let go. So sending waits for nobody to wake up, and
// messages leave in the order of their counts. Sending does not block a caller: when the
// group's queues are full, or nothing comes back, messages stay here for Run to try
// again a moment later, while deliveries go on; that is what empties the queues.
// Whoever calls Submit, Post or Call may hold locks of its own, but none that
// ModeChanged or Cleanup take: they may be called from within.
package group
