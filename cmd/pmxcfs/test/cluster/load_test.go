package cluster

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab/labtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run the random tests with this `seed`")
	roundFlag = flag.Int("rounds", 4, "how many times the cluster is disturbed under load")
)

// loadPace keeps the tree, and so each sync, small enough for a machine with few
// processors and the race detector.
const loadPace = 20 * time.Millisecond

// clock is how the daemon's log shows the time.
const clock = "15:04:05.000"

func seed(t testing.TB) uint64 {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return s
}

// writer makes files on a node, one after the other, whatever happens to it.
type writer struct {
	n     *node
	dir   string
	done  map[string]time.Time // acknowledged when: by name
	count atomic.Int64         // how many are
	late  atomic.Int64         // calls that were told that it takes too long
	pace  time.Duration        // between two files

	// cut is set while the node can't reach the others, noticed or not. Corosync
	// delivers a message when its place in the order is certain, not when the
	// others have it. So what is sent in the last moment before the cut comes back
	// to its sender, is acknowledged just before the node learns that it is alone,
	// and is lost in the merge.
	cut      atomic.Bool
	doubtful map[string]bool // acknowledged while cut
}

// run writes until stop is closed. The directory keeps it from writing below
// the mount point while nothing is mounted there.
func (w *writer) run(stop <-chan struct{}, unexpected func(error)) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		name := fmt.Sprintf("%s/%s-%d", w.dir, w.n, i)
		err := os.WriteFile(w.n.Path(name), []byte(name), 0o640)
		switch {
		case err == nil:
			if w.cut.Load() {
				w.doubtful[name] = true
			}
			w.done[name] = time.Now()
			w.count.Add(1)
			time.Sleep(w.pace)
			continue
		case errors.Is(err, syscall.ETIMEDOUT) && strings.Contains(w.n.Log(), "a change was not delivered in time operation=create path="+name),
			errors.Is(err, syscall.ETIMEDOUT) && strings.Contains(w.n.Log(), "a change was not delivered in time operation=write path="+name):
			// A busy machine, and a sync: it may have been made or not.
			w.late.Add(1)
		case errors.Is(err, syscall.EACCES), // no quorum, not in the group, or out of it meanwhile
			errors.Is(err, syscall.ENOTCONN), // a killed daemon's mount
			errors.Is(err, syscall.ECONNABORTED),
			errors.Is(err, syscall.ENOENT): // nothing is mounted
		default:
			unexpected(err)
		}
		time.Sleep(5 * time.Millisecond) // don't spin on a dead mount
	}
}

// load is writers on all nodes.
type load struct {
	c       *cluster
	dir     string // of the files
	writers []*writer
	end     func() // stops them and waits; may be called again
}

