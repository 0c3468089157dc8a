package cpg_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
)

// joinAll starts an agent on each host and has all of them see all.
func joinAll(t *testing.T, l *lab.Lab) []*agent {
	t.Helper()
	var agents []*agent
	for _, h := range l.Hosts() {
		agents = append(agents, startAgent(t, h))
		agents[len(agents)-1].do("join")
	}
	for _, a := range agents {
		a.wait(0, "conf members="+names(agents...)+" ")
	}
	return agents
}

func names(agents ...*agent) string {
	var s []string
	for _, a := range agents {
		s = append(s, a.me)
	}
	return strings.Join(s, ",")
}

func TestAllMembersSeeOneOrder(t *testing.T) {
	l := lab.New(t, 3)
	agents := joinAll(t, l)
	const each = 500
	for i, a := range agents {
		a.do("send from%d %d", i, each)
	}
	for _, a := range agents {
		a.until("all messages", func(lines []string) bool {
			n := 0
			for _, line := range lines {
				if strings.HasPrefix(line, "msg ") {
					n++
				}
			}
			return n >= each*len(agents)
		})
	}
	want := agents[0].messages()
	for i, a := range agents {
		if !slices.Equal(a.messages(), want) {
			t.Errorf("%s and %s saw different orders", a.me, agents[0].me)
		}
		next := 0 // each sender's own order, its own messages included
		for _, m := range want {
			if strings.HasPrefix(m, "msg "+a.me+" ") {
				if m != fmt.Sprintf("msg %s from%d.%d", a.me, i, next) {
					t.Fatalf("%q where message %d of %s is due", m, next, a.me)
				}
				next++
			}
		}
		if next != each {
			t.Errorf("%d messages of %s, want %d", next, a.me, each)
		}
	}
}

func TestMembershipFollowsJoinsLeavesDeathsAndPartitions(t *testing.T) {
	l := lab.New(t, 3)
	agents := joinAll(t, l)
	a, b, c := agents[0], agents[1], agents[2]

	mark := a.mark()
	c.do("leave")
	a.wait(mark, fmt.Sprintf("conf members=%s left=%s:leave joined=", names(a, b), c.me))
	c.wait(0, fmt.Sprintf("conf members=%s left=%s:leave joined=", names(a, b), c.me))

	mark = a.mark()
	c.do("close")
	c.do("open")
	c.do("join")
	a.wait(mark, fmt.Sprintf("conf members=%s left= joined=%s:join", names(a, b, c), c.me))

	// A process dies.
	mark = a.mark()
	if err := c.proc.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.wait(mark, fmt.Sprintf("conf members=%s left=%s:process-down joined=", names(a, b), c.me))

	// A corosync dies: its node is gone for the others, the connection for its client.
	mark = a.mark()
	if err := l.Host(2).KillCorosync(); err != nil {
		t.Fatal(err)
	}
	b.wait(0, "lost")
	a.wait(mark, fmt.Sprintf("conf members=%s left=%s:node-down joined=", a.me, b.me))
	b.do("close")
	b.wait(0, "closed")

	// Back: the same process connects anew.
	if err := l.Host(2).StartCorosync(); err != nil {
		t.Fatal(err)
	}
	reopen(t, b)
	mark = a.mark()
	b.do("join")
	a.wait(mark, fmt.Sprintf("conf members=%s left= joined=%s", names(a, b), b.me))

	// The network is cut and heals.
	markA, markB := a.mark(), b.mark()
	if err := l.Cut(2); err != nil {
		t.Fatal(err)
	}
	a.wait(markA, fmt.Sprintf("conf members=%s left=%s:node-down joined=", a.me, b.me))
	b.wait(markB, fmt.Sprintf("conf members=%s left=%s:node-down joined=", b.me, a.me))
	markA, markB = a.mark(), b.mark()
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	a.wait(markA, fmt.Sprintf("conf members=%s left= joined=%s:node-up", names(a, b), b.me))
	b.wait(markB, fmt.Sprintf("conf members=%s left= joined=%s:node-up", names(a, b), a.me))

	// A corosync stops in order.
	markA, markB = a.mark(), b.mark()
	if err := l.Host(2).StopCorosync(); err != nil {
		t.Fatal(err)
	}
	b.wait(markB, "lost")
	a.wait(markA, fmt.Sprintf("conf members=%s left=%s:", a.me, b.me))
}

// reopen has the agent connect until corosync is there.
func reopen(t *testing.T, a *agent) {
	t.Helper()
	for deadline := time.Now().Add(agentPatience); ; {
		mark := a.mark()
		a.do("open")
		var answer string
		a.until("an answer to open", func(lines []string) bool {
			for _, line := range lines[mark:] {
				if strings.HasPrefix(line, "opened ") || strings.HasPrefix(line, "error open") {
					answer = line
					return true
				}
			}
			return false
		})
		if strings.HasPrefix(answer, "opened ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(answer)
		}
	}
}
