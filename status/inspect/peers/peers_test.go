package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// cluster is some services over one bus, each with a tree.
type cluster struct {
	t     testing.TB
	bus   *grouptest.Bus
	sent  atomic.Int64 // bytes
	mute  sync.Map     // dfsm.Member: what it sends is lost
	nodes []*testNode
	names map[uint32]string
}

type testNode struct {
	*Service
	t    testing.TB
	tree *memdb.Tree
	mode atomic.Uint32
	stop func()

	mu   sync.Mutex
	conn *grouptest.Conn
}

func newCluster(t testing.TB, n int, tree func() *memdb.Tree) *cluster {
	c := &cluster{t: t, bus: &grouptest.Bus{}, names: map[uint32]string{}}
	c.alter(nil)
	for i := range n {
		c.names[uint32(i+1)] = fmt.Sprintf("n%d", i+1)
		c.start(tree())
	}
	c.together()
	return c
}

// alter has what is sent be replaced, or lost; nil means nothing is.
func (c *cluster) alter(change func(from dfsm.Member, msg []byte) (instead []byte, sent bool)) {
	c.bus.Set(func(b *grouptest.Bus) {
		b.Sending = func(from dfsm.Member, msg []byte) ([]byte, bool) {
			if _, mute := c.mute.Load(from); mute {
				return nil, false
			}
			sent := true
			if change != nil {
				msg, sent = change(from, msg)
			}
			if sent {
				c.sent.Add(int64(len(msg)))
			}
			return msg, sent
		}
	})
}

func (c *cluster) connect(node uint32) (*grouptest.Conn, error) {
	return c.bus.Connect(dfsm.Member{Node: corosync.NodeID(node), PID: 1000 + node})
}

// start starts one more.
func (c *cluster) start(tree *memdb.Tree) *testNode {
	c.t.Helper()
	id := uint32(len(c.nodes) + 1)
	n := &testNode{t: c.t, tree: tree}
	n.mode.Store(uint32(dfsm.ModeSynced))
	var err error
	n.Service, err = New(Config{
		Connect: func() (conn transport.Conn, err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.conn, err = c.connect(id)
			return n.conn, err
		},
		Tree: tree, Node: c.names[id], Software: "1.0",
		Mode:    func() (dfsm.Mode, bool) { return dfsm.Mode(n.mode.Load()), true },
		Backoff: 10 * time.Millisecond, Patience: 5 * time.Second,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	c.t.Cleanup(n.stop)
	c.nodes = append(c.nodes, n)
	return n
}

func (s *Service) selfMember() dfsm.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.self
}

// together waits until everybody has heard of everybody.
func (c *cluster) together() {
	c.t.Helper()
	for _, n := range c.nodes {
		testutil.WaitFor(c.t, "all members have told", func() bool { return len(n.Peers()) == len(c.nodes) })
	}
}

func (c *cluster) compare() *inspect.Comparison {
	c.t.Helper()
	r, err := c.nodes[0].Compare(context.Background(), c.names)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

var now = time.Unix(1_800_000_000, 0)

func (n *testNode) apply(op memdb.Op) {
	n.t.Helper()
	op.MTime, op.Now = uint32(now.Unix()), now
	if op.Writer == 0 {
		op.Writer = 1
	}
	if _, err := n.tree.Apply(&op); err != nil {
		n.t.Error(err)
	}
	n.Applied(&op, nil, false)
}

// smallTree makes a tree of 40 files.
func smallTree(t *testing.T) func() *memdb.Tree {
	return func() *memdb.Tree {
		tree := memdb.New()
		for i := range 4 {
			dir := fmt.Sprintf("d%d", i)
			mustApply(t, tree, memdb.Op{Kind: memdb.OpMkdir, Path: dir})
			for k := range 10 {
				path := fmt.Sprintf("%s/f%d", dir, k)
				mustApply(t, tree, memdb.Op{Kind: memdb.OpCreate, Path: path})
				mustApply(t, tree, memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(path)})
			}
		}
		return tree
	}
}

func mustApply(t testing.TB, tree *memdb.Tree, op memdb.Op) {
	t.Helper()
	op.MTime, op.Now, op.Writer = uint32(now.Unix()), now, 1
	if _, err := tree.Apply(&op); err != nil {
		t.Fatal(err)
	}
}

func TestEqualTreesAreEqual(t *testing.T) {
	c := newCluster(t, 3, smallTree(t))
	r := c.compare()
	if !r.Equal || len(r.Differences) > 0 || len(r.Nodes) != 3 {
		t.Fatalf("%+v", r)
	}
	for _, n := range r.Nodes {
		if n.State != inspect.NodeCompared || n.Version != c.nodes[0].tree.Root().Version || n.Digest != r.Nodes[0].Digest || n.Software != "1.0" || n.Mode != "synced" || !n.Quorate {
			t.Errorf("%+v", n)
		}
	}
}

// TestDifferencesAreNamed has nodes differ in each way.
func TestDifferencesAreNamed(t *testing.T) {
	c := newCluster(t, 3, smallTree(t))
	a, b, last := c.nodes[0], c.nodes[1], c.nodes[2]
	write := func(n *testNode, path, data string) {
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(data), Truncate: true})
	}
	// Version by version, so that nothing else differs.
	write(a, "d0/f0", "one thing")
	write(b, "d0/f0", "another 1")
	write(last, "d0/f0", "one thing")
	a.apply(memdb.Op{Kind: memdb.OpDelete, Path: "d1/f1"})
	write(b, "d0/f1", "x")
	a.apply(memdb.Op{Kind: memdb.OpWrite, Path: "d0/f1", Data: []byte("x"), Truncate: true, Writer: 2})
	b.apply(memdb.Op{Kind: memdb.OpDelete, Path: "d1/f1"})
	write(last, "d0/f1", "x")
	write(last, "d0/f2", "y")
	a.apply(memdb.Op{Kind: memdb.OpRename, Path: "d2/f2", To: "d2/moved"})
	b.apply(memdb.Op{Kind: memdb.OpRename, Path: "d2/f2", To: "d2/moved"})
	write(last, "d0/f2", "z")

	r := c.compare()
	if r.Equal || r.Omitted {
		t.Fatalf("%+v", r)
	}
	got := map[string][]string{}
	for _, d := range r.Differences {
		got[d.Path] = d.What
	}
	want := map[string][]string{
		"/d0/f0":    {"content"},
		"/d0/f1":    {"writer", "version"},
		"/d0/f2":    {"content", "version"},
		"/d1/f1":    {"missing"},
		"/d2/moved": {"path", "version"},
	}
	for path, what := range want {
		if !slices.Equal(got[path], what) {
			t.Errorf("%s: %v, want %v", path, got[path], what)
		}
	}
	if len(got) != len(want) || r.AtLeast != len(want) {
		t.Errorf("%v, at least %d", got, r.AtLeast)
	}
	for _, d := range r.Differences {
		if d.Path == "/d1/f1" && (d.Have["n1"] != nil || d.Have["n3"] == nil || d.Have["n3"].Size != 5) {
			t.Errorf("%+v", d.Have)
		}
	}
}

