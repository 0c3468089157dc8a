package dfsmtest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Plan says what a random history is made of.
type Plan struct {
	Seed  uint64
	Hosts int // 2 to 9; 0 means the seed decides
	Steps int // 0 means the seed decides
	Cut   Cut
	// Hostile has one member send malformed, oversized, duplicate, wrong-epoch
	// and wrong-version messages.
	Hostile bool
	// Store takes the Store in place of the Model.
	Store bool
	Trace io.Writer
}

// Outcome tells what happened in a random history.
type Outcome struct {
	Hosts    int
	Steps    int
	Acked    int  // writes reported as done
	Refused  int  // writes reported as refused by the application
	Unknown  int  // writes whose sender was told that the fate is unknown
	Syncs    int  // syncs that at least one member has finished
	Commits  int  // of updates, by members that were behind
	Leaves   int  // members that left to join again
	Verified int  // members that compared checksums at the end
	Forked   bool // no member with all acknowledged writes was there when a quorate sync began
	Messages int
}

// run is one random history and its checks.
type run struct {
	*Cluster
	plan    Plan
	rnd     *rand.Rand
	disks   []*Disk
	slow    []int // weight of each host in scheduling
	evil    *Host
	seen    [][]byte // messages that the evil member may send again
	value   uint64   // last set in a Store
	history []OpID   // what quorate synced members have applied, in order
	acked   []OpID
	started map[wire.Epoch]string // the state that a sync ended with
	out     Outcome
	err     error
}

const modelKeys = 12

// Random runs the history of a plan and checks:
//   - every member that applies a change has applied the same changes before;
//   - no change is applied twice, and none is reported as done that is not;
//   - an acknowledged write is there at the end, unless all members that had
//     applied it were gone when a majority went on (Outcome.Forked);
//   - all members that finish a sync have the same state then;
//   - once the faults end, all become synced, with the same state, nothing
//     queued and nobody waiting, and verification agrees.
//
// With CutAgreed a member may have applied, and acknowledged, what the majority
// never gets, and a change that was delivered before and after a merge is
// applied twice; then only the states and the ends are checked. With Hostile,
// likewise. With Store, all show at the
// end what each has set last.
func Random(plan Plan) (Outcome, error) {
	r := &run{plan: plan, rnd: rand.New(rand.NewPCG(plan.Seed, 0x6466736d)), started: map[wire.Epoch]string{}}
	if plan.Hosts == 0 {
		r.plan.Hosts = 2 + r.rnd.IntN(8)
	}
	if plan.Steps == 0 {
		r.plan.Steps = 80 + r.rnd.IntN(240)
	}
	cfg := Config{Hosts: r.plan.Hosts, Version: 1, Checksums: true, NewApp: r.newApp, Trace: plan.Trace}
	if plan.Hostile {
		cfg.MaxQueued = 8 << 20
	}
	if plan.Store {
		cfg.Version, cfg.Checksums = 0, false
	}
	r.Cluster = NewCluster(cfg)
	for range r.plan.Hosts {
		r.disks = append(r.disks, NewDisk(modelKeys))
		r.slow = append(r.slow, 1+r.rnd.IntN(8))
	}
	if plan.Hostile {
		r.evil = r.hosts[r.rnd.IntN(len(r.hosts))]
		r.onSent = func(_ dfsm.Member, raw []byte) {
			if len(r.seen) < 64 {
				r.seen = append(r.seen, raw)
			} else {
				r.seen[r.rnd.IntN(64)] = raw
			}
		}
	}
	r.begin()
	for r.out.Steps < r.plan.Steps && r.err == nil {
		r.out.Steps++
		r.step()
	}
	r.evil = nil
	r.heal()
	r.settle()
	if plan.Hostile && r.err == nil {
		r.heal() // what the evil member had sent has only now arrived
		r.settle()
	}
	if !plan.Store {
		r.verifyAll()
	}
	r.checkEnd()
	r.out.Hosts, r.out.Syncs, r.out.Leaves, r.out.Messages = r.plan.Hosts, len(r.started), r.leaves, r.sent
	return r.out, r.err
}

