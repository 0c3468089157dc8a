package dfsm

import (
	"log/slog"

	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/event"
)

// Action is something to be done. The types below are all there are. Actions
// are carried out in order; Apply, TakeState, ProcessStates, ApplyUpdates and
// Commit want their answer stepped before anything else is (the machine keeps
// what comes earlier waiting).
type Action interface{ action() }

type (
	// Send asks to multicast Bytes to the group, agreed ordering. Sends of
	// normal messages leave in their order among themselves, so do all others
	// and SendUpdates among themselves; a normal message may overtake another
	// kind, so that writers need not wait behind a long sync.
	Send struct {
		Bytes  []byte
		Normal bool
	}

	// SendUpdates asks to multicast one update message for each payload of
	// Source, and then Complete. The driver pulls the payloads as fast as the
	// group takes them; Frame makes the messages.
	SendUpdates struct {
		Source   Updates // nil means none
		Complete []byte
		header   wire.Message
	}

	// DropSends says that Sends which are not Normal, and SendUpdates, that
	// have not left yet are of no use any more: every receiver would ignore
	// them.
	DropSends struct{}

	// Apply asks the application to make the changes of a batch of normal
	// messages, in order. Answer: Applied.
	Apply struct{ Batch []Message }

	// TakeState asks the application for its state at this very point of the
	// stream. Answer: StateTaken.
	TakeState struct{}

	// ProcessStates hands all members' states to the application, sorted by
	// member. Answer: StatesProcessed.
	ProcessStates struct{ States []MemberState }

	// ApplyUpdates hands payloads of update messages to the application.
	// Answer: UpdatesApplied.
	ApplyUpdates struct{ Payloads [][]byte }

	// Commit says that all updates have been handed over. Answer: Committed.
	Commit struct{}

	// Cleanup says that the sync under way is over or has been overtaken: the
	// application forgets what it collected for it.
	Cleanup struct{}

	// Checksum asks for the application's checksum at this very point of the
	// stream. Answer: ChecksumDone with the same ID and Epoch, at leisure.
	Checksum struct {
		ID    uint64
		Epoch wire.Epoch
	}

	// ViewChanged tells the application the members, sorted; the slice is the
	// receiver's.
	ViewChanged struct{ Members []Member }

	// ModeChanged tells that the mode is another one now.
	ModeChanged struct{ Mode Mode }

	// Reply tells a local submitter how its message fared: the application's
	// result, or ErrDisconnected.
	Reply struct {
		ID uint64
		Result
	}

	// Leave asks to leave the group; step Restart when that is done. Unless
	// Final, join again, at most every few seconds.
	Leave struct{ Final bool }

	// Log is a line for the log: what it is about for programs, if anything, and
	// what they may want to know of it.
	Log struct {
		Level  slog.Level
		Text   string
		Event  event.Event
		Fields []any // as event.Attr takes them
	}
)

func (Send) action()          {}
func (SendUpdates) action()   {}
func (DropSends) action()     {}
func (Apply) action()         {}
func (TakeState) action()     {}
func (ProcessStates) action() {}
func (ApplyUpdates) action()  {}
func (Commit) action()        {}
func (Cleanup) action()       {}
func (Checksum) action()      {}
func (ViewChanged) action()   {}
func (ModeChanged) action()   {}
func (Reply) action()         {}
func (Leave) action()         {}
func (Log) action()           {}

// Frame returns the update message with this payload, in bytes of its own.
func (s SendUpdates) Frame(payload []byte) []byte {
	m := s.header
	m.Payload = payload
	return m.Encode()
}
