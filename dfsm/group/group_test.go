package group

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/dfsmtest"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/dfsm/wire"
)

// node is a daemon on the bus.
type node struct {
	*Group
	app  *checkedApp
	stop func() // ends Run, and waits for its end
}

// checkedApp is the model, counting what is stored.
type checkedApp struct {
	*dfsmtest.Model
	fail   error        // what Apply fails with, once
	stored atomic.Int64 // changes that Apply has returned for
	views  atomic.Int64
	modes  sync.Map // dfsm.Mode: seen
	delay  time.Duration
}

func (a *checkedApp) Apply(batch []dfsm.Message) dfsm.Applied {
	if err := a.fail; err != nil {
		a.fail = nil
		return dfsm.Applied{Err: err}
	}
	done := a.Model.Apply(batch)
	time.Sleep(a.delay) // the transaction; fake time
	a.stored.Add(int64(len(batch)))
	return done
}

func (a *checkedApp) ViewChanged(m []dfsm.Member) { a.views.Add(1) }
func (a *checkedApp) ModeChanged(m dfsm.Mode)     { a.modes.Store(m, true) }

const entries = 64

func startNode(t *testing.T, b *grouptest.Bus, id corosync.NodeID, change func(*Config)) *node {
	t.Helper()
	n := &node{app: &checkedApp{Model: dfsmtest.NewModel(dfsmtest.NewDisk(entries))}}
	n.app.Quorate = true
	cfg := Config{Version: 1, Checksums: true, App: n.app, Connect: b.Connector(id)}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Group = g
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx)
	}()
	n.stop = func() { cancel(); <-done }
	t.Cleanup(n.stop)
	return n
}

func startNodes(t *testing.T, b *grouptest.Bus, count int) []*node {
	var nodes []*node
	for id := range count {
		nodes = append(nodes, startNode(t, b, corosync.NodeID(id+1), nil))
		time.Sleep(time.Second) // fake: also when the queues are full at first
	}
	for _, n := range nodes {
		wantSynced(t, n, count)
	}
	return nodes
}

func wantSynced(t *testing.T, n *node, members int) {
	t.Helper()
	synctest.Wait()
	if s := n.Status(); s.Mode != dfsm.ModeSynced || s.Synced != members || len(s.Members) != members {
		t.Fatalf("node %v: %+v, want %d synced members", s.Self, s, members)
	}
}

func op(key, value int) []byte {
	return dfsmtest.Op{Key: uint32(key), Version: dfsmtest.Any, Value: fmt.Append(nil, value)}.Encode()
}

// Submit sends a message and waits for its result.
func (n *node) Submit(ctx context.Context, subtype uint16, payload []byte) error {
	return wait(ctx, n.Begin(subtype, payload))
}

func wait(ctx context.Context, s *Submission) error {
	select {
	case r := <-s.Done():
		return r.Err
	case <-ctx.Done():
		return s.GiveUp(ctx.Err()).Err
	}
}

func submit(n *node, key, value int) error {
	return n.Submit(context.Background(), 1, op(key, value))
}

// wantAlike checks that all nodes, which must have stopped, hold the same.
func wantAlike(t *testing.T, nodes []*node, changes int) {
	t.Helper()
	first := nodes[0].app.Disk
	if changes >= 0 && len(first.History) != changes {
		t.Errorf("%d changes, want %d", len(first.History), changes)
	}
	for i, n := range nodes[1:] {
		if string(n.app.Disk.State()) != string(first.State()) {
			t.Errorf("node %d has another state than node 1", i+2)
		}
	}
}

func stopAll(nodes []*node) {
	for _, n := range nodes {
		n.stop()
	}
}

