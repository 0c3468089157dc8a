package main

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryTuner keeps the process's memory near what the tree takes.
//
// Content makes up most of the heap and holds no pointers, so collecting garbage
// costs little however much content there is; but Go's default lets garbage
// grow to the size of all that is live: a full tree would take twice its size.
// So the collector is given a fixed headroom instead of a share. It must not be
// small: the mount's request buffers, a megabyte each, are dropped at each
// collection and made anew. What a burst of changes has left behind is given
// back when nothing goes on.
type memoryTuner struct {
	quit chan struct{}
	done chan struct{}

	live   int64  // for which the collector is set
	allocs uint64 // bytes allocated up to the last look
	tight  bool   // memory was given back, and is limited
}

const (
	gcHeadroom   = 12 << 20    // bytes of garbage to allow for
	memoryExtra  = 12 << 20    // bytes that an idle process may have beside that: stacks, spans, fragments
	idleBytes    = 2 << 20     // allocated between two looks, at most, when nothing goes on
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
	if change := live - m.live; m.live == 0 || max(change, -change) >= gcHeadroom/8 {
		m.live = live
		debug.SetGCPercent(int(min(gcMaxPercent, max(gcMinPercent, gcHeadroom*100/max(live, 1)))))
	}
	idle := allocs-m.allocs < idleBytes
	switch m.allocs = allocs; {
	case idle && !m.tight:
		debug.FreeOSMemory()
		metrics.Read(sample)
		debug.SetMemoryLimit(int64(sample[0].Value.Uint64()) + memoryExtra)
	case !idle && m.tight:
		debug.SetMemoryLimit(math.MaxInt64)
	}
	m.tight = idle
}
