package conntest

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
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
	before := count(t)
	for range rounds {
		once()
	}
	// Corosync removes its end's files when it comes to it, the runtime ends
	// goroutines likewise.
	var after map[string]int
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if after = count(t); after["shm files"] <= before["shm files"] && after["goroutines"] <= before["goroutines"] {
			break
		}
	}
	for what, n := range before {
		allow := 0
		if what == "threads" {
			allow = 5 // a few more or less are the runtime's choice
		}
		if after[what] > n+allow {
			t.Errorf("%s: %d before, %d after %d connections", what, n, after[what], rounds)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); collected.Load() < warmUp+rounds; {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Errorf("only %d of %d connections were garbage: a handle keeps the rest", collected.Load(), warmUp+rounds)
			break
		}
	}
}

func count(t *testing.T) map[string]int {
	entries := func(dir string) int {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	return map[string]int{
		"descriptors": entries("/proc/self/fd"),
		"threads":     entries("/proc/self/task"),
		"shm files":   entries("/dev/shm"),
		"goroutines":  runtime.NumGoroutine(),
	}
}
