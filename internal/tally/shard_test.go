package tally

import (
	"sync"
	"testing"
)

// Where a goroutine's stack is can't be foreseen; that all use one shard would be seen.
func TestGoroutinesAreSpread(t *testing.T) {
	const n = 16
	var (
		there, all sync.WaitGroup
		mu         sync.Mutex
		used       [n]int
	)
	// All are there at once: one that ends leaves its stack to the next.
	begin := make(chan struct{})
	there.Add(64 * n)
	for range 64 * n {
		all.Go(func() {
			there.Done()
			<-begin
			i := Shard(n)
			mu.Lock()
			defer mu.Unlock()
			used[i]++
		})
	}
	there.Wait()
	close(begin)
	all.Wait()
	for i, goroutines := range used {
		if goroutines > 32*n {
			t.Errorf("%d of %d goroutines use shard %d", goroutines, 64*n, i)
		}
	}
	if got := Shard(1); got != 0 {
		t.Errorf("of one, number %d", got)
	}
}
