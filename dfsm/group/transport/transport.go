// Package transport is what a process group's members need of the service that carries
// its messages: package overcpg has corosync's, package grouptest one in memory.
package transport

import (
	"errors"
	"time"

	"pmxcfs/dfsm"
)

// Event is a delivered message or, if View is not nil, a membership change.
type Event struct {
	dfsm.Deliver
	View *dfsm.View
}

// Conn is one connection to the process groups' service, for one group. It is called
// by one goroutine at a time, but for Wake and Mcast, which others may call while one is
// in Next.
type Conn interface {
	// Self is this process as a member.
	Self() (dfsm.Member, error)
	// Join and Leave ask for membership, or its end; a view tells when. They
	// fail with ErrTryAgain if they shall be called again in a moment.
	Join() error
	Leave() error
	// Mcast sends a message to all members, this one too, in agreed order. It
	// fails with ErrTryAgain if the queues are full. It does not keep msg.
	Mcast(msg []byte) error
	// Next waits until there are events, a Wake, or the timeout is over (0:
	// does not wait), and appends the events that are there to into. It may
	// return events along with an error.
	Next(into []Event, timeout time.Duration) ([]Event, error)
	// Wake makes a Next that waits, or else the next one, return at once. It
	// does not block.
	Wake()
	// Close disconnects, and by that leaves.
	Close() error
}

// ErrTryAgain is the error of a Conn that cannot do it just now. With any
// other error the connection counts as lost.
var ErrTryAgain = errors.New("group: try again")
