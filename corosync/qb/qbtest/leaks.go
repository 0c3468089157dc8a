package qbtest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Holdings is what a process could leak.
type Holdings struct {
	FDs, Threads, Goroutines int
	Rings                    []string // this process's as a server, in /dev/shm
}

func (h Holdings) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d goroutines, rings %v", h.FDs, h.Threads, h.Goroutines, h.Rings)
}

// Now counts what this process holds.
func Now(tb testing.TB) Holdings {
	tb.Helper()
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			tb.Fatal(err)
		}
		return len(entries)
	}
	rings, err := filepath.Glob(fmt.Sprintf("/dev/shm/qb-%d-*", os.Getpid()))
	if err != nil {
		tb.Fatal(err)
	}
	return Holdings{
		FDs:        count("/proc/self/fd"),
		Threads:    count("/proc/self/task"),
		Goroutines: runtime.NumGoroutine(),
		Rings:      rings,
	}
}

// NoLeaks checks at the test's end, after the cleanups registered later, that there are
// no more descriptors, goroutines and rings than now. (Threads come and go by the
// runtime's own will.)
func NoLeaks(tb testing.TB) {
	tb.Helper()
	before := Now(tb)
	tb.Cleanup(func() {
		var after Holdings
		Eventually(tb, func() bool {
			after = Now(tb)
			return after.FDs <= before.FDs && after.Goroutines <= before.Goroutines && len(after.Rings) <= len(before.Rings)
		}, func() string { return fmt.Sprintf("leak: %v before, %v after", before, after) })
	})
}

// Eventually waits for a condition that another process or thread brings about, and fails
// the test with what says if it doesn't within 10 s.
func Eventually(tb testing.TB, cond func() bool, what func() string) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			tb.Error(what())
			return
		}
		time.Sleep(time.Millisecond)
	}
}
