package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Held is what a process could leak.
type Held struct {
	Descriptors, Goroutines int
	Rings                   []string // of libqb, which this process has a part in, in /dev/shm
}

// Holds counts what this process holds. Threads are none of it: they come and go by the
// runtime's own will.
func Holds(t testing.TB) Held {
	t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	h := Held{Descriptors: len(descriptors), Goroutines: runtime.NumGoroutine()}
	for _, role := range []string{"qb-%d-*", "qb-*-%d-*"} { // server, client
		rings, err := filepath.Glob("/dev/shm/" + fmt.Sprintf(role, os.Getpid()))
		if err != nil {
			t.Fatal(err)
		}
		h.Rings = append(h.Rings, rings...)
	}
	return h
}

// NoMoreThan waits until the process holds no more than it did before.
func NoMoreThan(t testing.TB, before Held) {
	t.Helper()
	Eventually(t, "nothing is leaked", func() error {
		runtime.Gosched()
		now := Holds(t)
		if now.Descriptors > before.Descriptors || now.Goroutines > before.Goroutines || len(now.Rings) > len(before.Rings) {
			return fmt.Errorf("%+v before, %+v after", before, now)
		}
		return nil
	})
}

// NoLeaks checks at the test's end, after the cleanups registered later, that the process
// holds no more than now.
func NoLeaks(t testing.TB) {
	t.Helper()
	before := Holds(t)
	t.Cleanup(func() { NoMoreThan(t, before) })
}
