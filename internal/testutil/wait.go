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
// last objection when the time is over.
func EventuallyWithin(t testing.TB, patience time.Duration, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, err)
		}
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
