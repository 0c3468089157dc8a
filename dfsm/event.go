package dfsm

import "pmxcfs/dfsm/wire"

// Event is something that happened. The types below are all there are.
//
// A driver steps what one dispatch of the process group brought, in its
// order, then EndOfBatch; and the answer to an action as soon as it has it.
type Event interface{ event() }

type (
	// Tick tells the time. Step one before the first other event and then
	// whenever the second has changed: it stamps what is sent and starts the
	// hourly verification.
	Tick struct {
		Now uint32 // seconds since 1970
	}

	// View is a membership change (a CPG configuration change): from here on
	// the group has these members. The machine sorts a copy. Joined says
	// whether the change's joined list had anyone in it.
	View struct {
		Members []Member
		Joined  bool
	}

	// Deliver is a message of the group, our own included. The machine and
	// the application keep referring to Bytes: the driver must not change
	// them afterwards.
	Deliver struct {
		From  Member
		Bytes []byte
	}

	// EndOfBatch says that no further delivery is at hand: what has been
	// collected for the application goes to it now.
	EndOfBatch struct{}

	// Submit asks to send a normal message. The Reply with the same ID comes
	// when it has been delivered and applied here, or cannot be expected any
	// more. IDs are the driver's and never reused; 0 means no waiter and no Reply.
	// Payload is copied.
	Submit struct {
		ID      uint64
		Subtype uint16
		Payload []byte
	}

	// Restart is a new initialisation: the connection to corosync was lost or
	// made anew, or the group was left. Waiters get ErrDisconnected,
	// the queues are forgotten, and unless the mode is final the next View
	// that has us in it begins again.
	Restart struct{}

	// Applied answers Apply. Done is how many messages of the batch, from its
	// beginning, have taken effect (with whatever result); Results[i] is what
	// the sender of message i is told; nil Results are zero ones for all. A
	// non-nil Err says that the node cannot go on: it leaves the group, for
	// good if the error wraps ErrFatal. With a nil Err all are done.
	Applied struct {
		Done    int
		Results []Result
		Err     error
	}

	// StateTaken answers TakeState with the application's state. Err as in
	// Applied.
	StateTaken struct {
		State []byte
		Err   error
	}

	// StatesProcessed answers ProcessStates. Err as in Applied.
	StatesProcessed struct {
		Sync
		Err error
	}

	// UpdatesApplied answers ApplyUpdates. Err as in Applied.
	UpdatesApplied struct{ Err error }

	// Committed answers Commit. Err as in Applied.
	Committed struct{ Err error }

	// Failed says that the application can't go on, by its own account between
	// its methods. Err as in Applied.
	Failed struct{ Err error }

	// ChecksumDone answers Checksum, at any later time: ID and Epoch are the
	// action's. With a non-nil Err this node takes no part in the
	// verification.
	ChecksumDone struct {
		ID    uint64
		Epoch wire.Epoch
		Sum   [wire.ChecksumSize]byte
		Err   error
	}
)

func (Tick) event()            {}
func (View) event()            {}
func (Deliver) event()         {}
func (EndOfBatch) event()      {}
func (Submit) event()          {}
func (Restart) event()         {}
func (Applied) event()         {}
func (StateTaken) event()      {}
func (StatesProcessed) event() {}
func (UpdatesApplied) event()  {}
func (Committed) event()       {}
func (Failed) event()          {}
func (ChecksumDone) event()    {}
