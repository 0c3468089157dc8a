package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryTuner keeps the process's memory near what the tree takes.
//
// Content makes up most of the heap and holds no pointers, so collecting garbage
// costs little however much content there is; but Go's default lets garbage
// grow to the size of all that is live: a full tree would take twice its size.
// So the collector is given a fixed headroom instead of a share, and a limit
// makes it give memory back that a burst of large writes has left behind.
type memoryTuner struct {
	quit chan struct{}
	done chan struct{}

	live   int64  // for which the collector is set
	allocs uint64 // bytes allocated up to the last look
	given  uint64 // the same when memory was last given back
}

const (
	gcHeadroom   = 6 << 20     // bytes of garbage to allow for
	memoryExtra  = 12 << 20    // bytes that the limit adds to that: stacks, spans, fragments
	idleBytes    = 256 << 10   // allocated between two looks, at most, when nothing goes on
	worthBytes   = 16 << 20    // allocated since memory was given back, for it to be worth it again
	gcInterval   = time.Second // between looks at the heap
	gcMinPercent = 4
	gcMaxPercent = 400
)

// startMemoryTuner sets the collector for the heap as it is, and goes on doing so.
func startMemoryTuner() *memoryTuner {
	m := &memoryTuner{quit: make(chan struct{}), done: make(chan struct{})}
	m.adjust()
	go func() {
		defer close(m.done)
		tick := time.NewTicker(gcInterval)
		defer tick.Stop()
		for {
			select {
			case <-m.quit:
				return
			case <-tick.C:
				m.adjust()
			}
		}
	}()
	return m
}

func (m *memoryTuner) stop() {
	close(m.quit)
	<-m.done
}

func (m *memoryTuner) adjust() {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	live, allocs := int64(sample[0].Value.Uint64()), sample[1].Value.Uint64()
	if idle := allocs-m.allocs < idleBytes; idle && allocs-m.given > worthBytes {
		debug.FreeOSMemory()
		m.given = allocs
	}
	m.allocs = allocs
	if change := live - m.live; m.live > 0 && max(change, -change) < gcHeadroom/8 {
		return
	}
	m.live = live
	debug.SetGCPercent(int(min(gcMaxPercent, max(gcMinPercent, gcHeadroom*100/max(live, 1)))))
	debug.SetMemoryLimit(live + gcHeadroom + memoryExtra)
}