func TestVersionsThatStayApartAreComparedAsTheyAre(t *testing.T) {
	c := newCluster(t, 2, smallTree(t))
	c.nodes[1].apply(memdb.Op{Kind: memdb.OpCreate, Path: "extra"})
	r := c.compare()
	paths := []string{}
	for _, d := range r.Differences {
		paths = append(paths, d.Path)
	}
	if r.Equal || !slices.Equal(paths, []string{"/", "/extra"}) {
		t.Fatalf("%v %+v", paths, r)
	}
}

// TestCompareWhileChangesGoOn has nodes apply the same changes at their own pace.
func TestCompareWhileChangesGoOn(t *testing.T) {
	c := newCluster(t, 3, smallTree(t))
	stop := make(chan struct{})
	var load sync.WaitGroup
	logs := make([]chan memdb.Op, len(c.nodes))
	for i, n := range c.nodes {
		logs[i] = make(chan memdb.Op, 16*(i+1)) // how far it may be behind
		load.Go(func() {
			for op := range logs[i] {
				n.apply(op)
			}
		})
	}
	load.Go(func() {
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for k := 0; ; k++ {
			select {
			case <-stop:
				for _, l := range logs {
					close(l)
				}
				return
			case <-tick.C:
			}
			op := memdb.Op{Kind: memdb.OpWrite, Path: fmt.Sprintf("d%d/f%d", k%4, k%10), Data: fmt.Appendf(nil, "change %d", k), Truncate: true}
			for _, l := range logs {
				l <- op
			}
		}
	})
	defer func() { close(stop); load.Wait() }()
	for range 20 {
		before := c.nodes[0].tree.Root().Version
		r := c.compare()
		if !r.Equal || len(r.Differences) > 0 {
			t.Fatalf("%+v", r)
		}
		for _, n := range r.Nodes {
			if n.State != inspect.NodeCompared || n.Version < before {
				t.Fatalf("%+v (before: version %d)", n, before)
			}
		}
	}
}

