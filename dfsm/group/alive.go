package group

import (
	"context"
	"time"

	"pmxcfs/dfsm/group/transport"
)

// Ping returns nil when Run's goroutine has come around once more: it has been
// through whatever it was doing, and looks at what is asked of it. While Run
// does not run there is nothing to wait for. The only error is ctx's.
func (g *Group) Ping(ctx context.Context) error {
	g.mu.Lock()
	if !g.running {
		g.mu.Unlock()
		return nil
	}
	pong := make(chan struct{})
	g.pings = append(g.pings, pong)
	g.wake()
	g.mu.Unlock()
	select {
	case <-pong:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pong answers the pings so far. mu is held.
func (g *Group) pong() {
	for _, p := range g.pings {
		close(p)
	}
	g.pings = nil
}

// Outside returns for how long Run's goroutine, or a caller that sends and that Run waits
// for, has been in its present call of the transport; 0 means they are in none. While a Ping
// waits, a Next is woken, so a long time means that the service behind the transport does
// not let go of it.
func (g *Group) Outside() time.Duration {
	longest := time.Duration(0)
	for _, called := range [...]int64{g.called.Load(), g.lent.Load()} {
		if called != 0 {
			longest = max(longest, 1, time.Since(g.epoch)-time.Duration(called))
		}
	}
	return longest
}

// outside notes that a call of the transport begins; the function returned,
// that it has ended.
func (g *Group) outside() (end func()) {
	g.called.Store(max(1, int64(time.Since(g.epoch))))
	return g.inside
}

func (g *Group) inside() { g.called.Store(0) }

// clocked is a transport.Conn that notes when Run is in one of its calls.
type clocked struct {
	transport.Conn
	g *Group
}

func (c *clocked) Join() error {
	defer c.g.outside()()
	return c.Conn.Join()
}

func (c *clocked) Leave() error {
	defer c.g.outside()()
	return c.Conn.Leave()
}

func (c *clocked) Mcast(msg []byte) error {
	if c.g.byCaller { // while Run is in Next
		c.g.lent.Store(max(1, int64(time.Since(c.g.epoch))))
		defer c.g.lent.Store(0)
		return c.Conn.Mcast(msg)
	}
	defer c.g.outside()()
	return c.Conn.Mcast(msg)
}

func (c *clocked) Next(into []transport.Event, timeout time.Duration) ([]transport.Event, error) {
	defer c.g.outside()()
	return c.Conn.Next(into, timeout)
}

func (c *clocked) Close() error {
	defer c.g.outside()()
	return c.Conn.Close()
}
