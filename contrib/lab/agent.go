package lab

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"
)

// Agent is this program on a host, told what to do through its standard input; it
// tells what it does, a line each, on its outputs.
type Agent struct {
	Process *Process
	in      *os.File
	lines   chan string
	seen    []string
}

// agentLines is how far an agent may be ahead of who reads its lines.
const agentLines = 1 << 16

// StartAgent starts this program again, on the host, to run the test of that name,
// which tells with Inside where it runs. The agent is killed when t ends.
func (h *Host) StartAgent(t testing.TB, test string, env ...string) *Agent {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	p, out := h.StartSelf(t, []string{"-test.run=^" + test + "$", "-test.v", "-test.timeout=" + selfTimeout.String()}, env, r)
	r.Close()
	a := &Agent{Process: p, in: w, lines: make(chan string, agentLines)}
	go func() {
		defer close(a.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			a.lines <- sc.Text()
		}
	}()
	return a
}

// Say sends the agent a line.
func (a *Agent) Say(t testing.TB, text string) {
	t.Helper()
	if _, err := a.in.WriteString(text + "\n"); err != nil {
		t.Fatal(err)
	}
}

// Want reads the agent's lines up to one with a text in it, which it returns.
func (a *Agent) Want(t testing.TB, text string) string {
	t.Helper()
	timeout := time.After(QuorumTimeout)
	for {
		select {
		case line, ok := <-a.lines:
			if !ok {
				t.Fatalf("no %q, but the end, in\n%s", text, strings.Join(a.seen, "\n"))
			}
			a.seen = append(a.seen, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			t.Fatalf("no %q in\n%s", text, strings.Join(a.seen, "\n"))
		}
	}
}

// Rest reads what an agent that ends has still to say.
func (a *Agent) Rest() {
	for line := range a.lines {
		a.seen = append(a.seen, line)
	}
}

// Seen is every line that Want and Rest have read.
func (a *Agent) Seen() []string { return a.seen }
