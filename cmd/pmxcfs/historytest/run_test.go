package historytest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
)

const (
	nodeCount = 3
	token     = time.Second // totem token timeout: the lab's default
)

// TestHistoriesUnderPartitionsAndKillsArePossible disturbs a cluster in each way
// while clients use it.
func TestHistoriesUnderPartitionsAndKillsArePossible(t *testing.T) {
	lab.Require(t)
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = seeds[:0]
		for range *runsFlag {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Logf("again with -history.seed=%d", seed)
			run(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

// cluster is nodes in use.
type cluster struct {
	t     *testing.T
	lab   *lab.Lab
	nodes []*node
	r     recorder
}

func run(t *testing.T, rng *rand.Rand) {
	c := &cluster{t: t, lab: lab.New(t, nodeCount)}
	for _, h := range c.lab.Hosts() {
		n := &node{t: t, host: h}
		c.nodes = append(c.nodes, n)
		t.Cleanup(n.clean)
	}
	c.prepare()

	// The clients end before the daemons do, whatever fails.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	halt := sync.OnceFunc(func() { close(stop); wg.Wait() })
	t.Cleanup(halt)
	var turn [locks]atomic.Int64
	id := 0
	for _, n := range c.nodes {
		add := func(pace time.Duration, work func(*client)) {
			id++
			cl := &client{id: id, n: n, r: &c.r, rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), stop: stop, turn: &turn}
			wg.Go(func() { cl.each(pace, func() { work(cl) }) })
		}
		add(4*time.Millisecond, (*client).readOrWrite)
		add(4*time.Millisecond, (*client).readOrWrite)
		add(4*time.Millisecond, (*client).lock)
		add(4*time.Millisecond, (*client).lock)
		add(20*time.Millisecond, (*client).create)
	}
	c.disturb(rng)
	halt()
	c.finish()
}

// prepare starts the daemons and makes what the clients use.
func (c *cluster) prepare() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.start()
	}
	first := c.nodes[0]
	first.eventually("it takes changes", func() error { return os.Mkdir(first.path("probes"), 0o755) })
	for _, dir := range []string{"priv/lock", "files", "set"} {
		first.must(os.MkdirAll(first.path(dir), 0o755))
	}
	c.r.initial, c.r.present = map[string]string{}, map[string]bool{}
	names := []string{}
	for i := range files {
		names = append(names, fileName(i))
	}
	for i := range locks {
		for turn := range turns {
			names = append(names, guardedName(i, turn))
		}
	}
	for i, name := range names {
		c.r.initial[name] = value(0, i)
		first.must(os.WriteFile(first.path(name), []byte(value(0, i)), 0o640))
	}
	c.together()
	c.r.begin = time.Now()
}

// together waits until all nodes are members beside each other and show what
// each of them has written.
func (c *cluster) together() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.synced()
	}
	for _, n := range c.nodes {
		name, mark := "probes/mark-"+n.String(), fmt.Sprint(time.Now().UnixNano())
		n.eventually("it takes changes", func() error { return os.WriteFile(n.path(name), []byte(mark), 0o640) })
		for _, o := range c.nodes {
			o.eventually("it has all changes", func() error {
				b, err := os.ReadFile(o.path(name))
				if err == nil && string(b) != mark {
					err = fmt.Errorf("%s has %q", name, b)
				}
				return err
			})
		}
	}
}

// disturb does to one node after the other what happens to nodes.
func (c *cluster) disturb(rng *rand.Rand) {
	c.t.Helper()
	faults := []struct {
		name string
		do   func(n *node)
	}{
		{"cut off", c.cut},
		{"daemon killed", c.killDaemon},
		{"daemon restarted", c.restartDaemon},
		{"corosync killed", c.killCorosync},
		{"crashed", c.crash},
	}
	for begin := time.Now(); ; {
		rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, f := range faults {
			c.progress(c.nodes...)
			n := c.nodes[rng.IntN(len(c.nodes))]
			from := c.r.now()
			f.do(n)
			c.t.Logf("%8.3f–%.3f %s: %s", from.Seconds(), c.r.now().Seconds(), n, f.name)
		}
		if time.Since(begin) >= *timeFlag {
			c.progress(c.nodes...)
			return
		}
	}
}

// progress waits until clients of each of the nodes have changed something.
func (c *cluster) progress(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		want := n.acked.Load() + 30
		n.eventually("its clients get on", func() error {
			if got := n.acked.Load(); got < want {
				return fmt.Errorf("%d changes are lacking", want-got)
			}
			return nil
		})
	}
}

func (c *cluster) others(n *node) (others []*node) {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(o *node) bool { return o == n })
}

func (c *cluster) cut(n *node) {
	from := c.r.now()
	n.must(c.lab.Cut(n.host.ID()))
	c.progress(c.others(n)...)
	n.must(c.lab.HealHost(n.host.ID()))
	c.rejoined(n)
	c.r.window(window{node: n.host.ID(), from: from - token, to: c.r.now(), alone: true})
}

func (c *cluster) killDaemon(n *node) {
	from := c.r.now()
	n.kill()
	c.progress(c.others(n)...)
	n.start()
	n.synced()
	c.r.window(window{node: n.host.ID(), from: from, to: c.r.now(), killed: true})
}

func (c *cluster) restartDaemon(n *node) {
	n.stop()
	c.progress(c.others(n)...)
	n.start()
	n.synced()
}

