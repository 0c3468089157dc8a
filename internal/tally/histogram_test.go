package tally

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// around are the bounds of all cells with their neighbours, the extremes, and any.
func around(s *Scale) []int64 {
	list := []int64{0, 1, math.MaxInt64}
	for _, b := range s.bounds[:len(s.bounds)-1] {
		list = append(list, max(0, b-1), b, b+1)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		list = append(list, r.Int64()>>r.IntN(63))
	}
	return list
}

func TestClassicBucketsHoldWhatIsNotGreater(t *testing.T) {
	for name, s := range map[string]*Scale{"times": Times, "sizes": Sizes(0, 1, 5, 10, 4096, 1<<40)} {
		h := New(s)
		want := make([]uint64, len(s.upper))
		values := around(s)
		for _, v := range values {
			h.Observe(v)
			for i, upper := range s.upper {
				if float64(v)/s.unit <= upper {
					want[i]++
				}
			}
		}
		got := h.Snapshot()
		for i, b := range got.Classic() {
			if b.Upper != s.upper[i] || b.Count != want[i] {
				t.Errorf("%s: %d up to %v, want %d up to %v", name, b.Count, b.Upper, want[i], s.upper[i])
			}
		}
		if got.Count() != uint64(len(values)) {
			t.Errorf("%s: %d values, want %d", name, got.Count(), len(values))
		}
	}
}

// A native bucket of number i holds, by Prometheus' definition, what is greater than
// 2^((i-1)/2^schema) and not greater than 2^(i/2^schema).
func TestNativeBucketsAreThoseOfPrometheus(t *testing.T) {
	for _, v := range around(Times) {
		h := New(Times)
		h.Observe(v)
		s := h.Snapshot()
		n := s.Native()
		seconds := float64(v) / 1e9
		if seconds <= n.Threshold {
			if n.Zero != 1 || len(n.Counts) != 0 {
				t.Errorf("%d ns: %+v, want it in the zero bucket", v, n)
			}
			continue
		}
		if n.Zero != 0 || len(n.Counts) != 1 {
			t.Errorf("%d ns: %+v, want it in one bucket", v, n)
		}
		for i := range n.Counts {
			lower, upper := math.Exp2(float64(i-1)/perDoubling), math.Exp2(float64(i)/perDoubling)
			if seconds <= lower || seconds > upper && i != highest {
				t.Errorf("%d ns is in bucket %d, from %v to %v", v, i, lower, upper)
			}
		}
	}
	h := New(Sizes(1))
	if s := h.Snapshot(); s.Native() != nil {
		t.Error("sizes have native buckets")
	}
}

func TestSumIsToldInTheScalesUnit(t *testing.T) {
	h := New(Times)
	h.Took(1500 * time.Millisecond)
	h.Took(-time.Second)
	var s Snapshot
	s.Add(h)
	s.Add(h)
	if s.Sum() != 3 || s.Count() != 4 {
		t.Errorf("%d values, in all %v", s.Count(), s.Sum())
	}
	h = New(Sizes(10))
	h.Observe(7)
	h.Observe(8)
	if got := h.Snapshot().Sum(); got != 15 {
		t.Errorf("in all %v", got)
	}
}

func TestNothingThatWasObservedIsMissing(t *testing.T) {
	h := New(Times)
	const goroutines, each = 20, 1000
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for i := range each {
				h.Took(time.Duration(i) * time.Microsecond)
				if i%100 == 0 {
					h.Snapshot()
				}
			}
		})
	}
	all.Wait()
	s := h.Snapshot()
	if want := goroutines * 0.4995; s.Count() != goroutines*each || math.Abs(s.Sum()-want) > 1e-6 {
		t.Errorf("%d values, in all %v s; want %d and %v", s.Count(), s.Sum(), goroutines*each, want)
	}
}

func BenchmarkTook(b *testing.B) {
	h := New(Times)
	for i := 0; b.Loop(); i++ {
		h.Took(time.Duration(i%1000) * time.Microsecond)
	}
}
