package shard

import (
	"sync"
	"testing"
)

// Where a goroutine's stack is can't be foreseen; that all use one shard would be seen.
func TestGoroutinesAreSpread(t *testing.T) {
	const n = 16
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		used [n]int
	)
	begin := make(chan struct{}) // all are there at once, each with its own stack
	for range 64 * n {
		all.Go(func() {
			<-begin
			i := Of(n)
			mu.Lock()
			defer mu.Unlock()
			used[i]++
		})
	}
	close(begin)
	all.Wait()
	for i, goroutines := range used {
		if goroutines > 32*n {
			t.Errorf("%d of %d goroutines use shard %d", goroutines, 64*n, i)
		}
	}
	if got := Of(1); got != 0 {
		t.Errorf("of one, number %d", got)
	}
}