// begin brings most hosts up, and some daemons: the rest comes later, or never
// before the end.
func (r *run) begin() {
	var up []*Host
	for _, h := range r.hosts {
		if r.rnd.IntN(8) != 0 {
			h.Up = true
			up = append(up, h)
		}
	}
	r.rearrange([][]*Host{up})
	for _, h := range up {
		if r.rnd.IntN(3) != 0 {
			r.Start(h)
		}
	}
}

func (r *run) strict() bool { return r.plan.Cut == CutSafe && !r.plan.Hostile && !r.out.Forked }

func (r *run) failf(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
		r.tracef("FAILED: %v", r.err)
	}
}

func (r *run) newApp(p *Process) App {
	if r.plan.Store {
		return NewStore(p)
	}
	m := NewModel(r.disks[p.host.ID-1])
	m.OnApply = func(id OpID) { r.applied(p, m, id) }
	m.OnSynced = func(state []byte) { r.synced(p, state) }
	m.OnAdopt = func([]OpID) { r.out.Commits++ }
	ids := map[uint64]OpID{}
	p.OnReply = func(id uint64, result dfsm.Result) { r.replied(p, m, ids, id, result.Err) }
	return m
}

// applied checks a change against what others have made.
// holder tells whether a member that takes part in the same sync as p has the
// change at that place in the history.
// synced checks the state that a member is synced with.
// pick chooses a host by weight: the light ones are slow.
func (r *run) pick() *Host {
	sum := 0
	for _, w := range r.slow {
		sum += w
	}
	n := r.rnd.IntN(sum)
	for i, w := range r.slow {
		if n -= w; n < 0 {
			return r.hosts[i]
		}
	}
	return r.hosts[0]
}

// step does one random thing.
func (r *run) step() {
	h := r.pick()
	p := h.proc
	if r.evil != nil && r.evil.proc != nil && r.rnd.IntN(6) == 0 {
		r.misbehave()
	}
	switch n := r.rnd.IntN(100); {
	case n < 40: // a burst of dispatching and sending
		for range 1 + r.rnd.IntN(12) {
			r.work(r.pick())
		}
	case n < 70:
		if p != nil {
			for range 1 + r.rnd.IntN(4) {
				r.submit(p)
			}
		}
	case n < 80: // let it flow
		for range 1 + r.rnd.IntN(3) {
			for _, h := range r.hosts {
				r.work(h)
			}
		}
	case n < 84:
		r.now += uint32(r.rnd.IntN(3))
		if r.rnd.IntN(4) == 0 {
			r.now += 3600
		}
	case n < 90: // something comes up
		if !h.Up {
			r.tracef("-- boot %d", h.ID)
			r.Boot(h)
			r.join()
		} else if p == nil {
			r.tracef("-- start %d", h.ID)
			r.Start(h)
		} else if p.away {
			p.Join()
		}
	case n < 92:
		if p != nil {
			r.tracef("-- kill %d", h.ID)
			r.Kill(h)
			if r.rnd.IntN(2) == 0 {
				r.Start(h)
			}
		}
	case n < 94:
		if h.Up && r.rnd.IntN(2) == 0 {
			r.tracef("-- crash %d", h.ID)
			r.Crash(h, r.plan.Cut, r.rnd.IntN)
		}
	case n < 97:
		r.partition()
	default:
		r.join()
	}
}

func (r *run) submit(p *Process) {
	if s, ok := p.App.(*Store); ok {
		r.act(s)
		return
	}
	mode := p.Machine.Mode()
	if mode == dfsm.ModeStart || mode.Failed() || !p.App.(*Model).Quorate {
		return
	}
	op := Op{Key: uint32(r.rnd.IntN(modelKeys)), Version: Any, Value: []byte{byte(r.rnd.Uint32())}}
	if r.rnd.IntN(4) == 0 {
		op.Version = p.App.(*Model).Disk.Entries[op.Key].Version
	}
	p.Submit(1, op.Encode())
}

