package group

import (
	"encoding/binary"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Status is a snapshot of what a Group is doing.
type Status struct {
	Connected bool
	Mode      dfsm.Mode
	Self      dfsm.Member
	Members   []dfsm.Member // sorted; the caller's
	Synced    int           // how many of the members count as synced
	Epoch     wire.Epoch    // of the present view

	Waiting       int // callers in Submit
	Unsent        int // messages that wait for the group's queues, an update stream counting as one
	Queued        int // messages that wait for the end of a sync
	QueuedBytes   int
	Retries       uint64 // messages that the group's queues did not take at once
	Batches       uint64 // dispatches that brought something
	Connects      uint64
	Joins         uint64
	Leaves        uint64 // because this node was out of step
	LastError     error  // why the last connection or membership ended; nil: it did not
	Sent          Traffic
	Delivered     Traffic
	Verifications uint64 // checksums computed
}

// Traffic counts messages and bytes by type; what is beyond the known types
// counts under the last one plus one.
type Traffic struct {
	Messages [wire.Verify + 2]uint64
	Bytes    [wire.Verify + 2]uint64
}

func (t *Traffic) add(msg []byte) {
	kind := uint16(wire.Verify) + 1
	if len(msg) >= 2 {
		kind = min(kind, binary.LittleEndian.Uint16(msg))
	}
	t.Messages[kind]++
	t.Bytes[kind] += uint64(len(msg))
}

// Status returns a snapshot.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.status
	s.Members = append([]dfsm.Member(nil), s.Members...)
	s.Waiting = len(g.waiters)
	return s
}

func (g *Group) count(f func(s *Status)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.status)
}

// publish puts what the machine knows into the status.
func (g *Group) publish() {
	m := g.machine
	queued, bytes := m.Queued()
	g.count(func(s *Status) {
		s.Mode = m.Mode()
		s.Connected = g.conn != nil
		s.Queued, s.QueuedBytes = queued, bytes
		s.Unsent = g.out.normals.len() + g.out.others.len()
		if s.Epoch != m.Epoch() || g.viewDirty {
			s.Epoch = m.Epoch()
			s.Members, s.Synced = m.Members()
			g.viewDirty = false
		}
	})
}
