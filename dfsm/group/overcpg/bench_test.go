package overcpg_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
)

// TestMember is the other hosts' part in the benchmarks: a member that writes
// nothing, until it is killed.
func TestMember(t *testing.T) {
	if os.Getenv("BENCH_MEMBER") == "" {
		t.Skip("runs on a host of a benchmark only")
	}
	start(t)
	select {}
}

// BenchmarkSubmit measures a write of 100 bytes from the call to its return,
// in groups of one and three hosts, through the driver alone. (contrib/bench
// measures the whole way of a write, beside that of a bare message.)
func BenchmarkSubmit(b *testing.B) {
	if lab.Inside() {
		members, err := strconv.Atoi(os.Getenv("BENCH_MEMBERS"))
		if err != nil {
			b.Fatal(err)
		}
		d := start(b)
		d.synced(b, members)
		for _, clients := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%dclients", clients), func(b *testing.B) { benchmarkSubmit(b, d, clients) })
		}
		return
	}
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%dhosts", n), func(b *testing.B) {
			l := lab.New(b, n)
			for i := 2; i <= n; i++ {
				l.Host(i).StartSelf(b, []string{"-test.run=^TestMember$"}, []string{"BENCH_MEMBER=1"}, nil)
			}
			l.Host(1).BenchSelf(b, fmt.Sprint("BENCH_MEMBERS=", n))
		})
	}
}

func benchmarkSubmit(b *testing.B, d *daemon, clients int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				at := time.Now()
				if err := d.write(context.Background(), c%keys, 100, 0); err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(at))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}