// work has a host send or dispatch a little.
func (r *run) work(h *Host) {
	p := h.proc
	if p == nil {
		return
	}
	if r.rnd.IntN(2) == 0 {
		for range 1 + r.rnd.IntN(4) {
			p.Multicast(r.rnd.IntN(2) == 0)
		}
	} else {
		p.Dispatch(1 + r.rnd.IntN(8))
	}
}

// partition cuts or reorders the network.
func (r *run) partition() {
	k := 1 + r.rnd.IntN(3)
	parts := make([][]*Host, k)
	for _, h := range r.hosts {
		if h.Up {
			i := r.rnd.IntN(k)
			parts[i] = append(parts[i], h)
		}
	}
	r.rearrange(parts)
}

// join makes one ring of all hosts that are up.
func (r *run) join() {
	var all []*Host
	for _, h := range r.hosts {
		if h.Up {
			all = append(all, h)
		}
	}
	r.rearrange([][]*Host{all})
}

func (r *run) rearrange(parts [][]*Host) {
	parts = slices.DeleteFunc(parts, func(p []*Host) bool { return len(p) == 0 })
	if len(parts) == 0 {
		return
	}
	if r.plan.Trace != nil {
		for _, part := range parts {
			for _, h := range part {
				fmt.Fprintf(r.plan.Trace, " %d", h.ID)
			}
			fmt.Fprintln(r.plan.Trace, " -- ring")
		}
	}
	r.Rearrange(parts, r.plan.Cut, r.rnd.IntN)
}

// heal ends all faults.
func (r *run) heal() {
	r.tracef("-- heal")
	for _, h := range r.hosts {
		if !h.Up {
			r.Boot(h)
		}
		if h.proc != nil && h.proc.final && r.plan.Hostile {
			r.Kill(h) // by a newer protocol version: only a restart helps
		}
		if h.proc == nil {
			r.Start(h)
		}
	}
	r.join()
}

func (r *run) settle() {
	if r.err == nil && !r.Settle(2000) {
		r.failf("no end: still busy after the faults have ended")
	}
}

// verifyAll has the checksums compared.
// checkEnd checks what must hold when all faults have ended.
// misbehave sends something that no member should.
func (r *run) misbehave() {
	le := wire.Epoch{Counter: r.rnd.Uint32N(8), Time: r.now, NodeID: 1 + r.rnd.Uint32N(9), PID: 100 + r.rnd.Uint32N(12)}
	if m := r.evil.proc.Machine; r.rnd.IntN(2) == 0 {
		le = m.SyncEpoch()
	}
	garbage := make([]byte, r.rnd.IntN(80))
	for i := range garbage {
		garbage[i] = byte(r.rnd.Uint32())
	}
	msg := wire.Message{
		Header:  wire.Header{Type: wire.Type(r.rnd.IntN(9)), Subtype: uint16(r.rnd.IntN(3)), Version: 1, Time: r.rnd.Uint32()},
		Count:   r.rnd.Uint64N(20),
		Epoch:   le,
		Payload: garbage,
	}
	raw := msg.Encode()
	switch r.rnd.IntN(12) {
	case 0:
		raw = garbage
	case 1:
		raw = raw[:r.rnd.IntN(len(raw)+1)]
	case 2:
		msg.Version = 0
		raw = msg.Encode()
	case 3:
		if r.rnd.IntN(10) == 0 {
			msg.Version = 2
			raw = msg.Encode()
		}
	case 4:
		if r.rnd.IntN(10) == 0 {
			msg.Payload = make([]byte, 1<<20+r.rnd.IntN(1<<20))
			raw = msg.Encode()
		}
	case 5, 6, 7:
		if len(r.seen) > 0 {
			raw = r.seen[r.rnd.IntN(len(r.seen))]
		}
	case 8:
		if len(r.seen) > 0 {
			raw = slices.Clone(r.seen[r.rnd.IntN(len(r.seen))])
			if len(raw) > 0 {
				raw[r.rnd.IntN(len(raw))] ^= 1 << r.rnd.IntN(8)
			}
		}
	}
	r.tracef("-- evil %d: %s", r.evil.ID, DescribeMessage(raw))
	r.Inject(r.evil, raw)
}
