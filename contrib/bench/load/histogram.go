package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width is at most 1/32 of their
// value. The zero value is empty.
type Histogram struct {
	Counts []uint32 `json:"counts,omitempty"` // by bucket; without trailing zeros once trimmed
	Total  uint64   `json:"total"`
}

const (
	subBits = 5
	buckets = (40 + 1) << subBits // up to 2^45 ns, nine hours
)

// bucketOf returns the bucket of a duration in nanoseconds.
func bucketOf(ns uint64) int {
	shift := max(bits.Len64(ns)-1-subBits, 0)
	return min(shift<<subBits+int(ns>>shift), buckets-1)
}

// upper returns the longest duration in nanoseconds that bucket i counts.
func upper(i int) uint64 {
	shift := max(i>>subBits-1, 0)
	return uint64(i-shift<<subBits+1)<<shift - 1
}

// newHistogram returns an empty histogram that Add need not allocate for.
func newHistogram() Histogram { return Histogram{Counts: make([]uint32, buckets)} }

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	if h.Counts == nil {
		*h = newHistogram()
	}
	h.Counts[bucketOf(uint64(max(d, 0)))]++
	h.Total++
}

// Merge adds o's counts to h.
func (h *Histogram) Merge(o Histogram) {
	if len(h.Counts) < len(o.Counts) {
		h.Counts = append(h.Counts, make([]uint32, len(o.Counts)-len(h.Counts))...)
	}
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	h.Total += o.Total
}

// Quantile returns the duration that the share q of all operations did not
// exceed, up to the width of a bucket; 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.Total))
	var seen uint64
	for i, n := range h.Counts {
		if seen += uint64(n); n > 0 && seen >= min(rank+1, h.Total) {
			return time.Duration(upper(i))
		}
	}
	return 0
}

// trim drops trailing zeros, for sending.
func (h *Histogram) trim() {
	n := len(h.Counts)
	for n > 0 && h.Counts[n-1] == 0 {
		n--
	}
	h.Counts = h.Counts[:n]
}
