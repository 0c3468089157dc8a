// Package group drives a dfsm.Machine over a connection to a process group:
// it joins, dispatches, sends, leaves and comes back, and lets any number of
// goroutines submit messages and wait for what became of them.
//
// One goroutine, Run's, owns the connection, the machine and the application.
// It takes what one dispatch brought as one batch, so the application makes
// the changes of a batch in one transaction, and wakes those who wait for them
// when Apply has returned, that is, when they are stored. Sending never waits:
// when the group's queues are full, the messages stay here and are tried again
// a moment later, while deliveries go on; that is what empties the queues.
//
// Everything else (callers, applications' checksums) reaches that goroutine
// through one list under a mutex and a wake-up of the transport.
package group