func TestManyWritersOnAllNodesGetTheirResultsAfterTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		nodes := startNodes(t, b, 3)
		for _, n := range nodes {
			n.app.delay = time.Millisecond
		}
		var wg sync.WaitGroup
		for i, n := range nodes {
			for w := range 8 {
				wg.Go(func() {
					for k := range 20 {
						before := n.app.stored.Load()
						if err := submit(n, i*8+w, k); err != nil {
							t.Errorf("node %d: %v", i+1, err)
						}
						if n.app.stored.Load() == before {
							t.Errorf("node %d: told before it was stored", i+1)
						}
					}
					refused := dfsmtest.Op{Key: uint32(i*8 + w), Version: 1 << 40}.Encode()
					if err := n.Submit(context.Background(), 1, refused); !errors.Is(err, dfsmtest.ErrModelConflict) {
						t.Errorf("node %d: %v, want the application's refusal", i+1, err)
					}
				})
			}
		}
		wg.Wait()
		synctest.Wait()
		s := nodes[0].Status()
		if s.Waiting != 0 || s.Delivered.Messages[0] != 3*8*21 {
			t.Errorf("%d waiting, %d delivered", s.Waiting, s.Delivered.Messages[0])
		}
		if s.Batches >= s.Delivered.Messages[0] {
			t.Errorf("%d batches of %d messages: none was a batch", s.Batches, s.Delivered.Messages[0])
		}
		stopAll(nodes)
		wantAlike(t, nodes, 3*8*20)
	})
}

func TestFullQueuesDelayMessagesAndLoseNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{Limit: 4}
		nodes := startNodes(t, b, 3)
		for _, n := range nodes {
			n.app.delay = time.Millisecond
		}
		var wg sync.WaitGroup
		for i, n := range nodes {
			for w := range 40 {
				wg.Go(func() {
					if err := submit(n, (i*40+w)%entries, w); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		synctest.Wait()
		if s := nodes[0].Status(); s.Retries == 0 || s.Unsent != 0 {
			t.Errorf("%d retries, %d unsent", s.Retries, s.Unsent)
		}
		stopAll(nodes)
		wantAlike(t, nodes, 120)
	})
}

func TestCallerThatGivesUpIsToldWhetherItsMessageIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		n := startNodes(t, b, 1)[0]
		b.Set(func(b *grouptest.Bus) { b.Held = true })

		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		start := time.Now()
		err := n.Submit(ctx, 1, op(1, 1))
		if !errors.Is(err, ErrTimeout) || errors.Is(err, ErrWithdrawn) || time.Since(start) != 10*time.Second {
			t.Errorf("deadline: %v after %v", err, time.Since(start))
		}

		ctx, interrupt := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, interrupt)
		if err := n.Submit(ctx, 1, op(2, 2)); !errors.Is(err, ErrInterrupted) || errors.Is(err, ErrWithdrawn) {
			t.Errorf("interrupt: %v", err)
		}
		n.own.Lock() // nobody sends it
		if err := n.Submit(ctx, 1, op(3, 3)); !errors.Is(err, ErrInterrupted) || !errors.Is(err, ErrWithdrawn) {
			t.Errorf("interrupted before: %v", err)
		}
		n.own.Unlock()

		// What was sent is applied when the group moves again.
		b.Set(func(b *grouptest.Bus) { b.Held = false })
		if err := submit(n, 4, 4); err != nil {
			t.Error(err)
		}
		n.stop()
		wantAlike(t, []*node{n}, 3)
	})
}

func TestLostConnectionWakesWaitersAndIsTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		nodes := startNodes(t, b, 2)
		b.Set(func(b *grouptest.Bus) { b.Held = true })
		result := make(chan error, 1)
		go func() { result <- submit(nodes[1], 1, 1) }()
		synctest.Wait()
		b.Set(func(b *grouptest.Bus) { b.Down = true })
		b.Cut(2)
		if err := <-result; !errors.Is(err, dfsm.ErrDisconnected) {
			t.Errorf("waiting: %v", err)
		}
		start := time.Now()
		if err := submit(nodes[1], 1, 2); !errors.Is(err, dfsm.ErrDisconnected) || time.Since(start) != 0 {
			t.Errorf("without a connection: %v after %v", err, time.Since(start))
		}
		if s := nodes[1].Status(); s.Connected || !errors.Is(s.LastError, grouptest.ErrDown) {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		connects := nodes[1].Status().Connects
		b.Set(func(b *grouptest.Bus) { b.Held, b.Down = false, false })
		time.Sleep(5 * time.Second)
		wantSynced(t, nodes[1], 2)
		if got := nodes[1].Status().Connects; got != connects+1 {
			t.Errorf("%d connects, then %d", connects, got)
		}
		if err := submit(nodes[1], 1, 3); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		stopAll(nodes)
		wantAlike(t, nodes, -1)
	})
}

