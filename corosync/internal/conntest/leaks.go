package conntest

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"pmxcfs/internal/testutil"
)

// Connections opens, uses and closes a connection some tens of times, by cycle,
// which returns it, and fails the test if descriptors, threads, goroutines,
// files in /dev/shm or the connections themselves remain. A connection that a
// cgo.Handle still names is never garbage.
func Connections[C any](t *testing.T, cycle func() *C) {
	t.Helper()
	var collected atomic.Int32
	once := func() {
		runtime.AddCleanup(cycle(), func(n *atomic.Int32) { n.Add(1) }, &collected)
	}
	const warmUp, rounds = 5, 40
	for range warmUp {
		once() // threads that the runtime keeps
	}
	before := testutil.Holds(t)
	for range rounds {
		once()
	}
	// Corosync removes its end's files when it comes to it, the runtime ends
	// goroutines likewise.
	testutil.NoMoreThan(t, before)
	testutil.Eventually(t, "connections are garbage: no handle keeps them", func() error {
		runtime.GC()
		if n := collected.Load(); n < warmUp+rounds {
			return fmt.Errorf("%d of %d", n, warmUp+rounds)
		}
		return nil
	})
}