func TestManyDifferencesAreBounded(t *testing.T) {
	c := newCluster(t, 2, memdb.New)
	for k := range 30000 {
		c.nodes[1].apply(memdb.Op{Kind: memdb.OpCreate, Path: fmt.Sprintf("f%05d", k)})
	}
	before := c.sent.Load()
	r := c.compare()
	if r.Equal || !r.Omitted || len(r.Differences) != inspect.MaxDifferences || r.AtLeast < 16000 {
		t.Fatalf("equal %v, omitted %v, %d named, at least %d", r.Equal, r.Omitted, len(r.Differences), r.AtLeast)
	}
	if sent := c.sent.Load() - before; sent > 2<<20 {
		t.Errorf("%d bytes were sent", sent)
	}
}

// TestOneDifferenceAmongManyIsCheap has one file of many differ.
func TestOneDifferenceAmongManyIsCheap(t *testing.T) {
	const files = 50000
	c := newCluster(t, 2, func() *memdb.Tree {
		tree := memdb.New()
		for k := range files {
			mustApply(t, tree, memdb.Op{Kind: memdb.OpCreate, Path: fmt.Sprintf("f%05d", k)})
		}
		return tree
	})
	c.nodes[0].apply(memdb.Op{Kind: memdb.OpWrite, Path: "f25000", Data: []byte("a")})
	c.nodes[1].apply(memdb.Op{Kind: memdb.OpWrite, Path: "f25000", Data: []byte("b")})
	before := c.sent.Load()
	r := c.compare()
	if r.Equal || len(r.Differences) != 1 || r.Differences[0].Path != "/f25000" {
		t.Fatalf("%+v", r.Differences)
	}
	if sent := c.sent.Load() - before; sent > 100<<10 {
		t.Errorf("%d bytes were sent", sent)
	}
}

func TestSilentAndUnsyncedMembersAreSaid(t *testing.T) {
	c := newCluster(t, 4, smallTree(t))
	c.mute.Store(c.nodes[2].selfMember(), true)
	c.nodes[3].mode.Store(uint32(dfsm.ModeUpdate))
	r := c.compare()
	var states []string
	for _, n := range r.Nodes {
		states = append(states, n.State)
	}
	if want := []string{inspect.NodeCompared, inspect.NodeCompared, inspect.NodeSilent, inspect.NodeBehind}; !r.Equal || !slices.Equal(states, want) {
		t.Fatalf("equal %v, states %q", r.Equal, states)
	}
}

func TestALostConnectionIsTakenUpAgain(t *testing.T) {
	c := newCluster(t, 2, smallTree(t))
	n := c.nodes[1]
	n.mu.Lock()
	conn := n.conn
	n.mu.Unlock()
	conn.Cut()
	testutil.WaitFor(t, "another connection", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.conn != conn
	})
	c.together()
	if r := c.compare(); !r.Equal {
		t.Fatalf("%+v", r)
	}
	n.stop()
	testutil.WaitFor(t, "who has left is forgotten", func() bool { return len(c.nodes[0].Peers()) == 1 })
}

func TestCompareAloneAndOutOfTheGroup(t *testing.T) {
	c := newCluster(t, 1, smallTree(t))
	if r := c.compare(); r.Equal || len(r.Nodes) != 1 || r.Nodes[0].State != inspect.NodeCompared {
		t.Errorf("%+v", r)
	}
	c.nodes[0].stop()
	if _, err := c.nodes[0].Compare(context.Background(), c.names); !errors.Is(err, ErrAlone) {
		t.Errorf("error %v, want %v", err, ErrAlone)
	}
}

