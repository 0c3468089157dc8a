package group

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

// Transport is one connection to the process groups' service, for one group.
// Run calls it, but for Wake, and for Mcast, which callers call while Run is in Next:
// one call at a time but for those two beside a Next.
type Transport interface {
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

// ErrTryAgain is the error of a Transport that cannot do it just now. With any
// other error the connection counts as lost.
var ErrTryAgain = errors.New("group: try again")

// Errors of a Submission. After each of them but ErrWithdrawn it is unknown whether
// the message is or will be applied.
var (
	// ErrTimeout: the context's deadline was over first.
	ErrTimeout = errors.New("group: no delivery in time")
	// ErrInterrupted: the context was cancelled first.
	ErrInterrupted = errors.New("group: interrupted")
	// ErrWithdrawn accompanies ErrTimeout or ErrInterrupted when the message
	// had not been sent, and will not be.
	ErrWithdrawn = errors.New("group: not sent")
)
