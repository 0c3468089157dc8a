package history

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
	"pmxcfs/contrib/lab/labtest"
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
	t *testing.T
	*labtest.Cluster
	nodes []*node // of the cluster
	r     recorder
}

func run(t *testing.T, rng *rand.Rand) {
	c := &cluster{t: t, Cluster: labtest.Hosts(t, lab.New(t, nodeCount))}
	for _, n := range c.Nodes {
		c.nodes = append(c.nodes, &node{Node: n})
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
		n.Start()
	}
	first := c.nodes[0]
	first.Eventually("it takes changes", func() error { return os.Mkdir(first.Path("probes"), 0o755) })
	for _, dir := range []string{"priv/lock", "files", "set"} {
		first.Must(os.MkdirAll(first.Path(dir), 0o755))
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
		first.Must(os.WriteFile(first.Path(name), []byte(value(0, i)), 0o640))
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
		n.Eventually("it takes changes", func() error { return os.WriteFile(n.Path(name), []byte(mark), 0o640) })
		for _, o := range c.nodes {
			o.Eventually("it has all changes", func() error {
				b, err := os.ReadFile(o.Path(name))
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
		n.Eventually("its clients get on", func() error {
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
	n.Must(c.Lab.Cut(n.Host.ID()))
	c.progress(c.others(n)...)
	n.Must(c.Lab.HealHost(n.Host.ID()))
	c.rejoined(n)
	c.r.window(window{node: n.Host.ID(), from: from - token, to: c.r.now(), alone: true})
}

func (c *cluster) killDaemon(n *node) {
	from := c.r.now()
	n.kill()
	c.progress(c.others(n)...)
	n.Start()
	n.synced()
	c.r.window(window{node: n.Host.ID(), from: from, to: c.r.now(), killed: true})
}

func (c *cluster) restartDaemon(n *node) {
	n.Stop()
	c.progress(c.others(n)...)
	n.Start()
	n.synced()
}

func (c *cluster) killCorosync(n *node) {
	from := c.r.now()
	n.Must(n.Host.KillCorosync())
	c.progress(c.others(n)...)
	n.Must(n.Host.StartCorosync())
	c.rejoined(n)
	c.r.window(window{node: n.Host.ID(), from: from - token, to: c.r.now(), alone: true})
}

// crash ends the daemon and corosync. Not by the lab's Crash: that waits for
// processes which the kernel may hold.
func (c *cluster) crash(n *node) {
	from := c.r.now()
	n.kill()
	n.Must(n.Host.KillCorosync())
	c.progress(c.others(n)...)
	n.Must(n.Host.StartCorosync())
	n.Start()
	n.synced()
	c.r.window(window{node: n.Host.ID(), from: from, to: c.r.now(), killed: true})
	c.r.window(window{node: n.Host.ID(), from: from - token, to: c.r.now(), alone: true})
}

// rejoined waits until a node that may not have noticed yet that it was away
// shows what another has written now.
func (c *cluster) rejoined(n *node) {
	c.t.Helper()
	o := c.others(n)[0]
	name, mark := "probes/mark-"+o.String(), fmt.Sprint(time.Now().UnixNano())
	o.Eventually("it takes changes", func() error { return os.WriteFile(o.Path(name), []byte(mark), 0o640) })
	n.Eventually("it has what was changed meanwhile", func() error {
		b, err := os.ReadFile(n.Path(name))
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
			n.Must(cl.read(final, name))
		}
	}
	entries, err := os.ReadDir(c.nodes[0].Path("set"))
	c.nodes[0].Must(err)
	for _, e := range entries {
		c.r.present[e.Name()] = true
	}
	c.WantSame("trees", (*labtest.Node).Tree)
	c.WantSameDatabases()

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
