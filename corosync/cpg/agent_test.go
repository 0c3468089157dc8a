package cpg_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cpg"
	"pmxcfs/corosync/internal/conntest"
)

// Tests of several hosts run an agent on each: this program again, which takes
// commands on standard input and tells what happens on standard output.
//
//	open             -> opened NODE/PID        join, leave, close
//	send PREFIX N    sends "PREFIX.0" to "PREFIX.N-1"
//	                 <- msg NODE/PID TEXT
//	                 <- conf members=… left=…:REASON joined=…:REASON
//	                 <- lost, closed, error TEXT

const agentEnv = "CPG_TEST_AGENT"

const testGroup = "pve_dcdb_v1"

func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" {
		runAgent()
		return
	}
	os.Exit(m.Run())
}

func runAgent() {
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	var conn *cpg.Conn
	var pump sync.WaitGroup
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		var err error
		switch f[0] {
		case "open":
			if conn, err = cpg.Open(); err != nil {
				break
			}
			var id corosync.NodeID
			if id, err = conn.LocalNodeID(); err == nil {
				say("opened %v", corosync.Member{Node: id, PID: uint32(os.Getpid())})
			}
			c := conn
			pump.Go(func() { tellEvents(c, say) })
		case "join":
			err = conntest.Retry(func() error { return conn.Join(testGroup) })
		case "leave":
			err = conntest.Retry(func() error { return conn.Leave(testGroup) })
		case "send":
			n, _ := strconv.Atoi(f[2])
			for i := 0; i < n && err == nil; i++ {
				text := f[1] + "." + strconv.Itoa(i)
				err = conntest.Retry(func() error { return conn.Mcast([]byte(text)) })
			}
		case "close":
			err = conn.Close()
			pump.Wait()
			say("closed")
		}
		if err != nil {
			say("error %s: %v", f[0], err)
		}
	}
}

func tellEvents(c *cpg.Conn, say func(string, ...any)) {
	var events []cpg.Event
	for {
		var err error
		events, err = c.Next(events[:0], cpg.Forever)
		for _, e := range events {
			if e.Change != nil {
				say("%s", changeText(e.Change))
			} else {
				say("msg %v %s", e.Sender, e.Data)
			}
		}
		if errors.Is(err, corosync.ErrConnectionLost) {
			say("lost")
		}
		if err != nil {
			return
		}
	}
}

func changeText(c *cpg.ConfigChange) string {
	list := func(as []cpg.Address) string {
		var s []string
		for _, a := range as {
			s = append(s, a.Member.String()+":"+strings.ReplaceAll(a.Reason.String(), " ", "-"))
		}
		slices.Sort(s)
		return strings.Join(s, ",")
	}
	return fmt.Sprintf("conf members=%s left=%s joined=%s", memberText(c.Members), list(c.Left), list(c.Joined))
}

func memberText(list []corosync.Member) string {
	list = slices.SortedFunc(slices.Values(list), corosync.Member.Compare)
	var s []string
	for _, m := range list {
		s = append(s, m.String())
	}
	return strings.Join(s, ",")
}

// agent is the far end of an agent: a test's hand on a host.
type agent struct {
	t    testing.TB
	proc *lab.Process
	cmd  *os.File
	me   string // its name as a member, "1/23"

	mu    sync.Mutex
	news  *sync.Cond
	lines []string // all it has told
	ended bool
}

const agentPatience = 30 * time.Second

func startAgent(t testing.TB, h *lab.Host) *agent {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	proc, out := h.StartSelf(t, nil, []string{agentEnv + "=1"}, r)
	r.Close()
	a := &agent{t: t, proc: proc, cmd: w}
	a.news = sync.NewCond(&a.mu)
	go func() {
		in := bufio.NewScanner(out)
		for in.Scan() {
			a.tell(in.Text(), false)
		}
		a.tell("", true)
	}()
	a.do("open")
	a.me = strings.TrimPrefix(a.wait(0, "opened "), "opened ")
	return a
}

func (a *agent) tell(line string, ended bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended = ended; !ended {
		a.lines = append(a.lines, line)
	}
	a.news.Broadcast()
}

func (a *agent) do(format string, args ...any) {
	a.t.Helper()
	if _, err := fmt.Fprintf(a.cmd, format+"\n", args...); err != nil {
		a.t.Fatal(err)
	}
}

// mark is a place in what the agent has told, to wait for what comes later.
func (a *agent) mark() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.lines)
}

// wait gives the first line after mark that begins so.
func (a *agent) wait(mark int, prefix string) string {
	a.t.Helper()
	var found string
	a.until(prefix, func(lines []string) bool {
		for _, line := range lines[mark:] {
			if strings.HasPrefix(line, prefix) {
				found = line
				return true
			}
		}
		return false
	})
	return found
}

// until waits until done says yes to what the agent has told.
func (a *agent) until(what string, done func(lines []string) bool) {
	a.t.Helper()
	late := false
	timer := time.AfterFunc(agentPatience, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		late = true
		a.news.Broadcast()
	})
	defer timer.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for !done(a.lines) {
		if a.ended || late {
			a.t.Fatalf("agent %s never told %q (ended: %v); last: %q", a.me, what, a.ended, a.lines[max(0, len(a.lines)-10):])
		}
		a.news.Wait()
	}
}

// messages gives the "msg" lines told so far.
func (a *agent) messages() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var m []string
	for _, line := range a.lines {
		if strings.HasPrefix(line, "msg ") {
			m = append(m, line)
		}
	}
	return m
}
