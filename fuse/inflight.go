package fuse

import (
	"sync/atomic"
	"time"

	"pmxcfs/fuse/shard"
)

// timeEvery is how many of the requests that are answered from memory there are to one that is
// timed. Reading the clock twice and keeping the result takes as long as a tenth of such
// a request.
const timeEvery = 16

// inFlight knows the requests that are being served, without a lock. What it counts with is
// there several times, for goroutines to keep out of each other's cache lines: a line that comes from
// another processor takes longer than all the rest.
type inFlight struct {
	epoch  time.Time
	shards [16]counts
}

// counts are those of the requests of some goroutines: all by number, and of those that are timed
// a few slots hold when they began. Should there be more than slots, those without one can't be
// the oldest.
type counts struct {
	slots    [8]atomic.Int64 // nanoseconds after epoch; 0: free
	requests [Operations]struct{ begun, ended atomic.Uint64 }
	_        [64]byte
}

// running is one request.
type running struct {
	in    *counts
	slot  *atomic.Int64 // nil: none was free
	begin time.Duration // after epoch; 0: it is not timed
}

// here returns the counts of this goroutine. Those that read requests live long.
func (f *inFlight) here() *counts { return &f.shards[shard.Of(len(f.shards))] }

func (f *inFlight) begin(op Operation) running { return f.here().begin(op, f.epoch) }

func (c *counts) begin(op Operation, epoch time.Time) running {
	r := running{in: c}
	if n := c.requests[op].begun.Add(1); op.quick() && n%timeEvery != 1 {
		return r
	}
	r.begin = max(1, time.Since(epoch))
	for i := range c.slots {
		if slot := &c.slots[i]; slot.Load() == 0 && slot.CompareAndSwap(0, int64(r.begin)) {
			r.slot = slot
			break
		}
	}
	return r
}

// end returns how long the request took, if it was timed.
func (f *inFlight) end(op Operation, r running) (took time.Duration, timed bool) {
	r.in.requests[op].ended.Add(1)
	if r.begin == 0 {
		return 0, false
	}
	if r.slot != nil {
		r.slot.Store(0)
	}
	return time.Since(f.epoch) - r.begin, true
}

// counts returns how many requests of each kind have been answered, and how many are
// being served.
func (f *inFlight) counts() (answered [Operations]uint64, now int) {
	for i := range f.shards {
		for op := range answered {
			n := f.shards[i].requests[op].ended.Load() // all of them first: none ends before it begins
			answered[op] += n
			now -= int(n)
		}
	}
	for i := range f.shards {
		for op := range answered {
			now += int(f.shards[i].requests[op].begun.Load())
		}
	}
	return answered, now
}

// oldest returns how long the oldest request has been served; 0: there is none.
func (f *inFlight) oldest() time.Duration {
	now := time.Since(f.epoch)
	var age time.Duration
	for i := range f.shards {
		for j := range f.shards[i].slots {
			if begin := time.Duration(f.shards[i].slots[j].Load()); begin != 0 {
				age = max(age, now-begin)
			}
		}
	}
	return age
}

// Stats is a snapshot of what a file system has to do.
type Stats struct {
	Requests [Operations]uint64 // answered; all 0 without an Observer, as are the next two
	InFlight int                // requests being served
	Oldest   time.Duration      // how long the oldest of those that are timed has been

	Invalidations [Invalidations]InvalidationStats // by kind
	Pending       int                              // invalidations that are to be sent
}

// InvalidationStats counts how the kernel answered when it was told to forget something.
type InvalidationStats struct {
	Done    uint64 // it forgot it
	Unknown uint64 // it did not know it
	Refused uint64 // anything else
}

// Invalidation is a kind of thing that the kernel is told to forget.
type Invalidation uint8

const (
	InvalidContent    = Invalidation(noticeContent)
	InvalidAttributes = Invalidation(noticeAttributes)
	InvalidName       = Invalidation(noticeName)
	InvalidDeleted    = Invalidation(noticeDeleted)
	Invalidations     = int(noticeDeleted) + 1 // how many kinds there are
)

// String returns the kind's name.
func (i Invalidation) String() string {
	return [...]string{"content", "attributes", "name", "deleted_name"}[i]
}

// Stats returns a snapshot. It waits for nobody.
func (fs *FS) Stats() Stats {
	s := Stats{Oldest: fs.inFlight.oldest(), Pending: int(fs.notify.pending.Load())}
	s.Requests, s.InFlight = fs.inFlight.counts()
	for i := range s.Invalidations {
		c := &fs.notify.answers[i]
		s.Invalidations[i] = InvalidationStats{Done: c.done.Load(), Unknown: c.unknown.Load(), Refused: c.refused.Load()}
	}
	return s
}
