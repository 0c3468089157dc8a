package metrics

import (
	"sync"
	"testing"
	"time"
)

// What has been observed is there at once, whether it is in a block that is not full or in
// the histograms; and nothing that was ever shown goes away again.
func TestEachTransactionCountsOnceAndAtOnce(t *testing.T) {
	const goal = 300 * blockSize
	var tr transactions
	tr.init()
	for n := range uint64(3*blockSize + 1) {
		rows, bytes, took := tr.snapshot()
		if rows.Count() != n || bytes.Count() != n || took.Count() != n {
			t.Fatalf("after %d: %d, %d, %d", n, rows.Count(), bytes.Count(), took.Count())
		}
		if rows.Sum() != float64(2*n) || bytes.Sum() != float64(700*n) || took.Sum() != float64(n)/1000 {
			t.Fatalf("after %d: sums of %v, %v, %v", n, rows.Sum(), bytes.Sum(), took.Sum())
		}
		tr.observe(transaction{2, 700, time.Millisecond})
	}
	tr = transactions{}
	tr.init()
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for last := uint64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				rows, bytes, took := tr.snapshot()
				n := rows.Count()
				if bytes.Count() != n || took.Count() != n || rows.Sum() != float64(n) || bytes.Sum() != float64(10*n) {
					t.Errorf("%d, %d, %d; sums of %v, %v", n, bytes.Count(), took.Count(), rows.Sum(), bytes.Sum())
					return
				}
				if n < last {
					t.Errorf("%d after %d", n, last)
					return
				}
				last = n
			}
		})
	}
	for range goal {
		tr.observe(transaction{1, 10, time.Microsecond})
	}
	close(stop)
	readers.Wait()
	if rows, _, _ := tr.snapshot(); rows.Count() != goal {
		t.Errorf("%d of %d", rows.Count(), goal)
	}
}

func BenchmarkObservingATransaction(b *testing.B) {
	var tr transactions
	tr.init()
	for b.Loop() {
		tr.observe(transaction{2, 700, 30 * time.Microsecond})
	}
}