func (c *cluster) killCorosync(n *node) {
	from := c.r.now()
	n.must(n.host.KillCorosync())
	c.progress(c.others(n)...)
	n.must(n.host.StartCorosync())
	c.rejoined(n)
	c.r.window(window{node: n.host.ID(), from: from - token, to: c.r.now(), alone: true})
}

// crash ends the daemon and corosync. Not by the lab's Crash: that waits for
// processes which the kernel may hold.
func (c *cluster) crash(n *node) {
	from := c.r.now()
	n.kill()
	n.must(n.host.KillCorosync())
	c.progress(c.others(n)...)
	n.must(n.host.StartCorosync())
	n.start()
	n.synced()
	c.r.window(window{node: n.host.ID(), from: from, to: c.r.now(), killed: true})
	c.r.window(window{node: n.host.ID(), from: from - token, to: c.r.now(), alone: true})
}

// rejoined waits until a node that may not have noticed yet that it was away
// shows what another has written now.
func (c *cluster) rejoined(n *node) {
	c.t.Helper()
	o := c.others(n)[0]
	name, mark := "probes/mark-"+o.String(), fmt.Sprint(time.Now().UnixNano())
	o.eventually("it takes changes", func() error { return os.WriteFile(o.path(name), []byte(mark), 0o640) })
	n.eventually("it has what was changed meanwhile", func() error {
		b, err := os.ReadFile(n.path(name))
		if err == nil && string(b) != mark {
			err = fmt.Errorf("%s has %q", name, b)
		}
		return err
	})
	n.synced()
}

// finish looks at what the nodes have at the end, and judges it all.
func (c *cluster) finish() {
	c.t.Helper()
	c.together()
	for _, n := range c.nodes {
		cl := &client{n: n, r: &c.r}
		for name := range c.r.initial {
			n.must(cl.read(final, name))
		}
	}
	entries, err := os.ReadDir(c.nodes[0].path("set"))
	c.nodes[0].must(err)
	for _, e := range entries {
		c.r.present[e.Name()] = true
	}
	c.same("trees", (*node).tree)
	for _, n := range c.nodes {
		n.stop()
	}
	c.same("databases", (*node).rows)

	begin := time.Now()
	v := c.r.check()
	took := time.Since(begin)
	done, unknown := map[kind]int{}, map[kind]int{}
	for _, o := range c.r.ops {
		if o.failed {
			unknown[o.kind]++
		} else {
			done[o.kind]++
		}
	}
	c.t.Logf("done: %v; failed: %v; checked in %v", done, unknown, took)
	for _, k := range []kind{write, read, guarded, acquire, release, create} {
		if done[k] < 30 {
			c.t.Errorf("only %d times %s", done[k], k)
		}
	}
	for _, e := range v.excused {
		c.t.Logf("let pass, as a node was alone: %s", e)
	}
	for _, e := range v.violations {
		c.t.Errorf("%s", e)
	}
	c.wantPlantedFound()
	if len(v.violations) > 0 {
		for _, w := range c.r.windows {
			c.t.Logf("node%d %.6f–%.6f alone: %v killed: %v", w.node, w.from.Seconds(), w.to.Seconds(), w.alone, w.killed)
		}
	}
}

// wantPlantedFound adds to the history what must not happen, one thing at a time,
// where no window excuses it: among so many calls, too, the check has to find it.
func (c *cluster) wantPlantedFound() {
	c.t.Helper()
	var last op // of the final reads, and so of all
	var lock op // got and surely not given back when the next call of its client began
	for _, o := range c.r.ops {
		switch {
		case o.kind == final && o.path == fileName(0):
			last = o
		case o.kind == acquire && !o.failed && !c.r.alone(o):
			lock = o
		}
	}
	after := func(o op, k kind, value string) op {
		o.kind, o.value, o.call, o.ret = k, value, o.ret+1, o.ret+2
		return o
	}
	twice := lock
	twice.client, twice.call, twice.ret = -2, lock.ret, lock.ret
	for what, o := range map[string]op{
		"a node goes back":      after(last, read, c.r.initial[last.path]),
		"nobody wrote this":     after(last, read, "nothing"),
		"an entry is lost":      {kind: create, node: last.node, path: "set", value: "lost", call: last.call, ret: last.ret},
		"a lock is held by two": twice,
	} {
		h := c.r.history
		h.ops = append(slices.Clone(c.r.ops), o)
		if v := h.check(); len(v.violations) == 0 {
			c.t.Errorf("%s, and the check finds nothing: %v", what, o)
		}
	}
	h := c.r.history // the last write of a file is taken back everywhere
	h.ops = slices.Clone(c.r.ops)
	for i, o := range h.ops {
		if o.kind == final && o.path == last.path {
			h.ops[i].value = c.r.initial[o.path]
		}
	}
	if v := h.check(); len(v.violations) == 0 {
		c.t.Error("writes are lost, and the check finds nothing")
	}
}

// same objects if something isn't the same on all nodes.
func (c *cluster) same(what string, of func(*node) []string) {
	c.t.Helper()
	first := of(c.nodes[0])
	if len(first) < 3 {
		c.t.Errorf("%s: only %d entries", what, len(first))
	}
	for _, n := range c.nodes[1:] {
		rows := of(n)
		for i := range max(len(first), len(rows)) {
			a, b := "none", "none"
			if i < len(first) {
				a = first[i]
			}
			if i < len(rows) {
				b = rows[i]
			}
			if a != b {
				c.t.Errorf("the %s differ:\n%s: %s\n%s: %s", what, c.nodes[0], a, n, b)
				break
			}
		}
	}
}
