package dcdb

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// ring is a process group in memory that keeps what is sent.
type ring struct {
	grouptest.Bus
	mu   sync.Mutex
	sent []wire.Message
}

func newRing() *ring {
	r := &ring{}
	r.Sending = func(_ dfsm.Member, msg []byte) ([]byte, bool) {
		if m, err := wire.Decode(msg); err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sent = append(r.sent, m)
		}
		return msg, true
	}
	return r
}

// hold has nothing delivered, or all again.
func (r *ring) hold(held bool) { r.Set(func(b *grouptest.Bus) { b.Held = held }) }

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
func (r *ring) start(t *testing.T, node corosync.NodeID, change func(*ClusterConfig)) *testNode {
	t.Helper()
	tree := memdb.New()
	n := &testNode{watch: &lockedWatcher{}, logs: &logLines{}}
	cfg := ClusterConfig{
		Config:  Config{Tree: tree, Log: slog.New(n.logs), Observer: n.watch},
		Connect: r.Connector(node),
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
		nodes = append(nodes, r.start(t, corosync.NodeID(i+1), change))
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
