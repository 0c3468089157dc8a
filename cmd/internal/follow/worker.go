package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pmxcfs/corosync"
)

const (
	// ReconnectAfter is the time between two attempts to reach a corosync that
	// isn't there.
	ReconnectAfter = 2 * time.Second
	// Patience is how long after the start nobody is told that corosync isn't there:
	// it is started after this daemon.
	Patience = 30 * time.Second
	// busyAfter is that time while corosync says that it isn't ready.
	busyAfter = 200 * time.Millisecond
	// stuckAfter is how long stopping waits for a call of one of corosync's
	// libraries: these wait for a corosync that is stopped, not gone, without
	// limit. Leaving a group in order takes up to 2 s.
	stuckAfter = 4 * time.Second
)

// errStuck means that a goroutine is still in a call of one of corosync's
// libraries. It is left there: the process is about to end.
var errStuck = errors.New("corosync does not answer")

// Worker is a goroutine that talks to corosync.
type Worker struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// Start runs a function until its context is done.
func Start(name string, run func(ctx context.Context)) *Worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Worker{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		run(ctx)
	}()
	return w
}

// Close ends workers, all at the same time; errStuck for each that takes
// longer than stuckAfter.
func Close(workers ...*Worker) error {
	for _, w := range workers {
		w.cancel()
	}
	limit := time.NewTimer(stuckAfter)
	defer limit.Stop()
	over := false
	var errs []error
	for _, w := range workers {
		if !over {
			select {
			case <-w.done:
				continue
			case <-limit.C:
				over = true
			}
		}
		select {
		case <-w.done:
		default:
			errs = append(errs, fmt.Errorf("%s: %w", w.name, errStuck))
		}
	}
	return errors.Join(errs...)
}

// retryDelay is how long to wait after a connection has failed or was lost.
func retryDelay(err error) time.Duration {
	if errors.Is(err, corosync.ErrTryAgain) {
		return busyAfter
	}
	return ReconnectAfter
}

// pause waits, or returns false when ctx is done first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
