package quorumtool

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
)

// TestTextIsCorosyncs compares with Corosync's own program, on a host of a real cluster.
func TestTextIsCorosyncs(t *testing.T) {
	if !lab.Inside() {
		lab.New(t, 3).Host(2).RunSelf(t)
		return
	}
	compare := func(what string) {
		t.Helper()
		s, err := Read()
		if err != nil {
			t.Fatal(err)
		}
		for flags, write := range map[string]func(*bytes.Buffer){
			"-siH": func(b *bytes.Buffer) { s.WriteStatus(b) },
			"-l":   func(b *bytes.Buffer) { s.WriteNodes(b) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			want, _ := exec.CommandContext(ctx, "corosync-quorumtool", flags).Output() // its status is not 0 without quorum
			var got bytes.Buffer
			write(&got)
			if g, w := dateLine.ReplaceAllString(got.String(), ""), dateLine.ReplaceAllString(string(want), ""); g != w || len(want) == 0 {
				t.Errorf("%s: %s:\n%s\nwant\n%s", what, flags, g, w)
			}
		}
	}
	compare("three nodes")
	s, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Causes(); len(c) > 0 {
		t.Errorf("a healthy cluster has causes for trouble: %q", c)
	}
	if n := s.Configured(); n != 3 {
		t.Errorf("%d votes are configured, want 3", n)
	}
	if links := s.Members[0].Links; len(links) != 1 || !links[0].Connected {
		t.Errorf("links to node1: %+v", links)
	}
	var taken []int
	for votes := 1; votes <= 8; votes++ {
		switch err := SetExpected(votes); {
		case err == nil:
			taken = append(taken, votes)
		case !strings.Contains(err.Error(), "with 3 present it takes 3 to 5"):
			t.Errorf("%d: %v", votes, err)
		}
	}
	if !slices.Equal(taken, []int{3, 4, 5}) {
		t.Errorf("corosync takes %v", taken)
	}
	compare("five votes expected")
}

func TestWithoutCorosyncItSaysWhatToDo(t *testing.T) {
	if !lab.Inside() {
		lab.NewWith(t, lab.Options{Hosts: 1, NoCorosync: true}).Host(1).RunSelf(t)
		return
	}
	for what, err := range map[string]error{"read": func() error { _, err := Read(); return err }(), "expected": SetExpected(1)} {
		if err == nil || !strings.Contains(err.Error(), ErrNoCorosync.Error()) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
