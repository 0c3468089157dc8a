package dfsm

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"pmxcfs/corosync"
	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/event"
)

// DefaultMaxQueued is Config.MaxQueued if that is 0.
const DefaultMaxQueued = 256 << 20

// verifyInterval is the time between verifications, in seconds.
const verifyInterval = 3600

// Config says which group a Machine takes part in.
type Config struct {
	// Self is this process: corosync's local node id and our pid.
	Self Member
	// Version is the protocol version that the group speaks.
	Version uint32
	// Checksums says that the application has checksums to verify.
	Checksums bool
	// MaxQueued is how many bytes of messages may wait in the two queues
	// while a sync goes on, before this node rather leaves and joins again;
	// 0 means DefaultMaxQueued.
	MaxQueued int
}

// Machine is the state machine of one process group on one node. It is not
// safe for concurrent use: the driver's goroutine owns it.
type Machine struct {
	cfg  Config
	mode Mode
	now  uint32 // seconds since 1970, of the last Tick

	views     uint32     // membership changes seen: the local epoch counter
	epoch     wire.Epoch // ours, of the present view
	syncEpoch wire.Epoch // of the sync under way or last done
	members   []memberInfo
	lowest    corosync.NodeID // among the members
	states    int             // members whose state is there
	collected bool            // the application may hold something of a sync

	count   uint64 // of our last normal message
	waiting waiters
	queue   messageQueue // "message queue" of the protocol
	syncQ   messageQueue // "sync queue"

	batch   []Message // to go into the next Apply
	updates [][]byte  // to go into the next ApplyUpdates

	verify  verification
	noticed notices

	awaiting answer
	inFlight []Message // the batch that Applied will answer
	inbox    []Event   // what came while an answer was awaited
	inboxed  int       // how many of inbox are processed
	actions  []Action
	spare    []Action // the slice that Actions returned last
}

type memberInfo struct {
	Member
	synced   bool
	hasState bool
	state    []byte
}

// notices keeps a misbehaving peer from filling the log: one line of a kind
// per view.
type notices struct{ older, stranger bool }

// answer is the kind of answer that the machine waits for.
type answer uint8

const (
	answerNone answer = iota
	answerApplied
	answerState
	answerStates
	answerUpdates
	answerCommit
)

// New returns a Machine in ModeStart.
func New(cfg Config) *Machine {
	if cfg.MaxQueued == 0 {
		cfg.MaxQueued = DefaultMaxQueued
	}
	return &Machine{cfg: cfg}
}

// Mode returns the present mode.
func (m *Machine) Mode() Mode { return m.mode }

// Epoch returns the epoch of the present view, as this node counts.
func (m *Machine) Epoch() wire.Epoch { return m.epoch }

// SyncEpoch returns the epoch of the sync that is under way or was the last;
// after a View it is Epoch until the lowest node has started one.
func (m *Machine) SyncEpoch() wire.Epoch { return m.syncEpoch }

// Verifications returns how many comparisons of checksums found no difference, and
// how many found one.
func (m *Machine) Verifications() (good, bad uint64) { return m.verify.good, m.verify.bad }

// Members returns the members of the present view, sorted, in a slice of the
// caller's, and how many of them count as synced.
func (m *Machine) Members() (members []Member, synced int) {
	for i := range m.members {
		members = append(members, m.members[i].Member)
		if m.members[i].synced {
			synced++
		}
	}
	return members, synced
}

// Queued returns how many messages, and bytes of them, wait for the end of a
// sync.
func (m *Machine) Queued() (messages, bytes int) {
	return len(m.queue.items) + len(m.syncQ.items), m.queue.bytes + m.syncQ.bytes
}

// Waiting returns how many local submissions have not been answered.
func (m *Machine) Waiting() int { return m.waiting.len() }

// Actions returns the pending actions, in order, and forgets them. The slice is
// valid until the next call of Actions.
func (m *Machine) Actions() []Action {
	a := m.actions
	clear(m.spare)
	m.actions, m.spare = m.spare[:0], a
	return a
}

