package group

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/group/transport"
)

// wakeCounter counts how often a connection is woken.
type wakeCounter struct {
	transport.Conn
	wakes *atomic.Int64
}

func (c wakeCounter) Wake() {
	c.wakes.Add(1)
	c.Conn.Wake()
}

func TestAMessageLeavesWithoutWakingRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		var wakes atomic.Int64
		n := startNode(t, b, 1, func(c *Config) {
			c.Connect = func() (transport.Conn, error) {
				conn, err := b.Connector(1)()
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
	transport.Conn
	group         *atomic.Pointer[Group] // nil means not yet
	byCaller, run *int
}

func (s senders) Mcast(msg []byte) error {
	if g := s.group.Load(); g != nil && g.byCaller {
		*s.byCaller++
	} else if g != nil {
		*s.run++
	}
	return s.Conn.Mcast(msg)
}

func TestACallersThreadIsNotRiskedWhenNothingComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		var g atomic.Pointer[Group]
		var byCaller, run int // guarded by the group's own
		n := startNode(t, b, 1, func(c *Config) {
			c.Connect = func() (transport.Conn, error) {
				conn, err := b.Connector(1)()
				return senders{conn, &g, &byCaller, &run}, err
			}
		})
		wantSynced(t, n, 1)
		g.Store(n.Group)
		b.Set(func(b *grouptest.Bus) { b.Held = true })
		for i := range 3 * maxOwed {
			n.Post(1, op(1, i))
		}
		synctest.Wait()
		n.own.Lock()
		if byCaller != maxOwed || byCaller+run != 3*maxOwed {
			t.Errorf("callers have sent %d, Run %d, want %d and %d", byCaller, run, maxOwed, 2*maxOwed)
		}
		n.own.Unlock()
		b.Set(func(b *grouptest.Bus) { b.Held = false })
		synctest.Wait()
		if n.app.stored.Load() != 3*maxOwed || n.owed != 0 {
			t.Errorf("%d messages applied, %d owed", n.app.stored.Load(), n.owed)
		}
	})
}

func TestAFailedCallEndsTheMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
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

func TestAFailureWithoutAMembershipKeepsNobodyOut(t *testing.T) {
	for name, failure := range map[string]error{"for now": errors.New("no room"), "for good": dfsm.ErrFatal} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &grouptest.Bus{}
				n := startNode(t, b, 1, nil)
				wantSynced(t, n, 1)
				b.Set(func(b *grouptest.Bus) { b.Down = true })
				b.Cut(1)
				time.Sleep(time.Second)
				n.Call(func() error { return failure })
				time.Sleep(time.Minute) // which never ends if Run spins
				b.Set(func(b *grouptest.Bus) { b.Down = false })
				time.Sleep(time.Minute)
				if failure != dfsm.ErrFatal {
					wantSynced(t, n, 1)
				} else if s := n.Status(); !s.Mode.Final() || s.Connected {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A connection is a member once: cpg_join(3) on a handle that has left fails.
func TestWhoHasLeftJoinsOnANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		n := startNode(t, b, 1, func(c *Config) { c.Backoff = time.Second })
		wantSynced(t, n, 1)
		n.Call(func() error { return errors.New("no room") })
		time.Sleep(1100 * time.Millisecond)
		wantSynced(t, n, 1)
		if s := n.Status(); s.Leaves != 1 || s.Joins != 2 || s.Connects != 2 || s.LastError != nil {
			t.Errorf("%+v", s)
		}
	})
}

// stuckSender is a transport.Conn whose Mcast does not return.
type stuckSender struct {
	transport.Conn
	stuck *atomic.Bool
	thaw  chan struct{}
}

func (s stuckSender) Mcast(msg []byte) error {
	if s.stuck.Load() {
		<-s.thaw
	}
	return s.Conn.Mcast(msg)
}

func (n *node) lentSince(d time.Duration) bool {
	at := n.lent.Load()
	return at != 0 && time.Since(n.epoch)-time.Duration(at) >= d
}

// Not in a bubble: who waits for a mutex does not count as blocked there.
func TestOutsideTellsOfACallerWhoSendsToo(t *testing.T) {
	b, thaw := &grouptest.Bus{}, make(chan struct{})
	var stuck atomic.Bool
	n := startNode(t, b, 1, func(cfg *Config) {
		cfg.Connect = func() (transport.Conn, error) {
			conn, err := b.Connector(1)()
			return stuckSender{conn, &stuck, thaw}, err
		}
	})
	for n.Status().Mode != dfsm.ModeSynced {
		time.Sleep(time.Millisecond)
	}
	stuck.Store(true)
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		n.Post(1, op(1, 1))
	}()
	for !n.lentSince(time.Millisecond) {
		time.Sleep(time.Millisecond)
	}
	const asked = 200 * time.Millisecond
	if err := ping(t, n.Group, asked); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping is answered although nothing can be done: %v", err)
	}
	if d := n.Outside(); d < asked { // Run is back from its Next, and waits
		t.Errorf("outside for %v", d)
	}
	stuck.Store(false)
	close(thaw)
	<-posted
}
