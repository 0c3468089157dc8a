package dcdb

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// ring is a process group in memory.
type ring struct {
	mu    sync.Mutex
	conns []*ringConn
	held  bool // nothing is delivered
	down  bool // nobody can connect
	sent  []wire.Message
}

type ringConn struct {
	r      *ring
	self   dfsm.Member
	queue  []group.Event
	woken  bool
	lost   bool
	joined bool
	wake   chan struct{}
}

var (
	errRingDown   = errors.New("ring: down")
	errRingJoined = errors.New("ring: a connection is a member once")
)

func (r *ring) connect(node int) func() (group.Transport, error) {
	return func() (group.Transport, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.down {
			return nil, errRingDown
		}
		return &ringConn{r: r, self: dfsm.Member{Node: corosync.NodeID(node), PID: 1}, wake: make(chan struct{}, 1)}, nil
	}
}

// set changes how the ring behaves.
func (r *ring) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	for _, c := range r.conns {
		c.signal()
	}
}

// normals returns the normal messages that were sent.
func (r *ring) normals() (list []wire.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.sent {
		if m.Type == wire.Normal {
			list = append(list, m)
		}
	}
	return list
}

func (r *ring) tell(e group.Event, to ...*ringConn) {
	for _, c := range to {
		c.queue = append(c.queue, e)
		c.signal()
	}
}

func (r *ring) view(joined bool, also ...*ringConn) {
	var members []dfsm.Member
	for _, c := range r.conns {
		members = append(members, c.self)
	}
	r.tell(group.Event{View: &dfsm.View{Members: members, Joined: joined}}, append(also, r.conns...)...)
}

// cutAll takes all connections away.
func (r *ring) cutAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := r.conns
	r.conns = nil
	for _, c := range conns {
		c.lost = true
		c.signal()
	}
}

func (c *ringConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *ringConn) Self() (dfsm.Member, error) { return c.self, nil }

func (c *ringConn) Join() error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.joined {
		return errRingJoined
	}
	c.joined = true
	c.r.conns = append(c.r.conns, c)
	c.r.view(true)
	return nil
}

func (c *ringConn) Leave() error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.drop(c)
	return nil
}

func (c *ringConn) drop(also ...*ringConn) {
	if i := slices.Index(c.r.conns, c); i >= 0 {
		c.r.conns = slices.Delete(c.r.conns, i, i+1)
		c.r.view(false, also...)
	}
}

func (c *ringConn) Mcast(msg []byte) error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.lost {
		return errRingDown
	}
	msg = slices.Clone(msg)
	if m, err := wire.Decode(msg); err == nil {
		c.r.sent = append(c.r.sent, m)
	}
	c.r.tell(group.Event{Deliver: dfsm.Deliver{From: c.self, Bytes: msg}}, c.r.conns...)
	return nil
}

func (c *ringConn) Next(into []group.Event, timeout time.Duration) ([]group.Event, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	for {
		c.r.mu.Lock()
		woken, lost := c.woken, c.lost
		c.woken = false
		if !c.r.held && len(c.queue) > 0 {
			into, c.queue = append(into, c.queue...), nil
			woken = true
		}
		c.r.mu.Unlock()
		switch {
		case lost:
			return into, errRingDown
		case woken:
			return into, nil
		}
		select {
		case <-c.wake:
		case <-t.C:
			return into, nil
		}
	}
}

func (c *ringConn) Wake() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.woken = true
	c.signal()
}

func (c *ringConn) Close() error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.drop()
	c.lost = true
	return nil
}

// testNode is a node's store on a ring.
type testNode struct {
	*Cluster
	file  *memFile
	watch *lockedWatcher
	logs  *logLines
	stop  func()
}

// lockedWatcher is a watcher that others may look at.
type lockedWatcher struct {
	mu sync.Mutex
	w  watcher
}

func (l *lockedWatcher) Applied(op *memdb.Op, changes []memdb.Change, foreign bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w.Applied(op, changes, foreign)
}

func (l *lockedWatcher) Reset(changes []memdb.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w.Reset(changes)
}

func (l *lockedWatcher) told(path string) (own, foreign bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.w.own, path), slices.Contains(l.w.foreign, path)
}

// logLines is a slog.Handler that keeps the messages.
type logLines struct {
	mu   sync.Mutex
	text []string
}

func (l *logLines) Enabled(context.Context, slog.Level) bool { return true }
func (l *logLines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, r.Message)
	return nil
}
func (l *logLines) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logLines) WithGroup(string) slog.Handler      { return l }

func (l *logLines) contain(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.text, text)
}

// start starts a node with an empty tree, or with the given one.
func (r *ring) start(t *testing.T, node int, change func(*ClusterConfig)) *testNode {
	t.Helper()
	tree := memdb.New()
	n := &testNode{watch: &lockedWatcher{}, logs: &logLines{}}
	cfg := ClusterConfig{
		Config:  Config{Tree: tree, Log: slog.New(n.logs), Observer: n.watch},
		Connect: r.connect(node),
		Timeout: 30 * time.Second,
		Backoff: 10 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	n.file = newMemFile(cfg.Tree)
	if cfg.DB == nil {
		cfg.DB = n.file
	}
	c, err := NewCluster(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Cluster = c
	c.SetQuorate(true)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// startAll starts nodes 1 to n, which are in sync when it returns.
func (r *ring) startAll(t *testing.T, n int, change func(*ClusterConfig)) (nodes []*testNode) {
	t.Helper()
	for i := range n {
		nodes = append(nodes, r.start(t, i+1, change))
	}
	for _, node := range nodes {
		node.synced(t, n)
	}
	return nodes
}

func (n *testNode) synced(t testing.TB, members int) {
	t.Helper()
	testutil.WaitFor(t, "synced", func() bool {
		s := n.Status().Group
		return s.Mode == dfsm.ModeSynced && len(s.Members) == members && s.Synced == members
	})
}

// alike waits until all nodes show the same tree, and checks that their files
// hold it.
func alike(t *testing.T, nodes ...*testNode) {
	t.Helper()
	testutil.WaitFor(t, "alike", func() bool {
		for _, n := range nodes {
			if n.Tree().Checksum() != nodes[0].Tree().Checksum() {
				return false
			}
		}
		return true
	})
	for _, n := range nodes {
		testutil.WaitFor(t, "stored", func() bool { return n.file.tree(t).Checksum() == nodes[0].Tree().Checksum() })
	}
}
