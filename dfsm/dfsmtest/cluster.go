package dfsmtest

import (
	"fmt"
	"io"
	"slices"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
)

// Config of a Cluster.
type Config struct {
	// Hosts is how many there are; their node ids are 1 to Hosts.
	Hosts int
	// Version and Checksums are the machines'.
	Version   uint32
	Checksums bool
	// MaxQueued is the machines'.
	MaxQueued int
	// NewApp makes the application of a daemon that starts on a host. What
	// outlives the daemon is NewApp's to keep.
	NewApp func(p *Process) App
	// Trace, if not nil, gets a line for everything that happens.
	Trace io.Writer
}

// App is the application of a simulated daemon.
type App interface {
	dfsm.Application
	// Quorum tells whether the host's ring has the majority of all hosts.
	Quorum(quorate bool)
}

// Cluster is the simulated network. It is not safe for concurrent use.
type Cluster struct {
	cfg    Config
	hosts  []*Host
	rings  []*ring
	now    uint32
	pids   uint32
	bytes  int // of all messages that were ordered
	sent   int // messages that were ordered
	leaves int // members that left because they were out of step
	onSent func(from dfsm.Member, raw []byte)
}

// Host is a machine on the network. Its daemon may run or not.
type Host struct {
	ID   corosync.NodeID
	Up   bool
	proc *Process
	ring *ring
	// Quorate is what the quorum service says on this host now.
	Quorate bool
}

// Process returns the running daemon, or nil.
func (h *Host) Process() *Process { return h.proc }

// ring is a set of hosts that reach each other, and the order of what was
// multicast among them.
type ring struct {
	hosts   []*Host
	log     []event
	members []dfsm.Member // of the group, at the end of the log
}

// event is what a process dispatches: one of a message, a view, a change of
// quorum.
type event struct {
	kind    eventKind
	from    dfsm.Member
	raw     []byte
	members []dfsm.Member
	joined  bool
	quorate bool
}

type eventKind uint8

const (
	message eventKind = iota
	view
	quorum
)

// NewCluster returns hosts that are all down.
func NewCluster(cfg Config) *Cluster {
	c := &Cluster{cfg: cfg, now: 1_000_000, pids: 100}
	for i := range cfg.Hosts {
		c.hosts = append(c.hosts, &Host{ID: corosync.NodeID(i + 1)})
	}
	return c
}

// Host returns the host with a node id.
func (c *Cluster) Host(id corosync.NodeID) *Host { return c.hosts[id-1] }

// Now is the clock of all hosts, in seconds since 1970.
func (c *Cluster) Now() uint32 { return c.now }

// Advance moves the clock.
func (c *Cluster) Advance(seconds uint32) { c.now += seconds }

// Traffic returns how many messages, and bytes, have been ordered.
func (c *Cluster) Traffic() (messages, bytes int) { return c.sent, c.bytes }

func (c *Cluster) tracef(format string, args ...any) {
	if c.cfg.Trace != nil {
		fmt.Fprintf(c.cfg.Trace, format+"\n", args...)
	}
}

// Cut says what becomes of the messages that were ordered in a ring that ends.
type Cut int

const (
	// CutSafe: all of them reach every member, wherever it is now. What one
	// member has applied, all have or will.
	CutSafe Cut = iota
	// CutAgreed: members that stay together get the same, but others may get
	// more or less; as corosync does, whose delivery is agreed, not safe.
	CutAgreed
)

// Rearrange makes the given hosts, which must be up, form the given rings: cut,
// merge, or both. pick(n) chooses from 0 to n-1 wherever there is a choice: how
// far a cut ring's order reached, in which order members learn of each other;
// nil means always the last, which is everything, and at once.
func (c *Cluster) Rearrange(parts [][]*Host, cut Cut, pick func(n int) int) {
	if pick == nil {
		pick = func(n int) int { return n - 1 }
	}
	var stay []*ring
	for _, part := range parts {
		if old := part[0].ring; old != nil && slices.Equal(old.hosts, part) {
			stay = append(stay, old)
		}
	}
	next := slices.Clone(stay)
	for _, part := range parts {
		if slices.Contains(stay, part[0].ring) {
			continue
		}
		next = append(next, c.form(part, cut, pick))
	}
	c.rings = next
	for _, r := range c.rings {
		for _, h := range r.hosts {
			h.ring = r
		}
	}
}

