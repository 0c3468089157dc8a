package cluster

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Log takes in a daemon's log while it is written, keeps its end, and knows what it
// says of the group of the configuration database.
type Log struct {
	mu      sync.Mutex // guards the rest
	tail    []byte
	line    []byte
	members int       // of the last view; 0 means none yet
	view    time.Time // the first one, by the daemon's clock
	synced  bool      // since the last view
	when    time.Time // that was
	changed chan struct{}
}

// tailSize is how much of a log is kept, in bytes.
const tailSize = 8 << 10

func newLog() *Log { return &Log{changed: make(chan struct{})} }

// Write takes in a piece of the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if n := len(l.tail) - tailSize; n > 0 {
		l.tail = bytes.Clone(l.tail[n:])
	}
	l.line = append(l.line, p...)
	for {
		line, rest, whole := bytes.Cut(l.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.read(string(line))
		l.line = bytes.Clone(rest)
	}
}

// read understands a line: TIME [DOMAIN] LEVEL: TEXT. mu is held.
func (l *Log) read(line string) {
	stamp, rest, _ := strings.Cut(line, " ")
	domain, rest, _ := strings.Cut(rest, " ")
	at, err := time.Parse("15:04:05.000", stamp)
	if err != nil || domain != "[dcdb]" {
		return
	}
	_, text, _ := strings.Cut(rest, ": ")
	switch list, ok := strings.CutPrefix(text, "members: "); {
	case ok:
		l.members = strings.Count(list, ",") + 1
		l.synced = l.members == 1 // it then has nobody to catch up with, and doesn't say so
		if l.when = at; l.view.IsZero() {
			l.view = at
		}
	case text == "all data is up to date":
		l.synced, l.when = true, at
	default:
		return
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// WaitSynced waits until the daemon is in a view of that many members and has all
// data. It returns the time that this took from the daemon's first view on, in
// whole milliseconds.
func (l *Log) WaitSynced(ctx context.Context, members int) (time.Duration, error) {
	for {
		l.mu.Lock()
		n, synced, took, changed := l.members, l.synced, l.when.Sub(l.view), l.changed
		l.mu.Unlock()
		if n == members && synced {
			if took < 0 {
				took += 24 * time.Hour // midnight has passed
			}
			return took, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, fmt.Errorf("the last view has %d members, not %d, up to date: %v: %w", n, members, synced, ctx.Err())
		}
	}
}

// String returns the end of the log.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.tail))
}
