package tally

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Histogram counts values by their size. Its methods may be called by several goroutines at once.
//
// Prometheus' own needs some ten cache lines for an observation, and looks for its native bucket
// in a map; between two observations of a request lie system calls, so that all of them come from
// far away. This one needs three: its own, one of its scale, and the cell's.
type Histogram struct {
	sum    atomic.Int64
	cells  []atomic.Uint64
	divide *[octaves]octave // the scale's
	scale  *Scale
}

// New returns a histogram of nothing.
func New(s *Scale) *Histogram { h := Make(s); return &h }

// Make returns a histogram of nothing to be put next to what is used together with it. It must not be
// copied once it is used.
func Make(s *Scale) Histogram {
	return Histogram{cells: make([]atomic.Uint64, len(s.bounds)), divide: s.octaves, scale: s}
}

// Observe counts a value; a negative one counts as 0.
func (h *Histogram) Observe(value int64) {
	value = max(0, value)
	h.cells[cell(h.divide, value)].Add(1)
	h.sum.Add(value)
}

// Took counts a duration; the scale must be one of nanoseconds.
func (h *Histogram) Took(d time.Duration) { h.Observe(int64(d)) }

// Snapshot returns what has been counted. It waits for nobody: what is counted meanwhile may
// be in the buckets and not yet in the sum.
func (h *Histogram) Snapshot() Snapshot {
	var s Snapshot
	s.Add(h)
	return s
}

// Scale divides values into cells, such that each bucket is some cells: a classic one, which holds
// all values up to its bound, as well as a native one, which holds those of a range.
type Scale struct {
	bounds  []int64          // the greatest value of each cell
	octaves *[octaves]octave // the same by the number of a value's bits
	unit    float64          // how much makes 1 in what is told
	upper   []float64        // of the classic buckets, in units
	last    []int            // of the classic buckets: their last cell
	native  []int            // of each cell: its native bucket, or zeroBucket
}

// Sizes returns a scale of numbers, with classic buckets alone.
func Sizes(bounds ...int64) *Scale {
	s := &Scale{unit: 1}
	s.divide(bounds, nil)
	return s
}

// The native buckets of durations: four for each doubling, from about a microsecond to
// about a quarter of an hour. What is longer counts as the longest.
const (
	schema      = 2
	perDoubling = 1 << schema
	lowest      = -20 * perDoubling
	highest     = 10 * perDoubling

	zeroBucket = math.MinInt // what is smaller than the others
)

// Durations returns a scale of nanoseconds, told in seconds, with classic buckets up to the
// bounds and with native ones.
func Durations(bounds ...time.Duration) *Scale {
	s := &Scale{unit: float64(time.Second)}
	classic := make([]int64, len(bounds))
	for i, b := range bounds {
		classic[i] = int64(b)
	}
	native := make([]int64, 0, highest-lowest+1)
	for i := lowest; i <= highest; i++ {
		native = append(native, int64(math.Exp2(float64(i)/perDoubling)*s.unit))
	}
	s.divide(classic, native)
	s.native = make([]int, len(s.bounds))
	for cell, bound := range s.bounds {
		i, _ := slices.BinarySearch(native, bound)
		if s.native[cell] = min(lowest+i, highest); i == 0 {
			s.native[cell] = zeroBucket
		}
	}
	return s
}

// Times is the scale of how long requests, transactions and the like take: its classic buckets reach from
// a request that is answered from memory to one that is given up.
var Times = Durations(
	20*time.Microsecond, 50*time.Microsecond, 100*time.Microsecond, 200*time.Microsecond, 500*time.Microsecond,
	time.Millisecond, 2*time.Millisecond, 5*time.Millisecond, 10*time.Millisecond, 50*time.Millisecond,
	100*time.Millisecond, 500*time.Millisecond, time.Second, 5*time.Second, 10*time.Second,
)

// divide makes the cells.
func (s *Scale) divide(classic, native []int64) {
	s.bounds = append(slices.Concat(classic, native), math.MaxInt64) // the last holds what is greater
	slices.Sort(s.bounds)
	s.bounds = slices.Compact(s.bounds)
	for _, b := range classic {
		i, _ := slices.BinarySearch(s.bounds, b)
		s.upper, s.last = append(s.upper, float64(b)/s.unit), append(s.last, i)
	}
	s.octaves = new([octaves]octave)
	for n := range s.octaves {
		o := &s.octaves[n]
		first, _ := slices.BinarySearch(s.bounds, int64(uint64(1)<<n>>1))
		o.first = int64(first)
		if copy(o.bounds[:], s.bounds[first:]) < len(o.bounds) {
			continue // the last bound is among them
		}
		if last := o.bounds[len(o.bounds)-1]; bits.Len64(uint64(last)) <= n {
			panic(fmt.Sprintf("a scale has more than %d bounds up to %d", len(o.bounds), last))
		}
	}
}

const octaves = 64

// octave has the bounds that a value with some number of bits may be below, in one cache line.
type octave struct {
	first  int64 // the first bound's cell
	bounds [7]int64
}

// cell returns the cell of a value that is not negative.
func cell(by *[octaves]octave, value int64) int64 {
	o := &by[bits.Len64(uint64(value))%octaves]
	i := 0
	for value > o.bounds[i] {
		i++
	}
	return o.first + int64(i)
}

// Snapshot is what a histogram held.
type Snapshot struct {
	scale *Scale
	cells []uint64
	sum   int64
}

// Add adds what a histogram holds. All that are added must be of one scale.
func (s *Snapshot) Add(h *Histogram) {
	if s.scale == nil {
		s.scale, s.cells = h.scale, make([]uint64, len(h.cells))
	}
	for i := range h.cells {
		s.cells[i] += h.cells[i].Load()
	}
	s.sum += h.sum.Load()
}

// Count returns how many values there were.
func (s Snapshot) Count() uint64 {
	n := uint64(0)
	for _, c := range s.cells {
		n += c
	}
	return n
}

// Sum returns the values' sum, in what the scale tells: seconds for durations.
func (s Snapshot) Sum() float64 { return float64(s.sum) / s.scale.unit }

// Bucket is a classic bucket.
type Bucket struct {
	Upper float64 // the greatest value that belongs to it
	Count uint64  // of all values up to that
}

// Classic returns the classic buckets, without the one of all values.
func (s Snapshot) Classic() []Bucket {
	list := make([]Bucket, 0, len(s.scale.last))
	n, cell := uint64(0), 0
	for i, last := range s.scale.last {
		for ; cell <= last; cell++ {
			n += s.cells[cell]
		}
		list = append(list, Bucket{s.scale.upper[i], n})
	}
	return list
}

// Native are the native buckets as Prometheus numbers them.
type Native struct {
	Schema    int32
	Zero      uint64 // values up to Threshold
	Threshold float64
	Counts    map[int]int64 // of other values, by bucket; without empty ones
}

// Native returns the native buckets, or nil if the scale has none.
func (s Snapshot) Native() *Native {
	if s.scale.native == nil {
		return nil
	}
	n := &Native{Schema: schema, Threshold: math.Exp2(lowest / perDoubling), Counts: make(map[int]int64)}
	for cell, count := range s.cells {
		switch bucket := s.scale.native[cell]; {
		case bucket == zeroBucket:
			n.Zero += count
		case count > 0:
			n.Counts[bucket] += int64(count)
		}
	}
	return n
}
