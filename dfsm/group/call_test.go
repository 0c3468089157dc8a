package group

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pmxcfs/dfsm"
)

// wakeCounter counts how often a connection is woken.
type wakeCounter struct {
	Transport
	wakes *atomic.Int64
}

func (c wakeCounter) Wake() {
	c.wakes.Add(1)
	c.Transport.Wake()
}

func TestAMessageLeavesWithoutWakingRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		var wakes atomic.Int64
		n := startNode(t, b, 1, func(c *Config) {
			c.Connect = func() (Transport, error) {
				conn, err := b.connect(1)
				return wakeCounter{conn, &wakes}, err
			}
		})
		wantSynced(t, n, 1)
		before := wakes.Load()
		for i := range 10 {
			if err := submit(n, 1, i); err != nil {
				t.Fatal(err)
			}
		}
		n.Post(1, op(1, 11))
		synctest.Wait()
		if woken := wakes.Load() - before; woken != 0 || n.app.stored.Load() != 11 {
			t.Errorf("woken %d times for %d messages", woken, n.app.stored.Load())
		}
	})
}

// senders counts who sends: callers, and Run.
type senders struct {
	Transport
	group         *atomic.Pointer[Group] // nil: not yet
	byCaller, run *int
}

func (s senders) Mcast(msg []byte) error {
	if g := s.group.Load(); g != nil && g.byCaller {
		*s.byCaller++
	} else if g != nil {
		*s.run++
	}
	return s.Transport.Mcast(msg)
}

func TestACallersThreadIsNotRiskedWhenNothingComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		var g atomic.Pointer[Group]
		var byCaller, run int // guarded by the group's own
		n := startNode(t, b, 1, func(c *Config) {
			c.Connect = func() (Transport, error) {
				conn, err := b.connect(1)
				return senders{conn, &g, &byCaller, &run}, err
			}
		})
		wantSynced(t, n, 1)
		g.Store(n.Group)
		b.set(func(b *bus) { b.held = true })
		for i := range 3 * maxOwed {
			n.Post(1, op(1, i))
		}
		synctest.Wait()
		n.own.Lock()
		if byCaller != maxOwed || byCaller+run != 3*maxOwed {
			t.Errorf("callers have sent %d, Run %d, want %d and %d", byCaller, run, maxOwed, 2*maxOwed)
		}
		n.own.Unlock()
		b.set(func(b *bus) { b.held = false })
		synctest.Wait()
		if n.app.stored.Load() != 3*maxOwed || n.owed != 0 {
			t.Errorf("%d messages applied, %d owed", n.app.stored.Load(), n.owed)
		}
	})
}

func TestAFailedCallEndsTheMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		n := startNode(t, b, 1, nil)
		wantSynced(t, n, 1)
		called := 0
		if !n.Call(func() error { called++; return nil }) {
			t.Error("refused")
		}
		synctest.Wait()
		if s := n.Status(); called != 1 || s.Leaves != 0 {
			t.Errorf("called %d times, left %d times", called, s.Leaves)
		}
		n.Call(func() error { return errors.New("no more") })
		synctest.Wait()
		if s := n.Status(); s.Leaves != 1 {
			t.Errorf("left %d times: %+v", s.Leaves, s)
		}
		if err := submit(n, 1, 1); !errors.Is(err, dfsm.ErrDisconnected) {
			t.Errorf("submit: %v", err)
		}
		n.stop()
		if n.Call(func() error { called++; return nil }) || called != 1 {
			t.Error("called after the end")
		}
	})
}
