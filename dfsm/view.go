package dfsm

import (
	"fmt"
	"log/slog"
	"slices"

	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/event"
)

// view follows a membership change (the DFSM protocol, "On a membership
// change"; the numbers are its steps).
func (m *Machine) view(v View) {
	members := slices.Clone(v.Members)
	slices.SortFunc(members, Member.Compare)
	members = slices.Compact(members)

	// 1. The epoch of a sync that is still to come is nobody's yet; until
	// sync-start tells it, ours stands in its place, so that states, updates
	// and verifications of the view before match nothing.
	m.views++
	m.epoch = wire.Epoch{Counter: m.views, Time: m.now, NodeID: uint32(m.cfg.Self.Node), PID: m.cfg.Self.PID}
	m.syncEpoch = m.epoch
	m.verify.forget()
	m.syncQ.reset()

	// 2.
	if m.mode.Failed() {
		return
	}

	// 3.
	m.lowest = 0
	if len(members) > 0 {
		m.lowest = members[0].Node
	}
	_, isMember := slices.BinarySearchFunc(members, m.cfg.Self, Member.Compare)

	// 4.
	m.dropStates()
	m.do(DropSends{})
	m.noticed = notices{}
	m.updates = nil
	m.members = make([]memberInfo, len(members))
	for i, mb := range members {
		m.members[i].Member = mb
	}

	// 5.
	if !isMember {
		if m.mode != ModeStart {
			m.logf(slog.LevelError, "members: %s: we are not among them", FormatMembers(members))
			m.fail(ModeLeave)
		}
		return
	}
	m.tell(slog.LevelInfo, "members: "+FormatMembers(members), "",
		"members", FormatMembers(members), "count", len(members), "epoch", m.epoch.String())

	// 6.
	if len(members) > 1 {
		if v.Joined {
			m.resend()
		}
		m.log(slog.LevelInfo, "starting data syncronisation")
		m.setMode(ModeStartSync)
		if m.lowest == m.cfg.Self.Node {
			// Under our own epoch, which syncEpoch is.
			m.send(wire.SyncStart, nil)
		}
	} else {
		m.setMode(ModeSynced)
		m.members[0].synced = true
		m.deliverQueue()
	}

	// 7.
	m.do(ViewChanged{Members: members})
}

// resend sends the queued messages of our own once more, and empties the
// queue. Everyone does so when someone joins: who was there and who is new
// then have the same queue.
func (m *Machine) resend() {
	m.queue.sort()
	for i := range m.queue.items {
		if q := &m.queue.items[i]; q.Own {
			m.do(Send{Bytes: m.normal(q.Subtype, q.Time, q.Count, q.Payload), Normal: true})
		}
	}
	m.queue.reset()
}

// dropStates forgets the states of a sync in progress.
func (m *Machine) dropStates() {
	for i := range m.members {
		m.members[i].state, m.members[i].hasState = nil, false
	}
	m.states = 0
	if m.collected {
		m.collected = false
		m.do(Cleanup{})
	}
}

// syncStarted begins a sync: from here on the group's messages wait, so the
// state taken now is that of the same moment everywhere.
func (m *Machine) syncStarted(from Member, epoch wire.Epoch) {
	m.tell(slog.LevelInfo, fmt.Sprintf("received sync request (epoch %v)", epoch), "",
		"epoch", epoch.String(), "from", from.String())
	if from.Node != m.lowest {
		m.logf(slog.LevelWarn, "sync request from %v, not from the lowest node %d", from, m.lowest)
	}
	m.syncEpoch = epoch
	m.dropStates()
	m.awaiting = answerState
	m.do(TakeState{})
}

// stateReceived stores a member's state, and hands all to the application
// when the last one is there.
func (m *Machine) stateReceived(from Member, state []byte) {
	mi := m.find(from)
	if mi == nil {
		m.logf(slog.LevelError, "received state from non-member %v", from)
		m.fail(ModeLeave)
		return
	}
	if mi.hasState {
		m.logf(slog.LevelError, "received state twice from %v", from)
		m.fail(ModeLeave)
		return
	}
	mi.state, mi.hasState = state, true
	m.states++
	if m.states < len(m.members) {
		return
	}
	m.log(slog.LevelInfo, "received all states")
	all := make([]MemberState, len(m.members))
	for i := range m.members {
		mb := &m.members[i]
		all[i] = MemberState{Member: mb.Member, Self: mb.Member == m.cfg.Self, State: mb.state}
	}
	m.collected = true
	m.awaiting = answerStates
	m.do(ProcessStates{States: all})
}

func (m *Machine) statesProcessed(s Sync) {
	for i := range m.members {
		m.members[i].synced = i < len(s.Synced) && s.Synced[i]
	}
	if s.Leader {
		m.do(SendUpdates{
			Source:   s.Updates,
			Complete: m.frame(wire.UpdateComplete, nil),
			header:   m.message(wire.Update),
		})
	}
	if m.find(m.cfg.Self).synced {
		m.setMode(ModeSynced)
		m.dropStates()
		m.upToDate()
	} else {
		m.setMode(ModeUpdate)
	}
	m.deliverQueue()
}

// committed ends the sync on a node that was behind.
func (m *Machine) committed() {
	m.allSynced()
	m.setMode(ModeSynced)
	m.upToDate()
	m.batch = append(m.batch, m.syncQ.items...)
	m.syncQ.reset()
	m.deliverQueue()
	m.dropStates()
}

func (m *Machine) upToDate() {
	members, synced := m.Members()
	m.tell(slog.LevelInfo, "all data is up to date", event.SyncDone,
		"members", FormatMembers(members), "synced", synced, "epoch", m.syncEpoch.String())
}

func (m *Machine) allSynced() {
	for i := range m.members {
		m.members[i].synced = true
	}
}
