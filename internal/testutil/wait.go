package testutil

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// Patience is how long a test waits for what should be there soon: long enough for a
// busy machine.
const Patience = 40 * time.Second

// EventuallyWithin waits until check has nothing to object to, and ends the test with its
// last objection when the time is over. It asks less and less often, up to every 50 ms,
// and leaves the processor for longer than a check took: what is waited for needs it.
func EventuallyWithin(t testing.TB, patience time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(pause*3/2, 50*time.Millisecond) {
		begin := time.Now()
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, err)
		}
		time.Sleep(max(pause, min(2*time.Since(begin), time.Second)))
	}
}

// Eventually is EventuallyWithin for a check whose objections don't say what is waited for.
func Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	EventuallyWithin(t, Patience, func() error {
		if err := check(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

var errNotYet = errors.New("not yet")

// WaitFor is Eventually for a condition that has no more to say than that it does not hold.
func WaitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	Eventually(t, what, func() error {
		if !holds() {
			return errNotYet
		}
		return nil
	})
}
