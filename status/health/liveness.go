package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Check asks one of the daemon's loops for a sign of life. Run returns nil as soon as
// it has one; it must return when ctx is done, with an error.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

const (
	// CheckTimeout is how long a loop may take to give a sign of life.
	CheckTimeout = 5 * time.Second
	// checkInterval is how long an answer is good: whoever asks more often, however
	// often, costs nothing.
	checkInterval = time.Second
)

// Liveness answers whether the daemon's loops turn. Its methods may be called from any
// goroutine.
type Liveness struct {
	mu     sync.Mutex // guards all below
	checks []Check
	asked  *round // the last one; nil means none yet
}

// round is one asking of all checks.
type round struct {
	done chan struct{} // closed once the rest is final
	at   time.Time
	err  error
}

// Add adds a check.
func (l *Liveness) Add(c Check) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checks = append(l.checks, c)
}

// Alive returns nil if every check had a sign of life within CheckTimeout, or what is
// stuck. Callers at the same time, and within a second, share one asking. If ctx is done
// before there is an answer, that is an error, too.
func (l *Liveness) Alive(ctx context.Context) error {
	r := l.ask()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask returns a round that is under way or not older than checkInterval.
func (l *Liveness) ask() *round {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.asked; r != nil {
		select {
		case <-r.done:
			if time.Since(r.at) < checkInterval {
				return r
			}
		default:
			return r
		}
	}
	r := &round{done: make(chan struct{})}
	l.asked = r
	checks := slices.Clone(l.checks)
	go func() { // ends after CheckTimeout, as checks do
		r.err = runAll(checks)
		r.at = time.Now()
		close(r.done)
	}()
	return r
}

// runAll runs the checks side by side.
func runAll(checks []Check) error {
	ctx, cancel := context.WithTimeout(context.Background(), CheckTimeout)
	defer cancel()
	errs := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", c.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
