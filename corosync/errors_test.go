package corosync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestErrorIsItsCode(t *testing.T) {
	err := fmt.Errorf("sending: %w", &Error{Op: "cpg_mcast_joined", Code: ErrTryAgain})
	if !errors.Is(err, ErrTryAgain) || errors.Is(err, ErrLibrary) {
		t.Errorf("%v is not exactly ErrTryAgain", err)
	}
	var e *Error
	if !errors.As(err, &e) || e.Op != "cpg_mcast_joined" {
		t.Errorf("%v carries no *Error", err)
	}
	if got, want := err.Error(), "sending: cpg_mcast_joined: try again"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEveryCodeHasItsOwnText(t *testing.T) {
	seen := map[string]Code{}
	for c := OK; c <= ErrSecurity; c++ {
		text := c.Error()
		if strings.HasPrefix(text, "unknown") {
			if c <= ErrContextNotFound || c == ErrTooManyGroups || c == ErrSecurity {
				t.Errorf("code %d has no text", c)
			}
			continue
		}
		if other, ok := seen[text]; ok {
			t.Errorf("codes %d and %d are both %q", other, c, text)
		}
		seen[text] = c
	}
}

func TestMembersSortByNodeThenPid(t *testing.T) {
	m := []Member{{2, 1}, {1, 9}, {10, 0}, {1, 10}, {2, 1}}
	slices.SortFunc(m, Member.Compare)
	if got, want := fmt.Sprint(m), "[1/9 1/10 2/1 2/1 10/0]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
