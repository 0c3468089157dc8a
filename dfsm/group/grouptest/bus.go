// Package grouptest is a process group in memory, for tests of what runs over one: all
// members get all messages and views in one order.
package grouptest

import (
	"errors"
	"slices"
	"sync"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/transport"
)

// ErrDown is the error of a connection that is lost, and of an attempt to make one
// while the bus is down.
var ErrDown = errors.New("grouptest: down")

var errJoined = errors.New("grouptest: a connection is a member once")

// Bus is the group. The zero value is one without members. Once it is in use, its fields are
// for Set to change.
type Bus struct {
	Down  bool            // nobody can connect
	Held  bool            // nothing is delivered
	Full  bool            // nothing is taken
	Limit int             // how many events a member may leave undelivered; 0 means any number
	Busy  int             // so many calls of Join and Leave must be made again
	Stuck corosync.NodeID // this node's Leave has no effect; 0 means nobody's

	// Sending, if not nil, says what becomes of a message: what is sent instead, and
	// whether anything is. It is called with the bus's lock held.
	Sending func(from dfsm.Member, msg []byte) (instead []byte, sent bool)

	mu      sync.Mutex // guards all here, and the connections' queues
	members []*Conn    // in the order of their joining
}

// Set changes how the bus behaves.
func (b *Bus) Set(change func(b *Bus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
	for _, c := range b.members {
		c.signal()
	}
}

// Members returns how many members there are.
func (b *Bus) Members() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.members)
}

// Send delivers a message as if a member had sent it.
func (b *Bus) Send(from dfsm.Member, msg []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(transport.Event{Deliver: dfsm.Deliver{From: from, Bytes: msg}}, b.members...)
}

// Cut makes a node lose its connection, if it is a member.
func (b *Bus) Cut(node corosync.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.IndexFunc(b.members, func(c *Conn) bool { return c.self.Node == node }); i >= 0 {
		b.members[i].lose()
	}
}

// CutAll makes all members lose their connections.
func (b *Bus) CutAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.members) > 0 {
		b.members[0].lose()
	}
}

func (b *Bus) tell(e transport.Event, to ...*Conn) {
	for _, c := range to {
		c.queue = append(c.queue, e)
		c.signal()
	}
}

// changed tells all members, and who has left, who is a member now.
func (b *Bus) changed(joined bool, left ...*Conn) {
	members := make([]dfsm.Member, len(b.members))
	for i, c := range b.members {
		members[i] = c.self
	}
	b.tell(transport.Event{View: &dfsm.View{Members: members, Joined: joined}}, slices.Concat(b.members, left)...)
}

// Conn is a connection to the bus, a transport.Conn. The bus's lock guards its fields.
type Conn struct {
	bus    *Bus
	self   dfsm.Member
	queue  []transport.Event
	joined bool // a connection is a member once
	lost   bool
	woken  bool
	notify chan struct{}
}

var _ transport.Conn = (*Conn)(nil)

// Connect makes a connection for a process.
func (b *Bus) Connect(self dfsm.Member) (*Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Down {
		return nil, ErrDown
	}
	return &Conn{bus: b, self: self, notify: make(chan struct{}, 1)}, nil
}

// Connector returns a function that connects a node, whose process has the id 1000 + node.
func (b *Bus) Connector(node corosync.NodeID) func() (transport.Conn, error) {
	return func() (transport.Conn, error) { return b.Connect(dfsm.Member{Node: node, PID: 1000 + uint32(node)}) }
}

// signal wakes Next to look again.
func (c *Conn) signal() {
	select {
	case c.notify <- struct{}{}:
	default:
	}
}

// lose ends the connection from outside.
func (c *Conn) lose() {
	c.leave()
	c.lost = true
	c.signal()
}

// leave ends the membership. Of the members that have left only those named hear of it.
func (c *Conn) leave(also ...*Conn) {
	if i := slices.Index(c.bus.members, c); i >= 0 {
		c.bus.members = slices.Delete(c.bus.members, i, i+1)
		c.bus.changed(false, also...)
	}
}

// Self implements transport.Conn.
func (c *Conn) Self() (dfsm.Member, error) { return c.self, nil }

// Join implements transport.Conn.
func (c *Conn) Join() error {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	switch {
	case c.lost:
		return ErrDown
	case c.bus.busy():
		return transport.ErrTryAgain
	case c.joined:
		return errJoined
	}
	c.joined = true
	c.bus.members = append(c.bus.members, c)
	c.bus.changed(true)
	return nil
}

// Leave implements transport.Conn.
func (c *Conn) Leave() error {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	switch {
	case c.lost:
		return ErrDown
	case c.bus.busy():
		return transport.ErrTryAgain
	case c.self.Node != c.bus.Stuck:
		c.leave(c)
	}
	return nil
}

func (b *Bus) busy() bool {
	if b.Busy == 0 {
		return false
	}
	b.Busy--
	return true
}

// Mcast implements transport.Conn.
func (c *Conn) Mcast(msg []byte) error {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	switch {
	case c.lost:
		return ErrDown
	case c.bus.Full:
		return transport.ErrTryAgain
	}
	if limit := c.bus.Limit; limit > 0 && slices.ContainsFunc(c.bus.members, func(o *Conn) bool { return len(o.queue) >= limit }) {
		return transport.ErrTryAgain
	}
	msg = slices.Clone(msg)
	if c.bus.Sending != nil {
		var sent bool
		if msg, sent = c.bus.Sending(c.self, msg); !sent {
			return nil
		}
	}
	c.bus.tell(transport.Event{Deliver: dfsm.Deliver{From: c.self, Bytes: msg}}, c.bus.members...)
	return nil
}

// Next implements transport.Conn.
func (c *Conn) Next(into []transport.Event, timeout time.Duration) ([]transport.Event, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		into, done, err := c.take(into)
		if done || err != nil {
			return into, err
		}
		select {
		case <-c.notify:
		case <-timer.C:
			return into, nil
		}
	}
}

// take appends the events that are there. It reports whether Next has something to return for.
func (c *Conn) take(into []transport.Event) (events []transport.Event, done bool, err error) {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	if c.lost {
		return into, true, ErrDown
	}
	done, c.woken = c.woken, false
	if len(c.queue) > 0 && !c.bus.Held {
		into, c.queue = append(into, c.queue...), nil
		done = true
	}
	return into, done, nil
}

// Drop forgets the events that Next would return.
func (c *Conn) Drop() {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	c.queue = nil
}

// Cut makes this connection get lost.
func (c *Conn) Cut() {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	c.lose()
}

// Wake implements transport.Conn.
func (c *Conn) Wake() {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	c.woken = true
	c.signal()
}

// Close implements transport.Conn.
func (c *Conn) Close() error {
	c.bus.mu.Lock()
	defer c.bus.mu.Unlock()
	c.leave()
	c.lost = true
	return nil
}
