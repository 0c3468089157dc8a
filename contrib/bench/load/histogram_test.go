package load

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketHoldsItsDurationsWithin32ndOfTheirValue(t *testing.T) {
	for i := range buckets - 1 {
		top := upper(i)
		if bucketOf(top) != i || bucketOf(top+1) != i+1 {
			t.Fatalf("bucket %d ends at %d ns, but %d lies in bucket %d and %d in %d",
				i, top, top, bucketOf(top), top+1, bucketOf(top+1))
		}
		if bottom := upper(max(i-1, 0)); i > 0 && (top-bottom)*32 > max(top, 32) {
			t.Fatalf("bucket %d, up to %d ns, is %d ns wide", i, top, top-bottom)
		}
	}
}

func TestQuantilesAgreeWithTheSortedDurations(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var all []time.Duration
	var parts [3]Histogram
	for range 10_000 {
		d := time.Duration(r.ExpFloat64() * float64(50*time.Microsecond))
		all = append(all, d)
		parts[r.IntN(len(parts))].Add(d)
	}
	var h Histogram
	for _, p := range parts {
		p.trim()
		h.Merge(p)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.99, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := h.Quantile(q); got < want || got > want+want/16+1 {
			t.Errorf("quantile %v is %v, sorted durations say %v", q, got, want)
		}
	}
}

func TestEmptyHistogramHasZeroQuantile(t *testing.T) {
	var h Histogram
	h.trim()
	if got := h.Quantile(0.99); got != 0 {
		t.Errorf("got %v", got)
	}
}