// startLoad has all nodes write. The caller owes an end.
func startLoad(c *cluster) *load {
	c.T.Helper()
	l := &load{c: c, dir: fmt.Sprint("load-", time.Now().UnixNano())}
	c.Node(1).Mkdir(l.dir)
	for _, n := range c.Nodes {
		n.WantDir(l.dir)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	l.end = sync.OnceFunc(func() { close(stop); wg.Wait() })
	for _, n := range c.Nodes {
		w := &writer{n: n, dir: l.dir, pace: loadPace, done: map[string]time.Time{}, doubtful: map[string]bool{}}
		l.writers = append(l.writers, w)
		wg.Go(func() {
			w.run(stop, func(err error) { c.T.Errorf("%s: unexpected error: %v", n, err) })
		})
	}
	return l
}

func (l *load) of(n *node) *writer { return l.writers[n.Host.ID()-1] }

// progress waits until each of the nodes has had some writes acknowledged.
func (l *load) progress(nodes ...*node) {
	l.c.T.Helper()
	for _, n := range nodes {
		w := l.of(n)
		before := w.count.Load()
		n.Eventually("it goes on writing", func() error {
			if w.count.Load() < before+3 {
				return errors.New("no progress")
			}
			return nil
		})
	}
}

// wantNothingLost checks, at the end and when all nodes are together, that each has
// every file that was acknowledged; but for some of those while a node was cut off,
// which happened so many times at most. With the right content, if the databases
// are the same, which the caller sees to.
func (l *load) wantNothingLost(cuts int) {
	t := l.c.T
	t.Helper()
	shown := map[*node]map[string]bool{}
	for _, n := range l.c.Nodes {
		shown[n] = map[string]bool{}
		list, err := os.ReadDir(n.Path(l.dir))
		n.Must(err)
		for _, e := range list {
			shown[n][l.dir+"/"+e.Name()] = true
		}
	}
	total, late := 0, int64(0)
	for _, w := range l.writers {
		total += len(w.done)
		late += w.late.Load()
		doubtful := 0
		for name, when := range w.done {
			for _, n := range l.c.Nodes {
				if shown[n][name] && (n != w.n || n.Holds(name, name) == nil) {
					continue
				}
				text := fmt.Sprintf("%s was acknowledged by %s at %v and is not on %s: %v", name, w.n, when.Format(clock), n, n.Holds(name, name))
				if !w.doubtful[name] {
					t.Error(text)
					continue
				}
				t.Log("in the moment of a cut: ", text)
				doubtful++
			}
		}
		// One call at a time, so one message in each cut.
		if limit := cuts * len(l.c.Nodes); doubtful > limit {
			t.Errorf("%s: %d times a file is missing that was acknowledged in a cut", w.n, doubtful)
		}
	}
	t.Logf("%d files acknowledged, %d calls told that it takes too long", total, late)
}

// TestNothingAcknowledgedIsLostUnderLoad has all nodes write while one after the
// other is killed, stopped, cut off and loses its corosync or its database. Two of
// three are always there.
func TestNothingAcknowledgedIsLostUnderLoad(t *testing.T) {
	c := labtest.New(t, 3)
	underLoad(c, 1, *roundFlag)
	c.WantSameDatabases()
}

// disturbance is something that happens to nodes, and its end.
type disturbance struct {
	name       string
	harm, mend func(n *node)
}

// disturbances are what happens to nodes in use.
func (l *load) disturbances() []disturbance {
	return []disturbance{
		{"killing the daemon", func(n *node) { n.Kill() }, func(n *node) { n.Start() }},
		{"stopping the daemon", func(n *node) { n.Stop() }, func(n *node) { n.Start() }},
		{"killing corosync", func(n *node) { n.Must(n.Host.KillCorosync()) }, func(n *node) { n.Must(n.Host.StartCorosync()) }},
		{"stopping corosync", func(n *node) { n.Must(n.Host.StopCorosync()) }, func(n *node) { n.Must(n.Host.StartCorosync()) }},
		{"cutting it off", func(n *node) { l.of(n).cut.Store(true); n.Must(l.c.Lab.Cut(n.Host.ID())) },
			func(n *node) { n.Must(l.c.Lab.HealHost(n.Host.ID())) }},
		{"crash", crash, boot},
		{"loss of the database", func(n *node) { n.Kill(); n.Free(); n.RemoveDatabase() }, func(n *node) { n.Start() }},
	}
}

// underLoad has all nodes write while some at a time, fewer than half, are
// disturbed, each in its own way. The caller compares the databases.
func underLoad(c *cluster, victims, rounds int) {
	random := rand.New(rand.NewPCG(seed(c.T), 1))
	l := startLoad(c)
	defer l.end()
	kinds := l.disturbances()
	order := random.Perm(len(kinds))
	for round := range rounds {
		begin := time.Now()
		l.progress(c.Nodes...)
		var harmed []*node
		var text []string
		for i, v := range random.Perm(len(c.Nodes))[:victims] {
			n, d := c.Nodes[v], kinds[order[(round*victims+i)%len(order)]]
			text = append(text, fmt.Sprintf("%s of %s", d.name, n))
			d.harm(n)
			harmed = append(harmed, n)
		}
		l.progress(c.Others(harmed...)...)
		// Not while the view changes.
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		for i, n := range harmed {
			kinds[order[(round*victims+i)%len(order)]].mend(n)
		}
		l.progress(c.Nodes...)
		for _, n := range harmed {
			l.of(n).cut.Store(false)
		}
		c.T.Logf("%v %s: %v", begin.Format(clock), strings.Join(text, ", "), time.Since(begin).Round(time.Millisecond))
	}
	l.end()
	c.WantTogether(c.Nodes...)
	l.wantNothingLost(rounds)
}

// allCrash has the daemons and then the corosyncs of all nodes killed at once while
// all write, and started again together.
func allCrash(c *cluster) {
	for range 2 {
		l := startLoad(c)
		defer l.end()
		for range 10 {
			l.progress(c.Nodes...)
		}
		var wg sync.WaitGroup
		for _, n := range c.Nodes {
			wg.Go(n.Kill)
		}
		wg.Wait()
		l.end()
		for _, n := range c.Nodes {
			n.Must(n.Host.KillCorosync())
		}
		for _, n := range c.Nodes {
			n.Start()
			n.WantReadOnly("shared")
		}
		for _, n := range c.Nodes {
			n.Must(n.Host.StartCorosync())
		}
		c.WantTogether(c.Nodes...)
		l.wantNothingLost(0)
	}
}