// Step takes in one event. Actions returns the resulting actions.
func (m *Machine) Step(e Event) {
	if m.awaiting != answerNone {
		if !m.answered(e) {
			m.inbox = append(m.inbox, e)
			return
		}
	} else if !m.process(e) {
		m.inbox = append(m.inbox, e)
	}
	m.drain()
}

// drain processes the events that came while an answer was awaited.
func (m *Machine) drain() {
	for m.inboxed < len(m.inbox) && m.awaiting == answerNone {
		if m.process(m.inbox[m.inboxed]) {
			m.inbox[m.inboxed] = nil
			m.inboxed++
		}
	}
	if m.inboxed == len(m.inbox) {
		m.inbox, m.inboxed = m.inbox[:0], 0
	}
}

// process handles an event that is not an awaited answer. It returns false if
// what has been collected must go to the application first: then that is on
// its way, and the event is to be tried again after the answer.
func (m *Machine) process(e Event) bool {
	switch e := e.(type) {
	case Tick:
		m.tick(e.Now)
	case Submit:
		m.submit(e)
	case Deliver:
		return m.deliver(e.From, e.Bytes)
	case View:
		if m.flush() {
			return false
		}
		m.view(e)
	case EndOfBatch:
		return !m.flush()
	case Restart:
		if m.flush() {
			return false
		}
		m.restart()
	case Failed:
		if m.mode.Failed() || m.mode == ModeStart && !errors.Is(e.Err, ErrFatal) {
			break // there is no membership to end
		}
		if m.flush() {
			return false
		}
		m.succeeded("the application", e.Err)
	case ChecksumDone:
		m.checksumDone(e)
	default:
		m.logf(slog.LevelError, "internal error: unexpected %T", e)
	}
	return true
}

// flush passes the collected messages to the application. It reports whether
// there was anything, and so whether an answer is awaited now.
func (m *Machine) flush() bool {
	switch {
	case len(m.batch) > 0:
		m.inFlight, m.batch = m.batch, nil
		m.awaiting = answerApplied
		m.do(Apply{Batch: m.inFlight})
	case len(m.updates) > 0:
		m.awaiting = answerUpdates
		m.do(ApplyUpdates{Payloads: m.updates})
		m.updates = nil
	default:
		return false
	}
	return true
}

// answered handles the answer that is awaited. It returns false if e is not
// that.
func (m *Machine) answered(e Event) bool {
	switch e := e.(type) {
	case Applied:
		if m.awaiting != answerApplied {
			return false
		}
		m.awaiting = answerNone
		m.applied(e)
	case StateTaken:
		if m.awaiting != answerState {
			return false
		}
		m.awaiting = answerNone
		if m.succeeded("taking the state", e.Err) {
			m.send(wire.State, e.State)
		}
	case StatesProcessed:
		if m.awaiting != answerStates {
			return false
		}
		m.awaiting = answerNone
		if m.succeeded("processing the states", e.Err) {
			m.statesProcessed(e.Sync)
		}
	case UpdatesApplied:
		if m.awaiting != answerUpdates {
			return false
		}
		m.awaiting = answerNone
		m.succeeded("taking in updates", e.Err)
	case Committed:
		if m.awaiting != answerCommit {
			return false
		}
		m.awaiting = answerNone
		if m.succeeded("committing updates", e.Err) {
			m.committed()
		}
	default:
		return false
	}
	return true
}

// succeeded leaves the group if the application could not go on.
func (m *Machine) succeeded(what string, err error) bool {
	if err == nil {
		return true
	}
	m.logf(slog.LevelError, "%s failed: %v", what, err)
	if errors.Is(err, ErrFatal) {
		m.fail(ModeError)
	} else {
		m.fail(ModeLeave)
	}
	return false
}

func (m *Machine) submit(e Submit) {
	if m.mode == ModeStart || m.mode.Failed() {
		if e.ID != 0 {
			m.do(Reply{e.ID, Result{Err: ErrDisconnected}})
		}
		return
	}
	m.count++
	if e.ID != 0 {
		m.waiting.add(m.count, e.ID)
	}
	m.do(Send{Bytes: m.normal(e.Subtype, m.now, m.count, e.Payload), Normal: true})
}

