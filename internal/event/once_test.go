package event

import (
	"errors"
	"testing"
)

func TestTroubleIsNewUntilItIsOver(t *testing.T) {
	var o Once
	for i, step := range []struct {
		err  error
		over bool
		want bool
	}{
		{err: nil},
		{err: errors.New("a"), want: true},
		{err: errors.New("a")},
		{err: nil},
		{err: errors.New("a")},
		{err: errors.New("b"), want: true},
		{err: errors.New("a"), want: true},
		{err: errors.New("a"), over: true, want: true},
	} {
		if step.over {
			o.Over()
		}
		if got := o.New(step.err); got != step.want {
			t.Errorf("step %d: %v is new: %v", i, step.err, got)
		}
	}
}
