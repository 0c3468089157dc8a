package clustertest

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab/labtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run the random tests with this `seed`")
	roundFlag = flag.Int("rounds", 5, "how many times the cluster is disturbed under load")
)

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
			continue
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

// TestNothingAcknowledgedIsLostUnderLoad has all nodes write while one after the
// other is killed, stopped, cut off and loses its corosync. Two of three are always
// there.
func TestNothingAcknowledgedIsLostUnderLoad(t *testing.T) {
	c := labtest.New(t, 3)
	random := rand.New(rand.NewPCG(seed(t), 1))
	c.Node(1).Mkdir("load")
	for _, n := range c.Nodes {
		n.WantDir("load")
	}
	var writers []*writer
	var wg sync.WaitGroup
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	for _, n := range c.Nodes {
		w := &writer{n: n, dir: "load", done: map[string]time.Time{}, doubtful: map[string]bool{}}
		writers = append(writers, w)
		wg.Go(func() {
			w.run(stop, func(err error) { t.Errorf("%s: unexpected error: %v", n, err) })
		})
	}
	// progress waits until each of the nodes has had some writes acknowledged.
	progress := func(nodes ...*node) {
		t.Helper()
		for _, n := range nodes {
			w := writers[n.Host.ID()-1]
			before := w.count.Load()
			n.Eventually("it goes on writing", func() error {
				if w.count.Load() < before+3 {
					return errors.New("no progress")
				}
				return nil
			})
		}
	}
	disturbances := []struct {
		name       string
		harm, mend func(n *node)
	}{
		{"killing the daemon", func(n *node) { n.Kill() }, func(n *node) { n.Start() }},
		{"stopping the daemon", func(n *node) { n.Stop() }, func(n *node) { n.Start() }},
		{"killing corosync", func(n *node) { n.Must(n.Host.KillCorosync()) }, func(n *node) { n.Must(n.Host.StartCorosync()) }},
		{"stopping corosync", func(n *node) { n.Must(n.Host.StopCorosync()) }, func(n *node) { n.Must(n.Host.StartCorosync()) }},
		{"cutting it off", func(n *node) {
			writers[n.Host.ID()-1].cut.Store(true)
			n.Must(c.Lab.Cut(n.Host.ID()))
		}, func(n *node) { n.Must(c.Lab.Heal()) }},
	}
	order := random.Perm(len(disturbances))
	for round := range *roundFlag {
		victim := random.IntN(3)
		d := disturbances[order[round%len(order)]]
		begin := time.Now()
		progress(c.Nodes...)
		n := c.Nodes[victim]
		var rest []*node
		for _, o := range c.Nodes {
			if o != n {
				rest = append(rest, o)
			}
		}
		d.harm(n)
		progress(rest...)
		// Not while the view changes.
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		d.mend(n)
		progress(c.Nodes...)
		writers[victim].cut.Store(false)
		t.Logf("%v %s of %s: %v", begin.Format(clock), d.name, n, time.Since(begin).Round(time.Millisecond))
	}
	end()
	c.WantTogether(c.Nodes...)
	total := 0
	for _, w := range writers {
		total += len(w.done)
		doubtful := 0
		for name, when := range w.done {
			for _, n := range c.Nodes {
				b, err := os.ReadFile(n.Path(name))
				if err == nil && string(b) == name {
					continue
				}
				text := fmt.Sprintf("%s was acknowledged by %s at %v and is not on %s: %q, %v", name, w.n, when.Format(clock), n, b, err)
				if !w.doubtful[name] {
					t.Error(text)
					continue
				}
				t.Log("in the moment of a cut: ", text)
				doubtful++
			}
		}
		// One call at a time, so one message in each cut.
		if limit := *roundFlag * len(c.Nodes); doubtful > limit {
			t.Errorf("%s: %d times a file is missing that was acknowledged in a cut", w.n, doubtful)
		}
	}
	t.Logf("%d files acknowledged", total)
	c.WantSameDatabases()
}
