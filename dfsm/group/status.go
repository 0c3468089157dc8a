package group

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Status is a snapshot of a Group's state and counters.
type Status struct {
	Connected bool
	Mode      dfsm.Mode
	Self      dfsm.Member
	Members   []dfsm.Member // sorted; the caller's
	Synced    int           // how many of the members count as synced
	Epoch     wire.Epoch    // of the present view

	Waiting       int    // submissions without a result
	Unsent        int    // messages that wait for the group's queues, an update stream counting as one
	Replaced      uint64 // posts that a newer one of the same key took the place of
	Dropped       uint64 // posts that there was no room for
	DroppedBytes  uint64
	Queued        int // messages that wait for the end of a sync
	QueuedBytes   int
	Retries       uint64 // messages that the group's queues did not take at once
	Batches       uint64 // dispatches that brought something
	Views         uint64 // membership changes
	Connects      uint64
	Joins         uint64
	Leaves        uint64 // because this node was out of step
	LastError     error  // why the last connection or membership ended; nil means it did not
	Sent          Traffic
	Delivered     Traffic
	Verifications uint64 // checksums computed
	Verified      uint64 // comparisons with the others that found no difference
	Mismatches    uint64 // comparisons that found one
	LastVerified  time.Time
	Syncs         [SyncReasons]uint64 // syncs that ended with this node in step, by what began them
}

// SyncReason is the cause of a sync, as this node saw it.
type SyncReason uint8

const (
	SyncOwnJoin    SyncReason = iota // this node has joined
	SyncMemberJoin                   // another one has
	SyncMemberLeft                   // another one has gone
	SyncReasons    = iota            // how many there are
)

// String returns the reason's name in metrics.
func (r SyncReason) String() string {
	return [...]string{"own_join", "member_joined", "member_left"}[r]
}

// Traffic counts messages and bytes by type; unknown types count under the last one
// plus one.
type Traffic struct {
	Messages [trafficKinds]uint64
	Bytes    [trafficKinds]uint64
}

const trafficKinds = int(wire.Verify) + 2

// traffic is a Traffic that goes on counting.
type traffic struct{ messages, bytes [trafficKinds]atomic.Uint64 }

func (t *traffic) add(msg []byte) {
	kind := uint16(wire.Verify) + 1
	if len(msg) >= 2 {
		kind = min(kind, binary.LittleEndian.Uint16(msg))
	}
	t.messages[kind].Add(1)
	t.bytes[kind].Add(uint64(len(msg)))
}

func (t *traffic) read() (r Traffic) {
	for i := range trafficKinds {
		r.Messages[i], r.Bytes[i] = t.messages[i].Load(), t.bytes[i].Load()
	}
	return r
}

// counters are the values behind Status. The holder of own writes them; reading them takes no
// lock, so observers delay no one.
type counters struct {
	state   atomic.Pointer[state]
	self    atomic.Pointer[dfsm.Member]
	failure atomic.Pointer[error]

	waiting, unsent, queued, queuedBytes atomic.Int64
	posted                               atomic.Int64 // messages in the postbox
	replaced, dropped, droppedBytes      atomic.Uint64
	retries, batches, views, connects    atomic.Uint64
	joins, leaves                        atomic.Uint64
	verifications, verified, mismatches  atomic.Uint64
	lastVerified                         atomic.Int64 // nanoseconds since 1970; 0 means never
	sent, delivered                      traffic
	syncs                                [SyncReasons]atomic.Uint64
}

// state is where the node stands. It is replaced as a whole.
type state struct {
	connected bool
	mode      dfsm.Mode
	epoch     wire.Epoch
	members   []dfsm.Member
	synced    int
}

