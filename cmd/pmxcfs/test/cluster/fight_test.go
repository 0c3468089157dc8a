package cluster

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/contrib/lab/labtest"
)

var fight = flag.Duration("fight", 8*time.Second, "how long TestNodesFightOverTheSameNames takes")

// TestNodesFightOverTheSameNames has clients on all nodes do everything to a few
// names in one directory, which each node's kernel has cached and is told to forget while
// its own clients hold the directory's lock: nobody may hang, and in the end all see
// the same.
func TestNodesFightOverTheSameNames(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 3)
	c.Node(1).Mkdir("ring")
	for _, n := range c.Nodes {
		n.WantDir("ring")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var (
		fighters sync.WaitGroup
		done     atomic.Int64
		stop     = make(chan struct{})
	)
	for i, n := range c.Nodes {
		for w := range 3 {
			rnd := rand.New(rand.NewPCG(seed, uint64(10*i+w)))
			name := func() string { return n.Path(fmt.Sprint("ring/", rnd.IntN(3))) }
			fighters.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					switch p := name(); rnd.IntN(8) { // whatever comes of it
					case 0, 1:
						os.WriteFile(p, []byte(fmt.Sprint(rnd.Uint64())), 0o640)
					case 2:
						os.Remove(p)
					case 3:
						os.Rename(p, name())
					case 4:
						os.Mkdir(p, 0o755)
					case 5:
						os.ReadDir(n.Path("ring"))
					case 6:
						os.ReadFile(p)
					case 7:
						os.Stat(p)
					}
					done.Add(1)
				}
			})
		}
	}
	over := time.After(*fight)
	// Somebody gets on all the time: not one of the nine may be held up for good, and
	// what the last calls wait for ends.
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for last, going := int64(0), true; going; {
		select {
		case <-over:
			going = false
		case <-tick.C:
			now := done.Load()
			if now == last {
				t.Error("nobody gets on")
				going = false
			}
			last = now
		}
	}
	close(stop)
	ended := make(chan struct{})
	go func() { fighters.Wait(); close(ended) }()
	select {
	case <-ended:
		t.Logf("%d operations", done.Load())
	case <-time.After(time.Minute):
		for _, n := range c.Nodes {
			n.Free()
		}
		t.Fatal("a call does not return")
	}
	c.WantTogether(c.Nodes...)
	c.WantSame("the tree as it is read", (*labtest.Node).Tree)
	c.WantSameDatabases()
}
