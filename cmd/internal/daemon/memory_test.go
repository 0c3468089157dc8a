package daemon

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"

	"pmxcfs/internal/testutil"
)

func TestTheFirstCollectionAfterIdlenessEndsTheLimit(t *testing.T) {
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	defer debug.SetMemoryLimit(limit)
	defer debug.SetGCPercent(percent)
	m := &memoryTuner{}
	for range 3 {
		m.mu.Lock()
		m.tighten()
		m.mu.Unlock()
		if now := debug.SetMemoryLimit(-1); now == math.MaxInt64 {
			t.Fatal("there is no limit")
		}
		runtime.GC()
		testutil.WaitFor(t, "the limit goes", func() bool { return debug.SetMemoryLimit(-1) == math.MaxInt64 })
		m.mu.Lock()
		if m.tight {
			t.Error("it counts as limited")
		}
		m.mu.Unlock()
	}
}