func TestNodeOutOfStepLeavesAndIsBackAfterTheBackoff(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := &grouptest.Bus{}
			nodes := startNodes(t, b, 3)
			if stuck {
				b.Set(func(b *grouptest.Bus) { b.Stuck = 2 })
			}
			nodes[1].app.fail = errors.New("disk full")
			if err := submit(nodes[0], 1, 1); err != nil {
				t.Error(err)
			}
			if err := submit(nodes[1], 1, 2); !errors.Is(err, dfsm.ErrDisconnected) {
				t.Errorf("on the node that leaves: %v", err)
			}
			synctest.Wait()
			if stuck {
				time.Sleep(leaveTimeout)
			}
			wantSynced(t, nodes[0], 2)
			time.Sleep(4 * time.Second)
			wantSynced(t, nodes[0], 2)
			time.Sleep(2 * time.Second)
			wantSynced(t, nodes[1], 3)
			if s := nodes[1].Status(); s.Leaves != 1 || s.Joins != 2 {
				t.Errorf("%d leaves, %d joins", s.Leaves, s.Joins)
			}
			stopAll(nodes)
			wantAlike(t, nodes, -1)
		})
	}
}

func TestJoinAndLeaveAreTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{Busy: 5}
		n := startNode(t, b, 1, nil)
		time.Sleep(time.Second)
		wantSynced(t, n, 1)
		if s := n.Status(); s.Connects != 1 || s.Joins != 1 {
			t.Errorf("%d connects, %d joins", s.Connects, s.Joins)
		}
		b.Set(func(b *grouptest.Bus) { b.Busy = 5 })
		start := time.Now()
		n.stop()
		if took := time.Since(start); b.Busy != 0 || b.Members() != 0 || took > time.Second {
			t.Errorf("left after %v, %d calls short", took, b.Busy)
		}
	})
}

func TestNodeWithAFatalErrorNeverComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		nodes := startNodes(t, b, 2)
		nodes[1].app.fail = fmt.Errorf("%w: broken", dfsm.ErrFatal)
		if err := submit(nodes[0], 1, 1); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		wantSynced(t, nodes[0], 1)
		if s := nodes[1].Status(); s.Mode != dfsm.ModeError || s.Connected || s.Connects != 1 {
			t.Errorf("%+v", s)
		}
		if err := submit(nodes[1], 1, 2); !errors.Is(err, dfsm.ErrDisconnected) {
			t.Error(err)
		}
	})
}

func TestGroupIsJoinedWhenTheApplicationIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		var ready atomic.Bool
		n := startNode(t, b, 1, func(c *Config) {
			c.Ready = func() error {
				if !ready.Load() {
					return errors.New("no database")
				}
				return nil
			}
		})
		time.Sleep(time.Minute)
		if s := n.Status(); s.Mode != dfsm.ModeStart || s.Joins != 0 {
			t.Errorf("%+v", s)
		}
		ready.Store(true)
		time.Sleep(6 * time.Second)
		wantSynced(t, n, 1)
	})
}

func TestStopLeavesAndTellsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		nodes := startNodes(t, b, 2)
		b.Set(func(b *grouptest.Bus) { b.Full = true })
		result := make(chan error, 1)
		go func() { result <- submit(nodes[1], 1, 1) }()
		synctest.Wait()
		nodes[1].stop()
		if err := <-result; !errors.Is(err, dfsm.ErrDisconnected) {
			t.Error(err)
		}
		if err := submit(nodes[1], 1, 1); !errors.Is(err, dfsm.ErrDisconnected) {
			t.Errorf("after the end: %v", err)
		}
		nodes[1].Post(1, op(1, 1)) // has no effect, and does not block
		b.Set(func(b *grouptest.Bus) { b.Full = false })
		wantSynced(t, nodes[0], 1)
	})
}

func TestWritersGoOnDuringALongSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{Limit: 8}
		const many = 20_000
		big := func() *dfsmtest.Disk { return dfsmtest.NewDisk(many) }
		first := startNode(t, b, 1, func(c *Config) { c.App.(*checkedApp).Disk = big() })
		synctest.Wait()
		for k := range many {
			first.Post(1, op(k, k))
		}
		if err := submit(first, 0, 1); err != nil {
			t.Fatal(err)
		}
		second := startNode(t, b, 2, func(c *Config) { c.App.(*checkedApp).Disk = big() })
		for first.Status().Mode == dfsm.ModeSynced && len(first.Status().Members) < 2 {
			time.Sleep(time.Microsecond)
		}
		during := 0
		for {
			if err := submit(first, 1, 1); err != nil {
				t.Fatal(err)
			}
			if second.Status().Mode == dfsm.ModeSynced {
				break
			}
			during++
		}
		if during < 100 {
			t.Errorf("%d writes while %d entries were sent", during, many)
		}
		synctest.Wait()
		stopAll([]*node{first, second})
		wantAlike(t, []*node{first, second}, -1)
	})
}

func TestChecksumsAreComparedHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		nodes := startNodes(t, b, 3)
		if err := submit(nodes[2], 1, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour + 2*idle)
		for _, n := range nodes {
			wantSynced(t, n, 3)
			if s := n.Status(); s.Verifications != 2 || s.Leaves != 0 {
				t.Errorf("node %v: %d verifications, %d leaves", s.Self, s.Verifications, s.Leaves)
			} else if age := time.Since(s.LastVerified); s.Verified != 2 || s.Mismatches != 0 || age > time.Hour {
				t.Errorf("node %v: %d well, %d not, the last %v ago", s.Self, s.Verified, s.Mismatches, age)
			}
		}
	})
}

// lying is an application whose checksum is wrong.
type lying struct{ *checkedApp }

func (l lying) Checksum() func() ([wire.ChecksumSize]byte, error) {
	sum := l.checkedApp.Checksum()
	return func() ([wire.ChecksumSize]byte, error) {
		s, err := sum()
		s[0]++
		return s, err
	}
}

func TestDifferenceFoundByAVerificationIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		first := startNode(t, b, 1, nil)
		time.Sleep(time.Second)
		second := startNode(t, b, 2, func(c *Config) { c.App = lying{c.App.(*checkedApp)} })
		time.Sleep(time.Hour + 2*idle)
		if s := first.Status(); s.Verified != 1 || s.Mismatches != 0 {
			t.Errorf("who asked: %+v", s)
		}
		if s := second.Status(); s.Verified != 0 || s.Mismatches != 1 || s.Leaves != 1 || s.LastVerified.IsZero() {
			t.Errorf("who lies: %+v", s)
		}
	})
}

func TestStatusIsReadWhileAWriterHoldsTheGroup(t *testing.T) {
	g, err := New(Config{App: &checkedApp{}, Connect: func() (transport.Conn, error) { return nil, grouptest.ErrDown }})
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.Status(); s.Mode != dfsm.ModeStart || s.Connected {
		t.Errorf("%+v", s)
	}
}

func TestSyncsAreCountedByWhatBeganThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		var nodes []*node
		var told [3]map[SyncReason]int
		for i := range told {
			told[i] = map[SyncReason]int{}
			nodes = append(nodes, startNode(t, b, corosync.NodeID(i+1), func(c *Config) {
				c.Synced = func(r SyncReason, took time.Duration) {
					if told[i][r]++; took < 0 || took > time.Second {
						t.Errorf("%v took %v", r, took)
					}
				}
			}))
			time.Sleep(time.Second)
		}
		nodes[2].stop()
		synctest.Wait()
		for i, want := range [][SyncReasons]uint64{{0, 2, 1}, {1, 1, 1}, {1, 0, 0}} {
			got := nodes[i].Status().Syncs
			if got != want {
				t.Errorf("node %d: %v, want %v", i+1, got, want)
			}
			for r, n := range want {
				if told[i][SyncReason(r)] != int(n) {
					t.Errorf("node %d was told %v", i+1, told[i])
				}
			}
		}
		if v := nodes[0].Status().Views; v != 4 {
			t.Errorf("%d views", v)
		}
	})
}

