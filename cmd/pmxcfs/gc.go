package main

import (
	"runtime/debug"
	"time"

	"pmxcfs/memdb"
)

// gcTuner keeps the garbage collector's headroom from growing with the tree.
//
// Content makes up most of the heap and holds no pointers, so marking it costs
// nothing; but Go's default lets garbage grow to the size of all that is live:
// a full tree would take twice its size.
type gcTuner struct {
	quit chan struct{}
	done chan struct{}
}

const (
	gcHeadroom   = 16 << 20        // bytes of garbage to allow for
	gcInterval   = 5 * time.Second // between looks at the tree's size
	gcMinPercent = 8
	gcMaxPercent = 400
)

func startGCTuner(tree *memdb.Tree) *gcTuner {
	g := &gcTuner{quit: make(chan struct{}), done: make(chan struct{})}
	percent := gcPercent(tree)
	debug.SetGCPercent(percent)
	go func() {
		defer close(g.done)
		tick := time.NewTicker(gcInterval)
		defer tick.Stop()
		for {
			select {
			case <-g.quit:
				return
			case <-tick.C:
			}
			if now := gcPercent(tree); now*10 < percent*9 || now*9 > percent*10 {
				percent = now
				debug.SetGCPercent(percent)
			}
		}
	}()
	return g
}

func (g *gcTuner) stop() {
	close(g.quit)
	<-g.done
}

// gcPercent returns the value for SetGCPercent at which the headroom is about
// gcHeadroom.
func gcPercent(tree *memdb.Tree) int {
	const perEntry, base = 400, 4 << 20 // bytes, about
	bytes, entries := tree.Usage()
	live := bytes + int64(entries)*perEntry + base
	return int(min(gcMaxPercent, max(gcMinPercent, gcHeadroom*100/live)))
}
