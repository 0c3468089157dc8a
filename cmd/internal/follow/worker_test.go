package follow

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/internal/testutil"
)

// logText is a log that can be read while it is written.
type logText struct{ testutil.Log }

func (l *logText) count(text string) int { return strings.Count(l.String(), text) }

func newLogText() (*logText, *slog.Logger) {
	l := &logText{}
	return l, slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// fakeConn stands for a connection to one of corosync's services.
type fakeConn[E any] struct {
	batches chan []E
	lost    chan struct{}
	wake    chan struct{}
	closed  chan struct{}
	fails   error // of the first call
}

func newFakeConn[E any]() *fakeConn[E] {
	return &fakeConn[E]{batches: make(chan []E, 100), lost: make(chan struct{}), wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (c *fakeConn[E]) Next(into []E, timeout time.Duration) ([]E, error) {
	if timeout < 0 {
		timeout = 1000 * time.Hour
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.lost:
		return into, corosync.ErrConnectionLost
	case b := <-c.batches:
		return append(into, b...), nil
	case <-c.wake:
		return into, nil
	case <-timer.C:
		return into, nil
	}
}

func (c *fakeConn[E]) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *fakeConn[E]) Close() error { close(c.closed); return nil }

func (c *fakeConn[E]) wantClosed(t *testing.T) {
	t.Helper()
	select {
	case <-c.closed:
	default:
		t.Error("the connection is left open")
	}
}

// list is what a worker has handed over.
type list[T any] struct {
	mu sync.Mutex
	l  []T
}

func (l *list[T]) add(x T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.l = append(l.l, x)
}

func (l *list[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.l)
}

func (l *list[T]) last() (last T) {
	if all := l.all(); len(all) > 0 {
		last = all[len(all)-1]
	}
	return last
}

// dialer makes a watch's connections; a test may change how.
type dialer[C any] struct {
	mu    sync.Mutex
	make  func() (C, error)
	tries int
}

func (d *dialer[C]) dial() (C, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries++
	return d.make()
}

// set changes how connections are made, and returns how often one was wanted.
func (d *dialer[C]) set(make func() (C, error)) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.make = make
	return d.tries
}

// fail has no connection made any more.
func (d *dialer[C]) fail(err error) int {
	return d.set(func() (c C, _ error) { return c, err })
}

func TestStuckWorkersDoNotHoldUpStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		wait := func(context.Context) { <-release }
		good := func(ctx context.Context) { <-ctx.Done(); time.Sleep(time.Second) }
		all := []*Worker{Start("one", good), Start("two", wait), Start("three", wait), Start("four", good)}
		start := time.Now()
		err := Close(all...)
		if !errors.Is(err, errStuck) || time.Since(start) != stuckAfter {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		for _, name := range []string{"one", "two", "three", "four"} {
			if got := strings.Contains(err.Error(), name); got != (name[0] == 't') {
				t.Errorf("%s in %q: %v", name, err, got)
			}
		}
		close(release)
		if err := Close(all...); err != nil {
			t.Errorf("once they have ended: %v", err)
		}
	})
}
