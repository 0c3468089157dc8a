package plan

import (
	"errors"
	"fmt"
	"testing"
)

func TestAllProblemsAreToldAtOnceAndForceHelpsAgainstItsKind(t *testing.T) {
	var r Report
	r.Refuse("guests", "move them away", "there are guests")
	r.Refuse("node-exists", "", "the name is taken")
	r.Stop("unreachable", "", "no way there")
	r.Warn("clock", "", "clocks differ")
	err := r.Err()
	if got, want := err.Error(), "there are guests (move them away)\nthe name is taken\nno way there"; got != want || CodeOf(err) != Refused {
		t.Fatalf("%q with status %d, want %q", got, CodeOf(err), want)
	}
	r.Force("guests", "unreachable")
	if got, want := r.Err().Error(), "the name is taken\nno way there"; got != want {
		t.Fatalf("with force for guests: %q, want %q", got, want)
	}
	r.Force("all")
	if got, want := fmt.Sprint(Kinds(r.Err())), "[unreachable]"; got != want {
		t.Fatalf("with force for all: %s, want %s", got, want)
	}
}

func TestStatusOfErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, Done}, {errors.New("x"), Failed}, {Errorf(Timeout, "x"), Timeout},
		{fmt.Errorf("more: %w", Fail(NotQuorate, "no-quorum", "", "x")), NotQuorate},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
	var r Report
	if r.Err() != nil {
		t.Error("a report without problems is an error")
	}
}
