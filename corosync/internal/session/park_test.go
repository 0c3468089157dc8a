package session

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/corosync"
	"pmxcfs/internal/testutil"
)

// Events come soon one after the other, and then not: whichever way Next waits in, and where
// it changes from one to the other, none is lost and none comes late.
func TestNoEventIsLostBetweenTheWaysOfWaiting(t *testing.T) {
	s, far := newPair(t)
	if s.parking == nil {
		t.Fatal("the runtime's poller does not take the descriptors in")
	}
	var blocked, parked, got atomic.Int64
	seen := make(chan struct{}, 1)
	ended := make(chan error)
	go func() {
		for {
			if s.row >= brisk {
				blocked.Add(1)
			} else {
				parked.Add(1)
			}
			err := s.Next(Forever, "d", func() corosync.Code {
				var b [64]byte
				n, err := unix.Read(s.fd, b[:])
				if err != nil {
					t.Error(err)
				}
				got.Add(int64(n))
				return corosync.OK
			})
			if err != nil {
				ended <- err
				return
			}
			select {
			case seen <- struct{}{}:
			default:
			}
		}
	}()
	random := rand.New(rand.NewPCG(1, 2))
	sent := int64(0)
	// On a machine that is busy, events may not come soon enough at first.
	for round, limit := 0, time.Now().Add(30*time.Second); round < 12 || blocked.Load() == 0 && time.Now().Before(limit); round++ {
		for range 2 * brisk {
			if random.IntN(4) == 0 {
				s.Wake()
			}
			if _, err := far.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			for sent++; got.Load() < sent; {
				select {
				case <-seen:
				case <-time.After(testutil.Patience):
					t.Fatalf("%d events of %d", got.Load(), sent)
				}
			}
		}
		time.Sleep(time.Duration(random.Int64N(int64(3 * soon))))
	}
	if err := s.Close("close", ok); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != corosync.ErrClosed {
		t.Error(err)
	}
	if blocked.Load() == 0 || parked.Load() == 0 {
		t.Errorf("%d waits in one way, %d in the other", blocked.Load(), parked.Load())
	}
}

// A time that is up before anybody has looked is no reason not to look.
func TestATimeoutOfNothingLooks(t *testing.T) {
	s, far := newPair(t)
	if _, err := far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	for _, timeout := range []time.Duration{0, 1} {
		calls := 0
		if err := s.Next(timeout, "d", func() corosync.Code { calls++; return corosync.OK }); err != nil || calls != 1 {
			t.Errorf("%v: dispatched %d times, %v", timeout, calls, err)
		}
	}
}
