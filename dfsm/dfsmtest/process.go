package dfsmtest

import (
	"slices"

	"pmxcfs/dfsm"
)

// Process is a daemon: a machine, its application, and the driver between
// them and the network.
type Process struct {
	c       *Cluster
	host    *Host
	self    dfsm.Member
	Machine *dfsm.Machine
	App     App

	joined   bool // in the group as far as the network knows
	leaving  bool // has asked to leave
	away     bool // has left, and may join again
	final    bool // has left for good
	inbox    []event
	ringPos  int // what comes next in the ring's order
	normals  [][]byte
	others   []dfsm.Action // Send and SendUpdates
	deferred []func()      // checksums that are not computed yet
	ids      uint64
	// OnReply is told the result of each Submit.
	OnReply func(id uint64, r dfsm.Result)
}

// Self returns the process as a member of the group.
func (p *Process) Self() dfsm.Member { return p.self }

// Host returns the host that the process runs on.
func (p *Process) Host() *Host { return p.host }

// Boot brings a host up, in a ring of its own.
func (c *Cluster) Boot(h *Host) {
	h.Up, h.Quorate = true, false
	c.Rearrange(append(c.parts(nil), []*Host{h}), CutSafe, nil)
}

// Start starts the daemon of a host that is up, and joins.
func (c *Cluster) Start(h *Host) *Process {
	c.pids++
	p := &Process{c: c, host: h, self: dfsm.Member{Node: h.ID, PID: c.pids}}
	p.Machine = dfsm.New(dfsm.Config{Self: p.self, Version: c.cfg.Version, Checksums: c.cfg.Checksums, MaxQueued: c.cfg.MaxQueued})
	h.proc = p
	p.App = c.cfg.NewApp(p)
	p.App.Quorum(h.Quorate)
	p.Join()
	return p
}

// Join puts the process into its ring's order as a new member.
func (p *Process) Join() {
	r := p.host.ring
	members := append(slices.Clone(r.members), p.self)
	slices.SortFunc(members, dfsm.Member.Compare)
	p.joined, p.leaving, p.away = true, false, false
	p.inbox = slices.DeleteFunc(p.inbox, func(e event) bool { return e.kind != quorum })
	p.ringPos = len(r.log)
	r.configure(members, true)
}

// Kill ends the daemon at once; what it had not got into the order is lost.
func (c *Cluster) Kill(h *Host) {
	p := h.proc
	h.proc = nil
	if p.joined && !p.leaving {
		h.ring.configure(h.ring.without(p.self), false)
	}
}

// Crash takes a host and its daemon down.
func (c *Cluster) Crash(h *Host, cut Cut, pick func(n int) int) {
	h.proc, h.Up, h.Quorate = nil, false, false
	r := h.ring
	h.ring = nil
	var rest []*Host
	for _, o := range r.hosts {
		if o != h {
			rest = append(rest, o)
		}
	}
	parts := c.parts(r)
	if len(rest) > 0 {
		parts = append(parts, rest)
	}
	c.Rearrange(parts, cut, pick)
}

// parts returns the hosts of all rings but one.
func (c *Cluster) parts(but *ring) [][]*Host {
	var parts [][]*Host
	for _, r := range c.rings {
		if r != but {
			parts = append(parts, r.hosts)
		}
	}
	return parts
}

// Submit sends a normal message; OnReply gets the id and the result.
func (p *Process) Submit(subtype uint16, payload []byte) (id uint64) {
	p.ids++
	id = p.ids
	p.step(dfsm.Tick{Now: p.c.now})
	p.step(dfsm.Submit{ID: id, Subtype: subtype, Payload: payload})
	return id
}

// Post sends a normal message nobody waits for. Applications may call it.
func (p *Process) Post(subtype uint16, payload []byte) {
	p.Machine.Step(dfsm.Submit{Subtype: subtype, Payload: payload})
}

// Pending is how many events the process could dispatch now.
func (p *Process) Pending() int {
	n := len(p.inbox)
	if p.joined {
		n += len(p.host.ring.log) - p.ringPos
	}
	return n
}

