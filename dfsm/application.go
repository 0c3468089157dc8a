package dfsm

import (
	"errors"

	"pmxcfs/dfsm/wire"
)

var (
	// ErrFatal marks an application's error after which the node must stay
	// out of the group until the daemon is started anew.
	ErrFatal = errors.New("dfsm: serious internal error")
	// ErrDisconnected is the Reply to waiters when the connection or the
	// membership is lost, or submits without one. The message's fate is
	// unknown: it may still be applied everywhere.
	ErrDisconnected = errors.New("dfsm: not connected to the group")
)

// Message is a normal message, as it is queued and applied. Payload is the receiver's to
// keep but not to change.
type Message struct {
	From    Member
	Subtype uint16
	Time    uint32 // seconds since 1970, the sender's clock
	Count   uint64 // the sender's counter
	Own     bool   // this node sent it
	Payload []byte
}

// size is the message's size on the wire.
func (m *Message) size() int { return wire.NormalHeaderSize + len(m.Payload) }

// Result is what a message's sender is told: what the application gives it, or why the
// change was not made.
type Result struct {
	Value any
	Err   error
}

// MemberState is one member's state in a sync. State is not to be changed.
type MemberState struct {
	Member Member
	Self   bool
	State  []byte
}

// Sync is an application's conclusion from all states.
type Sync struct {
	// Synced tells for each state, in their order, whether its member needs
	// no update. A short slice counts as false for the rest.
	Synced []bool
	// Leader means that this node sends the entries that others lack: everything of
	// Updates and then, in any case, update-complete.
	Leader bool
	// Updates are the payloads to send; nil means none.
	Updates Updates
}

// Updates is a sequence of update payloads, made while they are sent. It must
// give what was true when ProcessStates returned it, whatever is applied
// afterwards, and outlives Cleanup: the driver drops it when it is through or
// of no use any more.
type Updates interface {
	// Next returns the next payload, which is valid until the call after it,
	// and false when there are no more.
	Next() (payload []byte, ok bool)
}

// Application is the state that the machine keeps equal on all nodes. All its methods
// are called by one goroutine, none while another one runs; what takes long in
// them holds up the whole group's business here. The errors' meaning is that of
// the event Applied.
type Application interface {
	// Apply makes the changes of a batch, in order, in one transaction if it
	// has such. Callers that wait for one get its result when Apply returns:
	// by then it is stored, or the result says how to wait for that.
	Apply(batch []Message) Applied
	// State returns the present state; the bytes are the machine's.
	State() ([]byte, error)
	// ProcessStates decides which members are synced and what this node sends to the others.
	ProcessStates(states []MemberState) (Sync, error)
	// ApplyUpdates takes in updates for Commit. The slices are the
	// application's to keep, not to change.
	ApplyUpdates(payloads [][]byte) error
	// Commit puts the updates into effect; afterwards the state is the
	// leader's.
	Commit() error
	// Cleanup forgets whatever ProcessStates and ApplyUpdates collected.
	Cleanup()
	// Checksum fixes the present content and returns a function that
	// computes its checksum; that one alone may run in another goroutine,
	// beside the methods. It is not called if the machine's Config says no
	// Checksums.
	Checksum() func() ([wire.ChecksumSize]byte, error)
	// ViewChanged tells the members, sorted by node id, then pid.
	ViewChanged(members []Member)
	// ModeChanged tells the machine's mode; ModeSynced means that the state
	// is the group's.
	ModeChanged(mode Mode)
}

// Perform carries out an action if it is the application's, and returns the
// answer to step, if it has one. It reports false for the actions that are the
// driver's own: Send, SendUpdates, DropSends, Reply, Leave, Log, and Checksum,
// whose computing the driver may want elsewhere.
func Perform(app Application, a Action) (answer Event, handled bool) {
	switch a := a.(type) {
	case Apply:
		return app.Apply(a.Batch), true
	case TakeState:
		state, err := app.State()
		return StateTaken{State: state, Err: err}, true
	case ProcessStates:
		sync, err := app.ProcessStates(a.States)
		return StatesProcessed{Sync: sync, Err: err}, true
	case ApplyUpdates:
		return UpdatesApplied{Err: app.ApplyUpdates(a.Payloads)}, true
	case Commit:
		return Committed{Err: app.Commit()}, true
	case Cleanup:
		app.Cleanup()
		return nil, true
	case ViewChanged:
		app.ViewChanged(a.Members)
		return nil, true
	case ModeChanged:
		app.ModeChanged(a.Mode)
		return nil, true
	}
	return nil, false
}
