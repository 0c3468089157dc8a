package fuse

import (
	"sync/atomic"
	"time"
)

// timeEvery is how many of the requests that are answered from memory there are to one that is
// timed. Reading the clock twice and keeping the result takes as long as a tenth of such
// a request.
const timeEvery = 16

// counter counts one operation's requests. The rest keeps another one out of the
// processor's cache line.
type counter struct {
	begun, ended atomic.Uint64
	_            [48]byte
}

// inFlight knows the requests that are being served, without a lock: all by number, and
// of those that are timed a few slots hold when they began. Should there be more than
// slots, those without one can't be the oldest.
type inFlight struct {
	epoch    time.Time
	requests [Operations]counter
	slots    [64]atomic.Int64 // nanoseconds after epoch; 0: free
}

// running is one request.
type running struct {
	slot  *atomic.Int64 // nil: none was free
	begin time.Duration // after epoch; 0: it is not timed
}

func (f *inFlight) begin(op Operation) running {
	if n := f.requests[op].begun.Add(1); op.quick() && n%timeEvery != 1 {
		return running{}
	}
	r := running{begin: max(1, time.Since(f.epoch))}
	at := uint64(r.begin) * 0x9E3779B97F4A7C15 >> 32 // times differ in their low bits
	for i := range uint64(4) {                       // tries
		s := &f.slots[(at+i)%uint64(len(f.slots))]
		if s.CompareAndSwap(0, int64(r.begin)) {
			r.slot = s
			break
		}
	}
	return r
}

// end returns how long the request took, if it was timed.
func (f *inFlight) end(op Operation, r running) (took time.Duration, timed bool) {
	f.requests[op].ended.Add(1)
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
	for op := range f.requests {
		c := &f.requests[op]
		answered[op] = c.ended.Load() // first: none ends before it begins
		now += int(c.begun.Load() - answered[op])
	}
	return answered, now
}

// oldest returns how long the oldest request has been served; 0: there is none.
func (f *inFlight) oldest() time.Duration {
	now := time.Since(f.epoch)
	var age time.Duration
	for i := range f.slots {
		if begin := time.Duration(f.slots[i].Load()); begin != 0 {
			age = max(age, now-begin)
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
