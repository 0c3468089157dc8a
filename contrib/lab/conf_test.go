package lab

import (
	"strings"
	"testing"
	"time"
)

func TestConfNamesEveryNodeWithItsVotes(t *testing.T) {
	text := Conf{Cluster: "c", Version: 3, Token: 1500 * time.Millisecond, Nodes: []int{1, 7}, Votes: map[int]int{7: 0}}.String()
	for _, want := range []string{
		"cluster_name: c\n", "config_version: 3\n", "token: 1500\n",
		"name: node1\n    nodeid: 1\n    quorum_votes: 1\n    ring0_addr: 10.99.0.1\n",
		"name: node7\n    nodeid: 7\n    quorum_votes: 0\n    ring0_addr: 10.99.0.7\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	fair := Conf{Fair: true}.String()
	if !strings.Contains(fair, "sched_rr: no\n") || strings.Contains(text, "sched_rr") {
		t.Errorf("the priority is not as asked:\n%s", fair)
	}
	if idle := (Conf{Idle: 3}).String(); !strings.Contains(idle, "  seqno_unchanged_const: 3\n") || strings.Contains(text, "seqno") {
		t.Errorf("the token is not held as asked:\n%s", idle)
	}
	text += fair
	if strings.Count(text, "{") != strings.Count(text, "}") {
		t.Errorf("unbalanced:\n%s", text)
	}
}