// Status returns a snapshot. It takes no lock.
func (g *Group) Status() Status {
	f := &g.stats
	s := Status{
		Waiting:       int(f.waiting.Load()),
		Unsent:        int(f.unsent.Load() + f.posted.Load()),
		Replaced:      f.replaced.Load(),
		Dropped:       f.dropped.Load(),
		DroppedBytes:  f.droppedBytes.Load(),
		Queued:        int(f.queued.Load()),
		QueuedBytes:   int(f.queuedBytes.Load()),
		Retries:       f.retries.Load(),
		Batches:       f.batches.Load(),
		Views:         f.views.Load(),
		Connects:      f.connects.Load(),
		Joins:         f.joins.Load(),
		Leaves:        f.leaves.Load(),
		Sent:          f.sent.read(),
		Delivered:     f.delivered.read(),
		Verifications: f.verifications.Load(),
		Verified:      f.verified.Load(),
		Mismatches:    f.mismatches.Load(),
	}
	for i := range s.Syncs {
		s.Syncs[i] = f.syncs[i].Load()
	}
	if at := f.lastVerified.Load(); at != 0 {
		s.LastVerified = time.Unix(0, at)
	}
	if self := f.self.Load(); self != nil {
		s.Self = *self
	}
	if err := f.failure.Load(); err != nil {
		s.LastError = *err
	}
	if v := f.state.Load(); v != nil {
		s.Connected, s.Mode, s.Epoch, s.Synced = v.connected, v.mode, v.epoch, v.synced
		s.Members = slices.Clone(v.members)
	}
	return s
}

// publish copies the machine's state into the counters.
func (g *Group) publish() {
	m, f := g.machine, &g.stats
	queued, bytes := m.Queued()
	f.queued.Store(int64(queued))
	f.queuedBytes.Store(int64(bytes))
	f.unsent.Store(int64(g.out.normals.len() + g.out.others.len()))
	g.publishVerifications()
	next := state{connected: g.conn != nil, mode: m.Mode(), epoch: m.Epoch()}
	if v := f.state.Load(); v != nil && !g.viewDirty && v.connected == next.connected && v.mode == next.mode && v.epoch == next.epoch {
		return
	}
	g.viewDirty = false
	next.members, next.synced = m.Members()
	f.state.Store(&next)
	g.syncDone(next.mode)
}

func (g *Group) publishVerifications() {
	good, bad := g.machine.Verifications()
	if good == g.good && bad == g.bad {
		return
	}
	f := &g.stats
	f.verified.Add(good - g.good)
	f.mismatches.Add(bad - g.bad)
	f.lastVerified.Store(time.Now().UnixNano())
	g.good, g.bad = good, bad
}

// syncBegins takes note of a view that began a sync, or began one anew. Before tells the
// mode in which it came.
func (g *Group) syncBegins(v *dfsm.View, before dfsm.Mode) {
	if g.machine.Mode() != dfsm.ModeStartSync {
		return
	}
	if g.syncSince.IsZero() {
		g.syncSince = time.Now()
	}
	switch {
	case before == dfsm.ModeStart:
		g.syncReason = SyncOwnJoin
	case g.syncReason == SyncOwnJoin && before != dfsm.ModeSynced: // and it is still about that
	case v.Joined:
		g.syncReason = SyncMemberJoin
	default:
		g.syncReason = SyncMemberLeft
	}
}

// SyncReason returns the cause of the present sync. It is for the application, from within
// ProcessStates.
func (g *Group) SyncReason() SyncReason { return g.syncReason }

// syncDone takes note of the end of a sync, if there was one.
func (g *Group) syncDone(mode dfsm.Mode) {
	if g.syncSince.IsZero() || mode == dfsm.ModeStartSync || mode == dfsm.ModeUpdate {
		return
	}
	took := time.Since(g.syncSince)
	g.syncSince = time.Time{}
	if mode != dfsm.ModeSynced {
		return
	}
	g.stats.syncs[g.syncReason].Add(1)
	if g.cfg.Synced != nil {
		g.cfg.Synced(g.syncReason, took)
	}
}
