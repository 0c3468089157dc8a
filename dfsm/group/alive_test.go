package group

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/group/transport"
)

func ping(t *testing.T, g *Group, patience time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return g.Ping(ctx)
}

func TestPingIsAnsweredWhereverRunWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{Down: true}
		n := startNode(t, b, 1, nil)
		synctest.Wait()
		if err := ping(t, n.Group, time.Millisecond); err != nil {
			t.Errorf("without a connection: %v", err)
		}
		b.Set(func(b *grouptest.Bus) { b.Down = false })
		time.Sleep(10 * time.Second)
		wantSynced(t, n, 1)
		if err := ping(t, n.Group, time.Millisecond); err != nil {
			t.Errorf("as a member: %v", err)
		}
		n.stop()
		if err := ping(t, n.Group, time.Millisecond); err != nil {
			t.Errorf("after Run: %v", err)
		}
	})
}

func TestPingOfAGroupThatDoesNotRunIsNoWait(t *testing.T) {
	g, err := New(Config{Version: 1, App: &checkedApp{}, Connect: func() (transport.Conn, error) { return nil, grouptest.ErrDown }})
	if err != nil {
		t.Fatal(err)
	}
	if err := ping(t, g, time.Hour); err != nil {
		t.Error(err)
	}
}

func TestPingWaitsForTheApplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, &grouptest.Bus{}, 1, nil)
		time.Sleep(time.Second)
		wantSynced(t, n, 1)
		n.app.delay = time.Minute
		go func() { _ = submit(n, 1, 1) }()
		time.Sleep(time.Second)
		if err := ping(t, n.Group, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while a change is applied: %v", err)
		}
		if d := n.Outside(); d != 0 {
			t.Errorf("it counts as a wait for the transport, for %v", d)
		}
		if err := ping(t, n.Group, time.Minute); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}

// frozen is a transport.Conn whose service answers nothing until thaw is closed.
type frozen struct {
	transport.Conn
	thaw chan struct{}
}

func (f frozen) Mcast(msg []byte) error {
	<-f.thaw
	return f.Conn.Mcast(msg)
}

func TestOutsideTellsThatTheTransportDoesNotLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, thaw := &grouptest.Bus{}, make(chan struct{})
		n := startNode(t, b, 1, func(cfg *Config) {
			cfg.Connect = func() (transport.Conn, error) {
				conn, err := b.Connector(1)()
				return frozen{conn, thaw}, err
			}
		})
		time.Sleep(time.Second)
		wantSynced(t, n, 1)
		n.Post(1, make([]byte, maxDirect+1)) // which is Run's to send
		time.Sleep(time.Minute)
		if err := ping(t, n.Group, time.Second); err == nil {
			t.Error("Ping is answered by a goroutine that is stuck")
		}
		if d := n.Outside(); d < time.Minute || d > 2*time.Minute {
			t.Errorf("outside for %v, want a minute", d)
		}
		close(thaw)
		if err := ping(t, n.Group, time.Second); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
