package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"pmxcfs/internal/event"
)

// A client in a loop can make the same thing go wrong thousands of times a second.
// The log gets the first of the lines that are alike, and then, every now and then, one
// more and how many there were.
const (
	limitWindow = 30 * time.Second
	limitBurst  = 10  // lines of a kind in a window, as long as all of them were logged
	limitKinds  = 256 // that are told apart; what is beyond counts as one
)

// limiter is a handler that passes on so many lines of a kind. Debug messages are not
// limited: who has turned them on wants to see them.
type limiter struct {
	next   slog.Handler
	domain string
	shared *limits
}

// limits is what a limiter and those derived from it have in common.
type limits struct {
	mu     sync.Mutex // guards all below; not held while a line is written
	kinds  map[lineKind]*window
	closed bool
}

// lineKind is what makes lines alike: the event, or the text without its numbers.
type lineKind struct {
	domain string
	level  slog.Level // 0 if what is a state
	what   string
}

// stateOf returns what an event tells the state of. Such events are one kind: what is
// held back and written later is the last one then, so that the log's last word
// about a state that goes to and fro is true. Empty means of nothing.
func stateOf(e event.Event) string {
	switch e {
	case event.QuorumGained, event.QuorumLost, event.CorosyncAway:
		return "quorum"
	case event.LeftGroup, event.OutOfGroup, event.Behind, event.SyncDone:
		return "group"
	case event.DatabaseFailed, event.DiskFull, event.DatabaseRecovered:
		return "database"
	case event.Stuck, event.HeldUp, event.Unstuck:
		return "liveness"
	}
	return ""
}

// window is the present window of a kind.
type window struct {
	until  time.Time
	passed int
	held   int
	burst  int
	last   slog.Record // that was held back
	next   slog.Handler
	timer  *time.Timer // runs out at until, if lines are held back
}

func newLimiter(next slog.Handler) *limiter {
	return &limiter{next: next, shared: &limits{kinds: make(map[lineKind]*window)}}
}

func (l *limiter) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *l
	next.next = l.next.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == domainKey {
			next.domain = a.Value.String()
		}
	}
	return &next
}

func (l *limiter) WithGroup(name string) slog.Handler {
	next := *l
	next.next = l.next.WithGroup(name)
	return &next
}

func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo || l.shared.pass(kindOf(l.domain, &r), &r, l.next) {
		return l.next.Handle(ctx, r)
	}
	return nil
}

// kindOf returns what a line of a domain is about.
func kindOf(domain string, r *slog.Record) lineKind {
	var e event.Event
	r.Attrs(func(a slog.Attr) bool {
		if o, ok := a.Value.Any().(event.Occurrence); ok {
			e = o.Event
		}
		return e == ""
	})
	if state := stateOf(e); state != "" {
		return lineKind{domain: domain, what: "state of " + state}
	}
	if e != "" {
		return lineKind{domain, r.Level, string(e)}
	}
	return lineKind{domain, r.Level, strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, r.Message[:min(len(r.Message), 100)])}
}

// pass reports whether a line is to be written now.
func (s *limits) pass(kind lineKind, r *slog.Record, next slog.Handler) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	w := s.kinds[kind]
	if w == nil {
		if len(s.kinds) >= limitKinds {
			s.sweep(now)
		}
		if len(s.kinds) >= limitKinds {
			kind = lineKind{what: "too many kinds"}
		}
		if w = s.kinds[kind]; w == nil {
			w = &window{}
			s.kinds[kind] = w
		}
	}
	if w.timer == nil && !now.Before(w.until) {
		*w = window{until: now.Add(limitWindow), burst: limitBurst}
	}
	if w.passed < w.burst {
		w.passed++
		return true
	}
	w.held++
	w.last, w.next = r.Clone(), next
	if w.timer == nil {
		w.timer = time.AfterFunc(w.until.Sub(now), func() { s.sum(kind, w) })
	}
	return false
}

// sweep forgets the kinds of which nothing is held back. mu is held.
func (s *limits) sweep(now time.Time) {
	for kind, w := range s.kinds {
		if w.timer == nil && !now.Before(w.until) {
			delete(s.kinds, kind)
		}
	}
}

// sum writes at the end of a window what was held back in it, and begins the next
// one, in which lines are held back at once.
func (s *limits) sum(kind lineKind, w *window) {
	s.mu.Lock()
	if s.closed || w.held == 0 {
		if s.kinds[kind] == w {
			delete(s.kinds, kind)
		}
		w.timer = nil
		s.mu.Unlock()
		return
	}
	line, next := w.summary()
	w.held, w.until = 0, time.Now().Add(limitWindow)
	// Whether or not more comes: then the kind is as good as new.
	w.timer = time.AfterFunc(limitWindow, func() { s.sum(kind, w) })
	s.mu.Unlock()
	_ = next.Handle(context.Background(), line)
}

// summary is the line for what a window has held back: the last one, and how many.
func (w *window) summary() (slog.Record, slog.Handler) {
	r := w.last
	if w.held > 1 {
		line := slog.NewRecord(r.Time, r.Level, fmt.Sprintf("%s (and %d more like this, not logged)", r.Message, w.held-1), r.PC)
		r.Attrs(func(a slog.Attr) bool {
			line.AddAttrs(a)
			return true
		})
		line.AddAttrs(event.Fields("suppressed", w.held-1))
		r = line
	}
	return r, w.next
}

// close writes the lines held back. Nothing is limited afterwards.
func (s *limits) close() {
	s.mu.Lock()
	s.closed = true
	var held []*window
	for _, w := range s.kinds {
		if w.timer != nil {
			w.timer.Stop()
		}
		if w.held > 0 {
			held = append(held, w)
		}
	}
	s.mu.Unlock()
	for _, w := range held {
		line, next := w.summary()
		_ = next.Handle(context.Background(), line)
	}
}
