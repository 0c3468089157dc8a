package cpg_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
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
			b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { benchOutstanding(b, 1, size, false) })
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
					benchOutstanding(b, outstanding, size, false)
				})
			}
		}
	})
}

// BenchmarkOwnerSends is the other way to send: those who want to leave their
// messages to the owner and wake it. One hop more for one message, and no
// crowd at the connection's mutex for many.
func BenchmarkOwnerSends(b *testing.B) {
	benchOnLab(b, func(b *testing.B) {
		for _, outstanding := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("outstanding=%d/bytes=100", outstanding), func(b *testing.B) {
				benchOutstanding(b, outstanding, 100, true)
			})
		}
	})
}

func benchOutstanding(b *testing.B, outstanding, size int, ownerSends bool) {
	// A daemon has a heap. With next to none, the collector would run every
	// few messages of 512 KiB.
	heap := make([]byte, 64<<20)
	defer runtime.KeepAlive(heap)

	c := open(b)
	join(b, c, testGroup)
	send := func(msg []byte) error {
		for {
			err := c.Mcast(msg)
			if !errors.Is(err, corosync.ErrTryAgain) {
				return err
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	var mu sync.Mutex
	var queue [][]byte // for the owner to send
	waiters := make([]chan struct{}, outstanding)
	for i := range waiters {
		waiters[i] = make(chan struct{}, 1)
	}
	batches := 0
	ended := make(chan struct{})
	go func() { // the owner
		defer close(ended)
		var events []cpg.Event
		var out [][]byte
		for {
			var err error
			if events, err = c.Next(events[:0], cpg.Forever); err != nil {
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
			mu.Lock()
			out, queue = queue, out[:0]
			mu.Unlock()
			for _, msg := range out {
				if err := send(msg); err != nil {
					b.Error(err)
				}
			}
		}
	}()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var senders sync.WaitGroup
	for i := range outstanding {
		n := b.N / outstanding
		if i < b.N%outstanding {
			n++
		}
		senders.Go(func() {
			msg := make([]byte, size)
			msg[0] = byte(i)
			for range n {
				if ownerSends {
					mu.Lock()
					queue = append(queue, msg)
					mu.Unlock()
					c.Wake()
				} else if err := send(msg); err != nil {
					b.Error(err)
					return
				}
				<-waiters[i]
			}
		})
	}
	senders.Wait()
	b.StopTimer()
	_ = c.Close()
	<-ended
	b.ReportMetric(float64(b.N)/float64(max(1, batches)), "msgs/batch")
}
