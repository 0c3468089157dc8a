package group

import (
	"errors"
	"slices"
	"sync"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
)

// bus is a process group in memory: one total order for all.
type bus struct {
	mu    sync.Mutex
	conns []*busConn // the joined ones
	limit int        // how many events a member may leave undispatched; 0: any
	held  bool       // nothing is delivered
	full  bool       // nothing is taken
	busy  int        // how many calls of Join and Leave shall be made again
	down  bool       // nobody can connect
}

var (
	errBusDown   = errors.New("bus: down")
	errBusJoined = errors.New("bus: a connection is a member once")
)

// busConn is a connection of a node. Its daemon has a pid that stays.
type busConn struct {
	b      *bus
	self   dfsm.Member
	queue  []Event
	joined bool
	lost   bool
	woken  bool
	stuck  bool // Leave has no effect
	notify chan struct{}
}

func (b *bus) connect(node uint32) (Transport, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, errBusDown
	}
	return &busConn{b: b, self: dfsm.Member{Node: corosync.NodeID(node), PID: 1000 + node}, notify: make(chan struct{}, 1)}, nil
}

// view tells the members. b.mu is held.
func (b *bus) view(joined bool, also ...*busConn) {
	var members []dfsm.Member
	for _, c := range b.conns {
		members = append(members, c.self)
	}
	for _, c := range append(slices.Clone(b.conns), also...) {
		c.put(Event{View: &dfsm.View{Members: members, Joined: joined}})
	}
}

func (c *busConn) put(e Event) {
	c.queue = append(c.queue, e)
	c.signal()
}

func (c *busConn) signal() {
	select {
	case c.notify <- struct{}{}:
	default:
	}
}

// set changes how the bus behaves.
func (b *bus) set(f func(b *bus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
	for _, c := range b.conns {
		c.signal()
	}
}

// cut makes a node lose its connection.
func (b *bus) cut(node uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.conns, func(c *busConn) bool { return c.self.Node == corosync.NodeID(node) })
	if i < 0 {
		return
	}
	c := b.conns[i]
	b.conns = slices.Delete(b.conns, i, i+1)
	c.lost = true
	c.signal()
	b.view(false)
}

func (c *busConn) Self() (dfsm.Member, error) { return c.self, nil }

func (c *busConn) Join() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.lost {
		return errBusDown
	}
	if c.b.busy > 0 {
		c.b.busy--
		return ErrTryAgain
	}
	if c.joined {
		return errBusJoined
	}
	c.joined = true
	c.b.conns = append(c.b.conns, c)
	c.b.view(true)
	return nil
}

func (c *busConn) Leave() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.lost {
		return errBusDown
	}
	if c.b.busy > 0 {
		c.b.busy--
		return ErrTryAgain
	}
	if !c.stuck {
		c.leave(c)
	}
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
		return errBusDown
	}
	if c.b.full {
		return ErrTryAgain
	}
	for _, o := range c.b.conns {
		if c.b.limit > 0 && len(o.queue) >= c.b.limit {
			return ErrTryAgain
		}
	}
	msg = slices.Clone(msg)
	for _, o := range c.b.conns {
		o.put(Event{Deliver: dfsm.Deliver{From: c.self, Bytes: msg}})
	}
	return nil
}

func (c *busConn) Next(into []Event, timeout time.Duration) ([]Event, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		c.b.mu.Lock()
		woken := c.woken
		c.woken = false
		switch {
		case c.lost:
			c.b.mu.Unlock()
			return into, errBusDown
		case len(c.queue) > 0 && !c.b.held:
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
