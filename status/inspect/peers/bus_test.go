package peers

import (
	"errors"
	"slices"
	"sync"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
)

// bus is a process group in memory: one total order for all.
type bus struct {
	mu    sync.Mutex
	conns []*busConn // the joined ones
	mute  map[dfsm.Member]bool
	sent  int                                     // bytes
	lose  func(from dfsm.Member, msg []byte) bool // nil: nothing gets lost

	alter func(from dfsm.Member, msg []byte) []byte // nil: nothing does
}

var errDown = errors.New("bus: down")

type busConn struct {
	b      *bus
	self   dfsm.Member
	queue  []group.Event
	lost   bool
	woken  bool
	notify chan struct{}
}

func (b *bus) connect(node uint32) *busConn {
	return &busConn{b: b, self: dfsm.Member{Node: corosync.NodeID(node), PID: 1000 + node}, notify: make(chan struct{}, 1)}
}

// view tells the members. b.mu is held.
func (b *bus) view(joined bool, also ...*busConn) {
	var members []dfsm.Member
	for _, c := range b.conns {
		members = append(members, c.self)
	}
	for _, c := range append(slices.Clone(b.conns), also...) {
		c.put(group.Event{View: &dfsm.View{Members: members, Joined: joined}})
	}
}

// drop makes what a member sends be lost.
func (b *bus) drop(m dfsm.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mute == nil {
		b.mute = map[dfsm.Member]bool{}
	}
	b.mute[m] = true
}

func (c *busConn) put(e group.Event) {
	c.queue = append(c.queue, e)
	c.signal()
}

func (c *busConn) signal() {
	select {
	case c.notify <- struct{}{}:
	default:
	}
}

// lose ends a connection from outside.
func (c *busConn) lose() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.leave()
	c.lost = true
	c.signal()
}

func (c *busConn) Self() (dfsm.Member, error) { return c.self, nil }

func (c *busConn) Join() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.conns = append(c.b.conns, c)
	c.b.view(true)
	return nil
}

func (c *busConn) Leave() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.leave(c)
	return nil
}

func (c *busConn) leave(also ...*busConn) {
	if i := slices.Index(c.b.conns, c); i >= 0 {
		c.b.conns = slices.Delete(c.b.conns, i, i+1)
		c.b.view(false, also...)
	}
}

func (c *busConn) Mcast(msg []byte) error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.lost {
		return errDown
	}
	if c.b.mute[c.self] || c.b.lose != nil && c.b.lose(c.self, msg) {
		return nil
	}
	if c.b.alter != nil {
		msg = c.b.alter(c.self, msg)
	}
	c.b.sent += len(msg)
	msg = slices.Clone(msg)
	for _, o := range c.b.conns {
		o.put(group.Event{Deliver: dfsm.Deliver{From: c.self, Bytes: msg}})
	}
	return nil
}

func (c *busConn) Next(into []group.Event, timeout time.Duration) ([]group.Event, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		c.b.mu.Lock()
		woken := c.woken
		c.woken = false
		switch {
		case c.lost:
			c.b.mu.Unlock()
			return into, errDown
		case len(c.queue) > 0:
			into = append(into, c.queue...)
			c.queue = nil
			c.b.mu.Unlock()
			return into, nil
		}
		c.b.mu.Unlock()
		if woken {
			return into, nil
		}
		select {
		case <-c.notify:
		case <-t.C:
			return into, nil
		}
	}
}

func (c *busConn) Wake() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.woken = true
	c.signal()
}

func (c *busConn) Close() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.leave()
	c.lost = true
	return nil
}
