package cpg_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cpg"
)

// The benchmarks measure what a writer sees: from the call that sends until the
// goroutine that made it runs again, its message having come back in order. As
// in the daemon, one goroutine owns the connection and wakes those that wait.
//
// Each runs on the first host of a lab of 1 and of 3.

func benchOnLab(b *testing.B, bench func(*testing.B)) {
	if lab.Inside() {
		bench(b)
		return
	}
	for _, hosts := range []int{1, 3} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			l := lab.New(b, hosts)
			l.Host(1).BenchSelf(b)
		})
	}
}

// BenchmarkRoundTrip has one message outstanding.
func BenchmarkRoundTrip(b *testing.B) {
	benchOnLab(b, func(b *testing.B) {
		for _, size := range []int{100, 4 << 10, 64 << 10, 512 << 10} {
			b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { benchOutstanding(b, 1, size) })
		}
	})
}

// BenchmarkThroughput has several outstanding, each waited for by a goroutine
// of its own.
func BenchmarkThroughput(b *testing.B) {
	benchOnLab(b, func(b *testing.B) {
		for _, outstanding := range []int{8, 64} {
			for _, size := range []int{100, 4 << 10} {
				b.Run(fmt.Sprintf("outstanding=%d/bytes=%d", outstanding, size), func(b *testing.B) {
					benchOutstanding(b, outstanding, size)
				})
			}
		}
	})
}

func benchOutstanding(b *testing.B, outstanding, size int) {
	c := open(b)
	join(b, c, testGroup)
	waiters := make([]chan struct{}, outstanding)
	for i := range waiters {
		waiters[i] = make(chan struct{}, 1)
	}
	batches := 0
	ended := make(chan struct{})
	go func() { // the owner
		defer close(ended)
		var events []cpg.Event
		for {
			var err error
			events, err = c.Next(events[:0], cpg.Forever)
			if err != nil {
				return
			}
			if len(events) > 0 {
				batches++
			}
			for _, e := range events {
				if e.Change == nil {
					waiters[e.Data[0]] <- struct{}{}
				}
			}
		}
	}()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	senders := make(chan error, outstanding)
	for i := range outstanding {
		n := b.N / outstanding
		if i < b.N%outstanding {
			n++
		}
		go func() {
			msg := make([]byte, size)
			msg[0] = byte(i)
			for range n {
				for {
					err := c.Mcast(msg)
					if err == nil {
						break
					}
					if !errors.Is(err, corosync.ErrTryAgain) {
						senders <- err
						return
					}
					time.Sleep(100 * time.Microsecond)
				}
				<-waiters[i]
			}
			senders <- nil
		}()
	}
	for range outstanding {
		if err := <-senders; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	_ = c.Close()
	<-ended
	b.ReportMetric(float64(b.N)/float64(batches), "msgs/batch")
}
