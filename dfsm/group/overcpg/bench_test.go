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
	"pmxcfs/dfsm/dfsmtest"
)

// TestMember is the other hosts' part in the benchmarks: a member that writes
// nothing, until it is killed.
func TestMember(t *testing.T) {
	if os.Getenv("BENCH_MEMBER") == "" {
		t.Skip("runs on a host of a benchmark only")
	}
	if n, _ := strconv.Atoi(os.Getenv("BENCH_ENTRIES")); n > 0 {
		startWith(t, filled(n))
	} else {
		start(t)
	}
	select {}
}

// BenchmarkSubmit measures a write of 100 bytes from the call to its return,
// in groups of one and three hosts; beside it stands what package cpg measures
// for a bare message.
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

// filled returns a store with n entries of 700 bytes.
func filled(n int) *dfsmtest.Disk {
	d := dfsmtest.NewDisk(n)
	for i := range d.Entries {
		d.Entries[i] = dfsmtest.Entry{Version: uint64(i + 1), Value: make([]byte, 700)}
	}
	d.History = []dfsmtest.OpID{{Count: 1}}
	return d
}

// BenchmarkJoin measures how long an empty node takes from its first view to
// being synced with two others.
func BenchmarkJoin(b *testing.B) {
	if lab.Inside() {
		n, err := strconv.Atoi(os.Getenv("BENCH_ENTRIES"))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			d := startWith(b, dfsmtest.NewDisk(n))
			d.synced(b, 3)
			d.stop()
		}
		return
	}
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("%dentries", n), func(b *testing.B) {
			l := lab.New(b, 3)
			env := fmt.Sprint("BENCH_ENTRIES=", n)
			for i := 1; i <= 2; i++ {
				l.Host(i).StartSelf(b, []string{"-test.run=^TestMember$"}, []string{"BENCH_MEMBER=1", env}, nil)
			}
			l.Host(3).BenchSelf(b, env)
		})
	}
}
