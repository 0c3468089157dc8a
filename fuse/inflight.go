package fuse

import (
	"sync/atomic"
	"time"
)

// inFlight knows the requests that are being served, without a lock: a few slots hold
// when they began. Should there be more requests than slots, those without one are
// counted, but can't be the oldest.
type inFlight struct {
	epoch time.Time
	count atomic.Int64
	slots [64]atomic.Int64 // nanoseconds after epoch; 0: free
}

// running is one request.
type running struct {
	slot  *atomic.Int64 // nil: none was free
	begin time.Duration // after epoch
}

func (f *inFlight) begin() running {
	f.count.Add(1)
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

// end returns how long the request took.
func (f *inFlight) end(r running) time.Duration {
	if r.slot != nil {
		r.slot.Store(0)
	}
	f.count.Add(-1)
	return time.Since(f.epoch) - r.begin
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
	InFlight int           // requests being served; 0 always without an Observer
	Oldest   time.Duration // how long the oldest of them has been

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
	s := Stats{InFlight: int(fs.inFlight.count.Load()), Oldest: fs.inFlight.oldest(), Pending: int(fs.notify.pending.Load())}
	for i := range s.Invalidations {
		c := &fs.notify.answers[i]
		s.Invalidations[i] = InvalidationStats{Done: c.done.Load(), Unknown: c.unknown.Load(), Refused: c.refused.Load()}
	}
	return s
}
