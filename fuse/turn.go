package fuse

import (
	"runtime"
	"sync/atomic"
	"time"

	"pmxcfs/internal/tally"
)

// A goroutine that reads the device serves what it has read, and reads again: it never stops, so to the
// runtime it has been running without a pause for as long as there are requests. After 10 ms the
// runtime's monitor finds that too long, and takes away its processor each time it is in a system
// call, which here is nearly always; with nothing running then it goes to sleep, to be woken by the
// next request. It costs each request about a wake-up. A goroutine that lets others go first now and then
// has paused.
//
// The time for it is a RELEASE, whose answer nobody waits for. Other requests do it as well when
// there are none of those.
type turns struct {
	epoch time.Time
	last  [16]struct {
		pause atomic.Int64 // nanoseconds after epoch
		_     [56]byte
	}
}

const (
	pauseAtRelease = 4 * time.Millisecond
	pauseAtLatest  = 7 * time.Millisecond
)

// take pauses, if that was too long ago.
func (t *turns) take(enough time.Duration) {
	last := &t.last[tally.Shard(len(t.last))].pause
	if now := time.Since(t.epoch); now-time.Duration(last.Load()) >= enough {
		last.Store(int64(now))
		runtime.Gosched()
	}
}
