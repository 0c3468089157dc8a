package fuse

import (
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/fuse/tally"
)

// timeEvery is how many of the requests that are answered from memory there are to one that is
// timed: reading the clock twice and keeping the result is the most of what observing costs.
const timeEvery = 16

// inFlight knows the requests that are being served, and how long those took that have been, without a
// lock. What it counts with is there several times, for goroutines to keep out of each other's cache
// lines: a line that comes from another processor takes longer than all the rest.
type inFlight struct {
	epoch time.Time
	to    Observer

	writesWait bool    // for the group to have it back; else a write is answered from memory
	shards     []shard // a power of two
}

// shard has the requests of some goroutines: all by number, and of those that are timed a few
// slots hold when they began. Should there be more than slots, those without one can't be the oldest.
type shard struct {
	slots    [8]atomic.Int64 // nanoseconds after epoch; 0: free
	requests [Operations]counts
	_        [64]byte
}

// counts are of one operation, and fill a cache line.
type counts struct {
	begun, ended atomic.Uint64
	took         tally.Histogram
}

// running is one request.
type running struct {
	of    *counts
	slot  *atomic.Int64 // nil: none was free
	begin time.Duration // after epoch; 0: it is not timed
}

func newInFlight(to Observer, shards int) *inFlight {
	f := &inFlight{epoch: time.Now(), to: to, shards: make([]shard, shards)}
	for i := range f.shards {
		for op := range f.shards[i].requests {
			f.shards[i].requests[op].took = tally.Make(tally.Times)
		}
	}
	return f
}

// begin notes a request of the calling goroutine's. Those that read requests live long.
//
// Here and in end it is the number of functions that costs: each has left the processor's cache since
// the last request, and coming back takes longer than what it does.
func (f *inFlight) begin(op Operation) running {
	s := &f.shards[tally.Shard(len(f.shards))]
	r := running{of: &s.requests[op]}
	if n := r.of.begun.Add(1); n%timeEvery != 1 && (op.quick() || op == OpWrite && !f.writesWait) {
		return r
	}
	r.begin = max(1, time.Since(f.epoch))
	for i := range s.slots {
		if slot := &s.slots[i]; slot.Load() == 0 && slot.CompareAndSwap(0, int64(r.begin)) {
			r.slot = slot
			break
		}
	}
	return r
}

// end notes that a request has been answered.
func (f *inFlight) end(op Operation, r running, st gofuse.Status) {
	r.of.ended.Add(1)
	if r.begin != 0 {
		if r.slot != nil {
			r.slot.Store(0)
		}
		r.of.took.Took(time.Since(f.epoch) - r.begin)
	}
	if st > 0 {
		f.to.Failed(op, syscall.Errno(st))
	}
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

// took returns how long requests took that were timed.
func (f *inFlight) took() (list [Operations]tally.Snapshot) {
	for i := range f.shards {
		for op := range list {
			list[op].Add(&f.shards[i].requests[op].took)
		}
	}
	return list
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
	Requests [Operations]uint64         // answered; all 0 without an Observer, as are the next three
	Took     [Operations]tally.Snapshot // how long it took, of each that may wait, and of one of timeEvery of the others
	InFlight int                        // requests being served
	Oldest   time.Duration              // how long the oldest of those that are timed has been

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
	s.Took = fs.inFlight.took()
	for i := range s.Invalidations {
		c := &fs.notify.answers[i]
		s.Invalidations[i] = InvalidationStats{Done: c.done.Load(), Unknown: c.unknown.Load(), Refused: c.refused.Load()}
	}
	return s
}