func TestRandomFaultsLeaveAllNodesAlike(t *testing.T) {
	rounds := 20
	if testing.Short() || raced {
		rounds = 4
	}
	first := uint64(time.Now().UnixNano())
	for i := range rounds {
		seed := first + uint64(i)
		ok := t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomFaults(t, seed) })
		})
		if !ok {
			return
		}
	}
}

func randomFaults(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := &grouptest.Bus{Limit: rnd.IntN(10)}
	nodes := startNodes(t, b, 2+rnd.IntN(4))
	var acked atomic.Int64
	ctx, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, n := range nodes {
		for w := range 3 {
			writer := rand.New(rand.NewPCG(seed, uint64(i*10+w+2)))
			wg.Go(func() {
				for ctx.Err() == nil {
					call, cancel := context.WithTimeout(ctx, time.Duration(1+writer.IntN(3000))*time.Millisecond)
					if n.Submit(call, 1, op(writer.IntN(entries), writer.IntN(100))) == nil {
						acked.Add(1)
					}
					cancel()
					time.Sleep(time.Duration(writer.IntN(50)) * time.Millisecond)
				}
			})
		}
	}
	for range 40 {
		time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
		switch rnd.IntN(4) {
		case 0, 1:
			b.Cut(corosync.NodeID(1 + rnd.IntN(len(nodes))))
		case 2:
			b.Set(func(b *grouptest.Bus) { b.Full = !b.Full })
		case 3:
			b.Set(func(b *grouptest.Bus) { b.Held = !b.Held })
		}
	}
	b.Set(func(b *grouptest.Bus) { b.Full, b.Held = false, false })
	time.Sleep(20 * time.Second)
	end()
	wg.Wait()
	time.Sleep(time.Second)
	for _, n := range nodes {
		wantSynced(t, n, len(nodes))
		if s := n.Status(); s.Waiting != 0 || s.Unsent != 0 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
	}
	stopAll(nodes)
	wantAlike(t, nodes, -1)
	if acked.Load() == 0 {
		t.Error("nothing was acknowledged")
	}
}

func TestNormalMessagesLeaveInTheOrderOfTheirCounts(t *testing.T) {
	var o outbox
	msg := func(count uint64) []byte {
		m := wire.Message{Header: wire.Header{Version: 1}, Count: count}
		return m.Encode()
	}
	for _, c := range []uint64{5, 6, 9, 3, 4, 7} {
		o.pushNormal(msg(c))
	}
	o.normals.pop()
	o.pushNormal(msg(1))
	var got []uint64
	for ; o.normals.len() > 0; o.normals.pop() {
		got = append(got, count(*o.normals.first()))
	}
	if want := []uint64{1, 4, 5, 6, 7, 9}; !slices.Equal(got, want) {
		t.Errorf("left as %v, want %v", got, want)
	}
}

// nothing is an application that does nothing.
type nothing struct{ *dfsmtest.Model }

func (nothing) Apply([]dfsm.Message) dfsm.Applied { return dfsm.Applied{} }

// BenchmarkSubmission is the driver's own share of a write: the bus costs next to
// nothing, the application nothing.
func BenchmarkSubmission(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%dclients", clients), func(b *testing.B) {
			bus := &grouptest.Bus{}
			g, err := New(Config{Version: 1, App: nothing{dfsmtest.NewModel(dfsmtest.NewDisk(1))}, Connect: bus.Connector(1)})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var run sync.WaitGroup
			run.Go(func() { g.Run(ctx) })
			defer run.Wait()
			defer cancel()
			for g.Status().Mode != dfsm.ModeSynced {
				runtime.Gosched()
			}
			payload := make([]byte, 100)
			b.ResetTimer()
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for range clients {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if err := wait(ctx, g.Begin(1, payload)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