func TestOneComparisonAtATime(t *testing.T) {
	c := newCluster(t, 2, smallTree(t))
	c.mute.Store(c.nodes[1].selfMember(), true)
	done := make(chan error)
	go func() {
		err := inspect.ErrBusy
		for errors.Is(err, inspect.ErrBusy) { // with one of those below
			_, err = c.nodes[0].Compare(context.Background(), c.names)
		}
		done <- err
	}()
	testutil.WaitFor(t, "a second one is refused", func() bool {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := c.nodes[0].Compare(ctx, c.names)
		return errors.Is(err, inspect.ErrBusy)
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPeersTell checks what is known of others.
func TestPeersTell(t *testing.T) {
	c := newCluster(t, 2, smallTree(t))
	c.nodes[0].apply(memdb.Op{Kind: memdb.OpCreate, Path: "more"})
	c.nodes[1].mode.Store(uint32(dfsm.ModeUpdate))
	testutil.WaitFor(t, "the change has been told", func() bool {
		p := c.nodes[0].Peers()
		return p[1].Mode == "update" && p[1].Lag == 1 && p[0].Lag == 0
	})
	p := c.nodes[0].Peers()[1]
	if p.Node != "n2" || p.Software != "1.0" || !p.Quorate || p.Version != c.nodes[1].tree.Root().Version {
		t.Errorf("%+v", p)
	}
	if p.ClockOffset > 0 || p.ClockOffset < -5 {
		t.Errorf("clock offset %v s on one machine", p.ClockOffset)
	}
}

// TestHostileMembersDoNothing has a stranger send what nobody asked for, too much,
// and rubbish.
func TestHostileMembersDoNothing(t *testing.T) {
	c := newCluster(t, 2, smallTree(t))
	evil, err := c.connect(9)
	if err != nil {
		t.Fatal(err)
	}
	if err := evil.Join(); err != nil {
		t.Fatal(err)
	}
	self := c.nodes[0].selfMember()
	to := header{ID: 1, Node: uint32(self.Node), PID: self.PID}
	for i := range 200 {
		h := header{ID: uint64(i)}
		for _, msg := range [][]byte{
			nil, {1, 2, 3}, make([]byte, 1<<21),
			encode(h, askSnapshot{1 << 60}), encode(h, askSnapshot{}),
			encode(h, askDetails{[]uint64{0, 1, 2}}),
			encode(to, snapshot{Version: 5}), encode(to, details{[]detail{{Inode: 1}}}),
			encode(header{}, state{Version: 1 << 63, Time: -1 << 63, Mode: 255, Node: "\xff"}),
		} {
			if err := evil.Mcast(msg); err != nil {
				t.Fatal(err)
			}
		}
		evil.Drop()
	}
	testutil.WaitFor(t, "it is known", func() bool { return len(c.nodes[0].Peers()) == 3 })
	testutil.WaitFor(t, "the others can be compared", func() bool {
		r := c.compare()
		return r.Equal && r.Nodes[0].State == inspect.NodeCompared && r.Nodes[1].State == inspect.NodeCompared && r.Nodes[2].State == inspect.NodeSilent
	})
	k := c.nodes[0].keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.kept) > maxKept || len(k.waiting) > maxKept {
		t.Errorf("%d kept, %d waiting", len(k.kept), len(k.waiting))
	}
}

// TestStrangeAnswersEndNoComparison has a member answer each question with what it may
// say by the rules, but nobody would.
func TestStrangeAnswersEndNoComparison(t *testing.T) {
	var full []entrySum
	for i := range maxEntries {
		full = append(full, entrySum{Inode: uint64(i)})
	}
	sums := func(n int) ranges {
		list := make([]rangeSum, n)
		for i := range list {
			list[i] = rangeSum{Count: ^uint32(0), Sum: digest{1}}
		}
		return ranges{list}
	}
	for name, answer := range map[kind]map[string]body{
		kindSnapshot: {
			"another tree":   snapshot{Mode: uint8(dfsm.ModeSynced)},
			"beyond all":     snapshot{Mode: uint8(dfsm.ModeSynced), Version: ^uint64(0)},
			"unknown result": snapshot{Result: 255, Mode: 255},
		},
		kindRanges: {
			"none": ranges{},
			"many": sums(maxRanges),
			"full": sums(41),
		},
		kindEntries: {
			"none":           entries{},
			"none, and more": entries{Cut: true},
			"others":         entries{List: full, Cut: true},
			"the last":       entries{List: []entrySum{{Inode: ^uint64(0)}}, Cut: true},
		},
		kindDetails: {
			"none":   details{},
			"others": details{[]detail{{Inode: ^uint64(0), Type: 255, MTime: ^uint32(0)}}},
		},
	} {
		for what, strange := range answer {
			t.Run(fmt.Sprintf("kind %d: %s", name, what), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, 2, smallTree(t))
				c.nodes[1].apply(memdb.Op{Kind: memdb.OpWrite, Path: "d0/f0", Data: []byte("another"), Truncate: true})
				c.nodes[0].apply(memdb.Op{Kind: memdb.OpWrite, Path: "d0/f0", Data: []byte("one"), Truncate: true})
				evil := c.nodes[1].selfMember()
				c.alter(func(from dfsm.Member, msg []byte) ([]byte, bool) {
					h, _, err := decodeHeader(msg)
					if err != nil || from != evil || h.Kind != name {
						return msg, true
					}
					return encode(h, strange), true
				})
				r := c.compare()
				if len(r.Nodes) != 2 || r.Nodes[0].State != inspect.NodeCompared {
					t.Errorf("%+v", r.Nodes)
				}
			})
		}
	}
}