// Unsent reports whether the process has something to multicast.
func (p *Process) Unsent() bool { return p.joined && (len(p.normals) > 0 || len(p.others) > 0) }

// Idle reports whether there is nothing that the process could do.
func (p *Process) Idle() bool {
	return p.Pending() == 0 && !p.Unsent() && len(p.deferred) == 0 && !p.away
}

// Multicast gets one message into the ring's order, a normal one first if
// there is a choice and normalFirst says so.
func (p *Process) Multicast(normalFirst bool) {
	if !p.Unsent() {
		return
	}
	r := p.host.ring
	if len(p.others) == 0 || (normalFirst && len(p.normals) > 0) {
		raw := p.normals[0]
		p.normals = p.normals[1:]
		p.c.multicast(r, p.self, raw)
		return
	}
	switch a := p.others[0].(type) {
	case dfsm.Send:
		p.others = p.others[1:]
		p.c.multicast(r, p.self, a.Bytes)
	case dfsm.SendUpdates:
		if a.Source != nil {
			if payload, ok := a.Source.Next(); ok {
				p.c.multicast(r, p.self, a.Frame(payload))
				return
			}
		}
		p.others = p.others[1:]
		p.c.multicast(r, p.self, a.Complete)
	}
}

// Dispatch steps up to n events, as one batch.
func (p *Process) Dispatch(n int) {
	for _, f := range p.deferred {
		f()
	}
	p.deferred = p.deferred[:0]
	p.step(dfsm.Tick{Now: p.c.now})
	for range n {
		var e event
		switch {
		case len(p.inbox) > 0:
			e = p.inbox[0]
			p.inbox[0] = event{}
			p.inbox = p.inbox[1:]
		case p.joined && p.ringPos < len(p.host.ring.log):
			e = p.host.ring.log[p.ringPos]
			p.ringPos++
		default:
			p.step(dfsm.EndOfBatch{})
			return
		}
		switch e.kind {
		case message:
			p.step(dfsm.Deliver{From: e.from, Bytes: e.raw})
		case view:
			p.step(dfsm.View{Members: e.members, Joined: e.joined})
			if p.leaving && !slices.Contains(e.members, p.self) {
				p.left()
			}
		case quorum:
			p.step(dfsm.EndOfBatch{})
			p.App.Quorum(e.quorate)
		}
	}
	p.step(dfsm.EndOfBatch{})
}

// left ends the membership that Leave wanted to end.
func (p *Process) left() {
	p.joined, p.leaving = false, false
	p.away = !p.final
	p.normals, p.others, p.deferred = nil, nil, nil
	p.inbox = slices.DeleteFunc(p.inbox, func(e event) bool { return e.kind != quorum })
	p.step(dfsm.Restart{})
}

// step hands an event to the machine and does what it asks for.
func (p *Process) step(e dfsm.Event) {
	p.Machine.Step(e)
	for {
		actions := p.Machine.Actions()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			if p.c.cfg.Trace != nil {
				p.c.tracef("%v: %s", p.self, Describe(a))
			}
			if answer, ok := dfsm.Perform(p.App, a); ok {
				if answer != nil {
					p.Machine.Step(answer)
				}
				continue
			}
			switch a := a.(type) {
			case dfsm.Send:
				if a.Normal {
					p.normals = append(p.normals, a.Bytes)
				} else {
					p.others = append(p.others, a)
				}
			case dfsm.SendUpdates:
				p.others = append(p.others, a)
			case dfsm.DropSends:
				p.others = nil
			case dfsm.Checksum:
				sum := p.App.Checksum()
				p.deferred = append(p.deferred, func() {
					done := dfsm.ChecksumDone{ID: a.ID, Epoch: a.Epoch}
					done.Sum, done.Err = sum()
					p.step(done)
				})
			case dfsm.Reply:
				if p.OnReply != nil {
					p.OnReply(a.ID, a.Result)
				}
			case dfsm.Leave:
				p.normals, p.others = nil, nil
				p.leaving, p.final = true, a.Final
				p.c.leaves++
				r := p.host.ring
				r.configure(r.without(p.self), false)
			}
		}
	}
}
