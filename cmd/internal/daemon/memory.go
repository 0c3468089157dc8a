package daemon

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
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
// back when nothing goes on, and the heap is limited until something does.
type memoryTuner struct {
	quit  chan struct{}
	done  chan struct{}
	loose chan struct{} // a collection has ended the limit: look at the heap again

	live   int64  // for which the collector is set
	allocs uint64 // bytes allocated up to the last look

	mu    sync.Mutex // guards tight
	tight bool       // memory was given back, and is limited
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
	m := &memoryTuner{quit: make(chan struct{}), done: make(chan struct{}), loose: make(chan struct{}, 1)}
	m.adjust()
	go func() {
		defer close(m.done)
		timer := time.NewTimer(gcInterval)
		defer timer.Stop()
		for {
			select {
			case <-m.quit:
				return
			case <-m.loose:
			case <-timer.C:
				if m.adjust() {
					continue // nothing goes on: the next collection will tell
				}
			}
			timer.Reset(gcInterval)
		}
	}()
	return m
}

func (m *memoryTuner) stop() {
	close(m.quit)
	<-m.done
}

// adjust looks at the heap, and reports whether memory is limited now.
func (m *memoryTuner) adjust() (tight bool) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	live, allocs := int64(sample[0].Value.Uint64()), sample[1].Value.Uint64()
	if change := live - m.live; m.live == 0 || max(change, -change) >= gcHeadroom/8 {
		m.live = live
		debug.SetGCPercent(int(min(gcMaxPercent, max(gcMinPercent, gcHeadroom*100/max(live, 1)))))
	}
	idle := allocs-m.allocs < idleBytes
	m.allocs = allocs
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case idle && !m.tight:
		m.tighten()
	case !idle && m.tight:
		m.loosen()
	}
	return m.tight
}

// tighten gives memory back and limits it. mu is held.
func (m *memoryTuner) tighten() {
	debug.FreeOSMemory()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	debug.SetMemoryLimit(int64(sample[0].Value.Uint64()) + memoryExtra)
	m.tight = true
	// A collection means that something goes on again, or soon would: under the limit one
	// follows the other, and takes half of the time until the next look.
	runtime.AddCleanup(new(canary), func(m *memoryTuner) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.tight {
			m.loosen()
			select {
			case m.loose <- struct{}{}:
			default:
			}
		}
	}, m)
}

// loosen ends the limit. mu is held.
func (m *memoryTuner) loosen() {
	debug.SetMemoryLimit(math.MaxInt64)
	m.tight = false
}

// canary is found dead by the next collection.
type canary struct{ _ [64]byte }
