package fuse

import (
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/internal/tally"
)

// timeEvery is how many of the requests that are answered from memory there are to one that is
// timed: reading the clock twice and keeping the result is the most of what observing costs.
const timeEvery = 16

// inFlight knows the requests that are being served, and how long those took that have been, without a
// lock. What it counts with is there several times, for goroutines to keep out of each other's cache
// lines: a line that comes from another processor takes longer than all the rest.
type inFlight struct {
	epoch  time.Time
	to     Observer
	shards []shard // a power of two
}

// shard has the requests of some goroutines. Those of the most frequent kinds are counted in one cache
// line. A few slots hold when those that are timed began; should there be more than slots, those
// without one can't be the oldest.
type shard struct {
	requests [Operations]requests
	slots    [7]atomic.Int64 // nanoseconds after epoch; 0 means free
	in       *inFlight
	took     [Operations]times
}

// times are how long requests of one kind took, in a cache line.
type times struct {
	tally.Histogram
	_ [16]byte
}

// requests are how many there are of one kind: in the low bits those that are being served, above
// them those that have been answered.
type requests struct{ atomic.Uint64 }

const (
	servedBits = 16
	begun      = 1                             // one more is being served
	answered   = 1<<servedBits - 1             // one more has been answered, one less is being served
	nextTimed  = (timeEvery - 1) << servedBits // while none of these bits is set, those that begin are timed
)

// running is a request that is being served.
type running struct {
	by    *shard
	slot  *atomic.Int64 // nil means none was free
	begin time.Duration // after epoch; 0 means it is not timed
}

func newInFlight(to Observer, shards int) *inFlight {
	f := &inFlight{epoch: time.Now(), to: to, shards: make([]shard, shards)}
	for i := range f.shards {
		f.shards[i].in = f
		for op := range f.shards[i].took {
			f.shards[i].took[op].Histogram = tally.Make(tally.Times)
		}
	}
	return f
}

// here returns the calling goroutine's shard. Those that serve requests live long.
func (f *inFlight) here() *shard { return &f.shards[tally.Shard(len(f.shards))] }

// count notes a request that is answered from memory, and times it if it is its turn.
//
// Here and in end it is the number of functions and of cache lines that costs: each is cold by
// the next request, and coming back takes longer than what is done.
func (f *inFlight) count(op Operation) (r running) {
	r.by = f.here()
	if r.by.requests[op].Add(begun)&nextTimed == 0 {
		r.start()
	}
	return r
}

// time notes a request that may wait, and times it.
func (f *inFlight) time(op Operation) (r running) {
	r.by = f.here()
	r.by.requests[op].Add(begun)
	r.start()
	return r
}

// start times a request from now on.
func (r *running) start() {
	r.begin = max(1, time.Since(r.by.in.epoch))
	for i := range r.by.slots {
		if slot := &r.by.slots[i]; slot.Load() == 0 && slot.CompareAndSwap(0, int64(r.begin)) {
			r.slot = slot
			return
		}
	}
}

// waits tells that a request that might have been answered from memory is going to wait: it is timed from
// now on. Nobody observes a nil one.
func (r *running) waits() {
	if r != nil && r.begin == 0 {
		r.start()
	}
}

// end notes that a request has been answered.
func (r *running) end(op Operation, st gofuse.Status) {
	r.by.requests[op].Add(answered)
	if r.begin != 0 || st > 0 {
		r.finish(op, st)
	}
}

func (r *running) finish(op Operation, st gofuse.Status) {
	if r.begin != 0 {
		if r.slot != nil {
			r.slot.Store(0)
		}
		r.by.took[op].Took(time.Since(r.by.in.epoch) - r.begin)
	}
	if st > 0 {
		r.by.in.to.Failed(op, syscall.Errno(st))
	}
}

// counts returns how many requests of each kind have been answered, and how many are
// being served.
func (f *inFlight) counts() (all [Operations]uint64, now int) {
	for i := range f.shards {
		for op := range all {
			n := f.shards[i].requests[op].Load()
			all[op] += n >> servedBits
			now += int(n & (1<<servedBits - 1))
		}
	}
	return all, now
}

// took returns how long requests took that were timed.
func (f *inFlight) took() (list [Operations]tally.Snapshot) {
	for i := range f.shards {
		for op := range list {
			list[op].Add(&f.shards[i].took[op].Histogram)
		}
	}
	return list
}

// oldest returns how long the oldest request has been served; 0 means there is none.
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

// Stats returns a snapshot. It does not wait.
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