// normal returns a normal message of this node's.
func (m *Machine) normal(subtype uint16, now uint32, count uint64, payload []byte) []byte {
	msg := wire.Message{
		Header:  wire.Header{Type: wire.Normal, Subtype: subtype, Version: m.cfg.Version, Time: now},
		Count:   count,
		Payload: payload,
	}
	return msg.Encode()
}

func (m *Machine) applied(e Applied) {
	done := len(m.inFlight)
	if e.Err != nil {
		done = min(max(e.Done, 0), done)
	}
	for i := range m.inFlight[:done] {
		if !m.inFlight[i].Own {
			continue
		}
		if id, ok := m.waiting.take(m.inFlight[i].Count); ok {
			var result Result
			if i < len(e.Results) {
				result = e.Results[i]
			}
			m.do(Reply{id, result})
		}
	}
	m.inFlight = nil
	m.succeeded("applying a message", e.Err)
}

// restart begins anew after the membership is gone.
func (m *Machine) restart() {
	m.disconnect()
	m.members, m.states = nil, 0
	m.syncEpoch = wire.Epoch{}
	m.verify.forget()
	if !m.mode.Final() {
		m.setMode(ModeStart)
	}
}

// fail enters an error mode: leave the group. From here on everything is
// ignored but Restart.
func (m *Machine) fail(mode Mode) {
	if m.mode.Failed() {
		return
	}
	if mode.Final() {
		m.tell(event.LevelCritical, "leaving the group for good: this node stays out of it until the daemon is restarted",
			event.OutOfGroup, "mode", mode.String(), "epoch", m.epoch.String())
	} else {
		m.tell(slog.LevelWarn, "leaving the group, to join it again",
			event.LeftGroup, "epoch", m.epoch.String())
	}
	m.setMode(mode)
	m.disconnect()
	m.do(Leave{Final: mode.Final()})
}

// disconnect drops all that rests on being a member.
func (m *Machine) disconnect() {
	m.dropStates()
	m.queue.reset()
	m.syncQ.reset()
	m.batch, m.updates = nil, nil
	m.do(DropSends{})
	m.waiting.drain(func(id uint64) { m.do(Reply{id, Result{Err: ErrDisconnected}}) })
}

func (m *Machine) setMode(mode Mode) {
	if m.mode != mode {
		m.mode = mode
		m.do(ModeChanged{Mode: mode})
	}
}

// send multicasts a message of the protocol under the present sync's epoch.
func (m *Machine) send(t wire.Type, payload []byte) {
	m.do(Send{Bytes: m.frame(t, payload)})
}

func (m *Machine) frame(t wire.Type, payload []byte) []byte {
	msg := m.message(t)
	msg.Payload = payload
	return msg.Encode()
}

func (m *Machine) message(t wire.Type) wire.Message {
	return wire.Message{
		Header: wire.Header{Type: t, Version: m.cfg.Version, Time: m.now},
		Epoch:  m.syncEpoch,
	}
}

// find returns a member's place in the table, nil if it is none.
func (m *Machine) find(who Member) *memberInfo {
	i, ok := slices.BinarySearchFunc(m.members, who, func(mi memberInfo, who Member) int { return mi.Compare(who) })
	if !ok {
		return nil
	}
	return &m.members[i]
}

func (m *Machine) do(a Action) { m.actions = append(m.actions, a) }

func (m *Machine) log(level slog.Level, text string) { m.do(Log{Level: level, Text: text}) }

// tell is log with an event (empty means none) and fields for programs.
func (m *Machine) tell(level slog.Level, text string, e event.Event, fields ...any) {
	m.do(Log{Level: level, Text: text, Event: e, Fields: fields})
}

func (m *Machine) logf(level slog.Level, format string, args ...any) {
	m.log(level, fmt.Sprintf(format, args...))
}

// FormatMembers lists members as the log does: "1/4711, 2/815".
func FormatMembers(members []Member) string {
	var b strings.Builder
	for i, mb := range members {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(mb.String())
	}
	return b.String()
}
