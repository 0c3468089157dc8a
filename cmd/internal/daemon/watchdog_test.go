package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// part is something to be watched: it answers pings while it is not stuck.
type part struct {
	mu      sync.Mutex
	stuck   chan struct{} // closed when it is not; nil means it isn't
	waiting bool
	broken  error
}

func (p *part) set(stuck chan struct{}, waiting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck, p.waiting = stuck, waiting
}

func (p *part) check() *check {
	return &check{
		name: "the part",
		ping: func(ctx context.Context) error {
			p.mu.Lock()
			stuck := p.stuck
			p.mu.Unlock()
			if stuck == nil {
				return p.broken
			}
			select {
			case <-stuck:
				return p.broken
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		waits: func(time.Duration) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.waiting {
				return "the weather"
			}
			return ""
		},
	}
}

// watch runs f with a watchdog of 4 s, and a counter of its feedings.
func watch(t *testing.T, p *part, f func(w *watchdog, fed *atomic.Int32, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var fed atomic.Int32
		var log bytes.Buffer
		w := startWatchdog(4*time.Second, []*check{p.check()}, func() { fed.Add(1) }, slog.New(slog.NewTextHandler(&log, nil)))
		defer w.stop()
		time.Sleep(100 * time.Millisecond) // between two ticks from here on
		f(w, &fed, &log)
	})
}

// fedFor returns how often it is fed in the next time.
func fedFor(fed *atomic.Int32, d time.Duration) int {
	before := fed.Load()
	time.Sleep(d)
	synctest.Wait()
	return int(fed.Load() - before)
}

func TestWatchdogIsFedFourTimesInItsInterval(t *testing.T) {
	watch(t, &part{}, func(w *watchdog, fed *atomic.Int32, log *bytes.Buffer) {
		if k := fedFor(fed, time.Minute); k != 60 {
			t.Errorf("fed %d times in a minute, want 60", k)
		}
		if log.Len() > 0 {
			t.Errorf("it logs %s", log)
		}
	})
}

// A part that rests is pinged at every fourth look, and at each while it is not well.
func TestAPartRestsAfterAGoodAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int32
		var broken atomic.Bool
		part := &check{name: "the part", rest: 3, ping: func(context.Context) error {
			pings.Add(1)
			if broken.Load() {
				return errors.New("broken")
			}
			return nil
		}}
		w := startWatchdog(4*time.Second, []*check{part}, func() {}, slog.New(slog.DiscardHandler))
		defer w.stop()
		time.Sleep(100 * time.Millisecond)
		count := func(d time.Duration) int32 {
			before := pings.Load()
			time.Sleep(d)
			synctest.Wait()
			return pings.Load() - before
		}
		if n := count(time.Minute); n != 15 {
			t.Errorf("%d pings in 60 looks", n)
		}
		broken.Store(true)
		time.Sleep(5 * time.Second)
		if w.stuck() == nil {
			t.Error("it is not seen that the part is broken")
		}
		if n := count(time.Minute); n != 60 {
			t.Errorf("%d pings in 60 looks of a broken part", n)
		}
		broken.Store(false)
		time.Sleep(2 * time.Second)
		if err := w.stuck(); err != nil {
			t.Errorf("well again: %v", err)
		}
		if n := count(time.Minute); n != 15 {
			t.Errorf("%d pings in 60 looks afterwards", n)
		}
	})
}

func TestAStuckPartStopsTheFeedingUntilItAnswers(t *testing.T) {
	p := &part{}
	watch(t, p, func(w *watchdog, fed *atomic.Int32, log *bytes.Buffer) {
		p.set(make(chan struct{}), false)
		if k := fedFor(fed, 4*time.Second); k > 3 {
			t.Errorf("fed %d times in the first interval", k)
		}
		if k := fedFor(fed, time.Hour); k != 0 {
			t.Errorf("fed %d times while a part is stuck", k)
		}
		if w.stuck() == nil || !strings.Contains(w.waiting(), "the part does not answer") {
			t.Errorf("it says %v, %q", w.stuck(), w.waiting())
		}
		if k := strings.Count(log.String(), "does not answer"); k != 1 {
			t.Errorf("it logs %d times", k)
		}
		close(p.stuck)
		if k := fedFor(fed, time.Minute); k < 58 {
			t.Errorf("fed %d times in the minute after", k)
		}
		if w.stuck() != nil || w.waiting() != "" || !strings.Contains(log.String(), "answers again") {
			t.Errorf("it says %v, %q; %s", w.stuck(), w.waiting(), log)
		}
	})
}

func TestAPartThatWaitsForSomethingOutsideIsNotStuck(t *testing.T) {
	p := &part{}
	watch(t, p, func(w *watchdog, fed *atomic.Int32, log *bytes.Buffer) {
		p.set(make(chan struct{}), true)
		if k := fedFor(fed, time.Hour); k != 3600 {
			t.Errorf("fed %d times in an hour, want 3600", k)
		}
		if w.stuck() != nil || w.waiting() != "waiting for the weather" {
			t.Errorf("it says %v, %q", w.stuck(), w.waiting())
		}
		if k := strings.Count(log.String(), "held up"); k != 1 {
			t.Errorf("it logs %d times", k)
		}
		p.set(p.stuck, false) // and still no answer
		if k := fedFor(fed, 4*time.Second); k == 0 || k == 4 {
			t.Errorf("fed %d times in the first interval after the waiting", k)
		}
		if k := fedFor(fed, time.Minute); k != 0 {
			t.Errorf("fed %d times after that", k)
		}
		close(p.stuck)
		fedFor(fed, 4*time.Second)
		if w.stuck() != nil {
			t.Errorf("in the end it says %v", w.stuck())
		}
	})
}

func TestABrokenPartIsStuck(t *testing.T) {
	p := &part{broken: errors.New("in pieces")}
	watch(t, p, func(w *watchdog, fed *atomic.Int32, log *bytes.Buffer) {
		fedFor(fed, 2*time.Second)
		if k := fedFor(fed, time.Minute); k != 0 {
			t.Errorf("fed %d times", k)
		}
		if err := w.stuck(); err == nil || !strings.Contains(err.Error(), "in pieces") {
			t.Errorf("it says %v", err)
		}
	})
}

func TestStopDoesNotWaitForAStuckPartForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := startWatchdog(time.Second, []*check{{name: "the part", ping: func(context.Context) error { <-release; return nil }}}, func() {}, slog.New(slog.DiscardHandler))
		time.Sleep(time.Minute)
		begin := time.Now()
		w.stop()
		if took := time.Since(begin); took != watchdogStop {
			t.Errorf("it took %v", took)
		}
		close(release)
	})
}