// form makes a new ring. The old ones stay as they are, for other parts of
// them may still have to be cut.
func (c *Cluster) form(part []*Host, cut Cut, pick func(n int) int) *ring {
	next := &ring{hosts: part}
	quorate := len(part) > len(c.hosts)/2
	var groups [][]*Process // the members, by the ring they come from
	var from []*ring
	for _, h := range part {
		if h.proc == nil || !h.proc.joined {
			continue
		}
		i := slices.Index(from, h.ring)
		if i < 0 {
			i = len(from)
			from, groups = append(from, h.ring), append(groups, nil)
		}
		groups[i] = append(groups[i], h.proc)
	}
	for i, g := range groups {
		from[i].finish(g, cut, pick)
		// Who is leaving has its own leave in what it got just now.
		groups[i] = slices.DeleteFunc(g, func(p *Process) bool { return p.leaving })
		for _, p := range groups[i] {
			next.members = append(next.members, p.self)
		}
	}
	slices.SortFunc(next.members, dfsm.Member.Compare)

	early := pick(3) == 0 // quorum is told before the new view, not after
	tell := func() {
		for _, h := range part {
			if h.Quorate != quorate {
				h.Quorate = quorate
				if h.proc != nil {
					h.proc.inbox = append(h.proc.inbox, event{kind: quorum, quorate: quorate})
				}
			}
		}
	}
	if early || !quorate {
		tell()
	}
	for i, g := range groups {
		c.introduce(g, from[i], next, len(groups) > 1, pick)
	}
	tell()
	for _, h := range part {
		if h.proc != nil {
			h.proc.ringPos = 0
		}
	}
	return next
}

// finish gives processes that stay together the rest of what their ring had
// ordered.
func (r *ring) finish(g []*Process, cut Cut, pick func(n int) int) {
	end := len(r.log)
	if cut == CutAgreed {
		low := 0
		for _, p := range g {
			low = max(low, p.ringPos)
		}
		for i, e := range r.log {
			if e.kind == view {
				low = max(low, i+1)
			}
		}
		end = low + pick(len(r.log)-low+1)
	}
	rest := r.log[end:]
	for _, p := range g {
		p.inbox = append(p.inbox, r.log[min(p.ringPos, end):end]...)
	}
	for _, e := range rest { // a member always gets its own messages
		if slices.ContainsFunc(g, func(p *Process) bool { return p.self == e.from }) {
			for _, p := range g {
				p.inbox = append(p.inbox, e)
			}
		}
	}
}

// introduce tells processes that come from one ring who else is in the next.
func (c *Cluster) introduce(g []*Process, old, next *ring, merge bool, pick func(n int) int) {
	var known []dfsm.Member
	for _, p := range g {
		known = append(known, p.self)
	}
	slices.SortFunc(known, dfsm.Member.Compare)
	tell := func(members []dfsm.Member, joined bool) {
		for _, p := range g {
			p.inbox = append(p.inbox, event{kind: view, members: slices.Clone(members), joined: joined})
		}
	}
	if !merge {
		tell(known, false)
		return
	}
	if len(known) < len(old.members) && pick(2) == 0 {
		tell(known, false) // first who left, then who joined
	}
	if pick(4) == 0 { // one after the other
		for _, m := range next.members {
			if i, found := slices.BinarySearchFunc(known, m, dfsm.Member.Compare); !found {
				known = slices.Insert(known, i, m)
				tell(known, true)
			}
		}
		return
	}
	tell(next.members, true)
}

// multicast puts a message into a ring's order.
func (c *Cluster) multicast(r *ring, from dfsm.Member, raw []byte) {
	c.sent++
	c.bytes += len(raw)
	r.log = append(r.log, event{kind: message, from: from, raw: raw})
	if c.onSent != nil {
		c.onSent(from, raw)
	}
}

// Inject has a member's host multicast any bytes, as a broken or hostile
// member might.
func (c *Cluster) Inject(h *Host, raw []byte) {
	if h.Up && h.proc != nil && h.proc.joined {
		c.multicast(h.ring, h.proc.self, raw)
	}
}

// configure puts a membership change of the group into a ring's order.
func (r *ring) configure(members []dfsm.Member, joined bool) {
	r.members = members
	r.log = append(r.log, event{kind: view, members: members, joined: joined})
}

func (r *ring) without(who dfsm.Member) []dfsm.Member {
	return slices.DeleteFunc(slices.Clone(r.members), func(m dfsm.Member) bool { return m == who })
}

// Settle lets everything flow until nothing moves: members that left join
// again, all is sent and dispatched. It reports false if that takes more than
// so many rounds.
func (c *Cluster) Settle(rounds int) bool {
	for range rounds {
		moved := false
		for _, h := range c.hosts {
			p := h.proc
			if p == nil || p.Idle() {
				continue
			}
			moved = true
			if p.away {
				p.Join()
			}
			for p.Unsent() {
				p.Multicast(true)
			}
			p.Dispatch(16)
		}
		if !moved {
			return true
		}
	}
	return false
}
