package dcdb

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/memdb"
)

// TestMember is the other hosts' part in the benchmarks: a member that writes
// nothing, until it is killed.
func TestMember(t *testing.T) {
	if os.Getenv("BENCH_MEMBER") == "" {
		t.Skip("runs on a host of a benchmark only")
	}
	openCluster(t, filepath.Join(t.TempDir(), "config.db"))
	select {}
}

// BenchmarkDo measures an overwrite with 100 bytes on one of three hosts, from
// the call to its return: without the mount, whose whole way contrib/bench measures
// beside that of a bare message.
func BenchmarkDo(b *testing.B) {
	if !lab.Inside() {
		const hosts = 3
		l := lab.New(b, hosts)
		for i := 2; i <= hosts; i++ {
			l.Host(i).StartSelf(b, []string{"-test.run=^TestMember$"}, []string{"BENCH_MEMBER=1"}, nil)
		}
		l.Host(1).BenchSelf(b)
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
