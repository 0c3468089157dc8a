package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/internal/event"
)

// watchdog finds out, again and again, whether the parts of the daemon that never
// may stand still do their work, and tells the service manager if all do. What
// waits for something outside the daemon (a disk, corosync) is not standing still:
// a new daemon would wait for the same. docs/systemd.md says what is covered.
type watchdog struct {
	checks []*check
	feed   func() // tells the manager; not to block for long
	log    *slog.Logger

	cancel  context.CancelFunc
	done    chan struct{}
	pending sync.WaitGroup

	mu   sync.Mutex // guards note, and the checks' state; held while it is logged
	note string

	standstill atomic.Pointer[error] // of the last look; nil means nothing stands still
}

// check is one part that is watched.
type check struct {
	name string // "the mount"
	// ping returns when the part has done something; it may wait for ever, and then
	// ends with ctx at the latest. An error means that the part is broken.
	ping func(ctx context.Context) error
	// waits says for what outside the daemon the part has been waiting at least so
	// long; "": nothing.
	waits func(least time.Duration) string

	// rest is how many looks after a good answer it is not pinged at.
	rest int

	resting int  // looks that are left of that
	pending bool // a ping is on its way
	missed  int  // ticks that it has been
	err     error
	state   checkState
	reason  string
}

type checkState uint8

const (
	checkWell  checkState = iota
	checkWaits            // for something outside
	checkStuck
)

const (
	// watchdogDefault is how often, when no service manager asks, every part is
	// looked at four times.
	watchdogDefault = 30 * time.Second
	// watchdogMissed is after how many ticks without an answer a part counts as
	// stuck: a quarter of the manager's time each, so that a part that has been
	// stuck for less than a quarter does no harm, and one that remains so keeps
	// the manager waiting for a last message half its time ago.
	watchdogMissed = 2
	// partRest has a part that answers asked at every other look: half of what an idle daemon
	// does is to answer its own questions.
	partRest = 1
	// mountRest has the mount probed once in the manager's time: each probe takes the kernel,
	// the guard and the runtime some sixty switches, most of what an idle daemon does.
	mountRest = 3
	// watchdogStop is how long the end waits for pings.
	watchdogStop = time.Second
)

// startWatchdog begins to watch; interval is the manager's, 0 if there is none.
func startWatchdog(interval time.Duration, checks []*check, feed func(), log *slog.Logger) *watchdog {
	if interval == 0 {
		interval, feed = watchdogDefault, func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchdog{checks: checks, feed: feed, log: log, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(interval / 4)
		defer tick.Stop()
		for w.look(ctx, interval/4); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.look(ctx, interval/4)
			}
		}
	}()
	return w
}

// stop ends the watching. A part that is stuck keeps its goroutine until the
// process ends.
func (w *watchdog) stop() {
	w.cancel()
	<-w.done
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.pending.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(watchdogStop):
	}
}

// waiting says what the daemon waits for; "": nothing.
func (w *watchdog) waiting() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.note
}

// stuck is an error that names what stands still; nil means nothing does. It waits for
// nothing.
func (w *watchdog) stuck() error {
	if err := w.standstill.Load(); err != nil {
		return *err
	}
	return nil
}

// look judges every part by the pings so far, feeds the manager's watchdog if none
// is stuck, and pings again.
func (w *watchdog) look(ctx context.Context, tick time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	w.note = ""
	for _, c := range w.checks {
		w.judge(c, tick)
		switch c.state {
		case checkStuck:
			errs = append(errs, fmt.Errorf("%s does not answer: %s", c.name, c.reason))
			w.note = c.name + " does not answer"
		case checkWaits:
			if w.note == "" && c.reason != "" {
				w.note = "waiting for " + c.reason
			}
		}
		if c.pending {
			continue
		}
		if c.resting > 0 {
			c.resting--
			continue
		}
		c.pending = true
		w.pending.Go(func() {
			err := c.ping(ctx)
			w.mu.Lock()
			defer w.mu.Unlock()
			c.pending, c.missed, c.err = false, 0, err
			if err == nil && c.state == checkWell {
				c.resting = c.rest
			}
		})
	}
	if len(errs) > 0 {
		err := errors.Join(errs...)
		w.standstill.Store(&err)
		return
	}
	w.standstill.Store(nil)
	w.feed()
}

// judge decides about a part, and logs what is new.
func (w *watchdog) judge(c *check, tick time.Duration) {
	state, reason := checkWell, ""
	if c.pending {
		c.missed++
	}
	switch {
	case c.err != nil && !errors.Is(c.err, context.Canceled):
		state, reason = checkStuck, c.err.Error()
	case !c.pending:
	case c.missed < watchdogMissed:
		state = c.state
	case c.waits != nil && c.waits(tick) != "":
		state, reason = checkWaits, c.waits(tick)
	case c.state == checkWaits:
		c.missed = 0 // the time counts from here
	default:
		state, reason = checkStuck, fmt.Sprintf("nothing for %v", (time.Duration(c.missed)*tick).Round(time.Millisecond))
	}
	was := c.state
	c.state, c.reason = state, reason
	if state == was {
		return
	}
	switch {
	case state == checkStuck:
		w.log.Log(context.Background(), event.LevelCritical, c.name+" does not answer; the service manager's watchdog is not fed", "reason", reason, event.Stuck.Attr("part", c.name))
	case state == checkWaits:
		w.log.Warn(c.name+" is held up by "+reason, event.HeldUp.Attr("part", c.name, "reason", reason))
	case was == checkStuck:
		w.log.Log(context.Background(), event.LevelNotice, c.name+" answers again", event.Unstuck.Attr("part", c.name))
	default:
		w.log.Info(c.name+" is not held up any more", event.Unstuck.Attr("part", c.name))
	}
}
