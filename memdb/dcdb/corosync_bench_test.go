package dcdb

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/dfsm"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// TestMember is the other hosts' part in the benchmarks: a member that writes
// nothing, until it is killed.
func TestMember(t *testing.T) {
	if os.Getenv("BENCH_MEMBER") == "" {
		t.Skip("runs on a host of a benchmark only")
	}
	path := filepath.Join(t.TempDir(), "config.db")
	if n, _ := strconv.Atoi(os.Getenv("BENCH_ENTRIES")); n > 0 {
		if err := sqlite.Create(path, filled(t, n).Entries()); err != nil {
			t.Fatal(err)
		}
	}
	openCluster(t, path)
	select {}
}

func onHosts(b *testing.B, hosts, entries int) {
	l := lab.New(b, hosts)
	for i := 2; i <= hosts; i++ {
		l.Host(i).StartSelf(b, []string{"-test.run=^TestMember$"}, []string{"BENCH_MEMBER=1", fmt.Sprint("BENCH_ENTRIES=", entries)}, nil)
	}
	l.Host(1).BenchSelf(b, fmt.Sprint("BENCH_ENTRIES=", entries))
}

// BenchmarkDo measures an overwrite with 100 bytes on one of three hosts, from
// the call to its return; beside it stands what package cpg measures for a bare
// message.
func BenchmarkDo(b *testing.B) {
	if !lab.Inside() {
		onHosts(b, 3, 0)
		return
	}
	c, stop := openCluster(b, filepath.Join(b.TempDir(), "config.db"))
	defer stop()
	clusterSynced(b, c, 3)
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%dclients", clients), func(b *testing.B) {
			for i := range clients {
				f := create(fmt.Sprint("f", i))
				c.Do(nil, &f)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range clients {
				wg.Go(func() {
					op := memdb.Op{Kind: memdb.OpWrite, Path: fmt.Sprint("f", i), Data: make([]byte, 100), Truncate: true}
					for left.Add(-1) >= 0 {
						if _, err := c.Do(make(chan struct{}), &op); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkJoin measures the join of an empty node to one that has all, from its
// first connection until it is synced.
func BenchmarkJoin(b *testing.B) {
	if !lab.Inside() {
		for _, n := range []int{1_000, 10_000, 100_000} {
			b.Run(fmt.Sprint(n), func(b *testing.B) { onHosts(b, 2, n) })
		}
		return
	}
	want, err := strconv.Atoi(os.Getenv("BENCH_ENTRIES"))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		c, stop := openCluster(b, filepath.Join(b.TempDir(), fmt.Sprint(i, ".db")))
		until(b, "joined", func() bool {
			s := c.Status().Group
			_, n := c.Tree().Usage()
			return s.Mode == dfsm.ModeSynced && len(s.Members) == 2 && n == want
		})
		b.StopTimer()
		stop()
		b.StartTimer()
	}
}
