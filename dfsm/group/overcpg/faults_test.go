package overcpg_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/dfsm/group"
)

// TestCorosyncsFaultsAreOutlived has all hosts write while one's corosync is
// killed and started again, and another host is cut off and comes back. The
// daemon of host 1 starts before its corosync does.
func TestCorosyncsFaultsAreOutlived(t *testing.T) {
	if lab.Inside() {
		host, err := strconv.Atoi(os.Getenv("HOST_NUMBER"))
		if err != nil {
			t.Fatal(err)
		}
		underFaults(t, host)
		return
	}
	l := lab.New(t, hosts)
	if err := l.Host(1).StopCorosync(); err != nil {
		t.Fatal(err)
	}
	agents := make([]*agent, hosts)
	for i := range agents {
		agents[i] = startAgent(t, l.Host(i+1), "TestCorosyncsFaultsAreOutlived")
	}
	agents[0].want(t, "cannot connect")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Host(1).StartCorosync())
	for _, a := range agents {
		a.want(t, "WRITING")
	}
	must(l.Host(2).KillCorosync())
	agents[1].want(t, "lost the connection")
	agents[0].want(t, "all data is up to date")
	must(l.Host(2).StartCorosync())
	agents[1].want(t, "all data is up to date")
	must(l.Split([]int{1, 2}, []int{3}))
	agents[0].want(t, "all data is up to date")
	must(l.Heal())
	agents[2].want(t, "all data is up to date")

	for _, a := range agents {
		a.say(t, "stop")
	}
	var results []string
	for _, a := range agents {
		results = append(results, a.want(t, "RESULT "))
	}
	for i, r := range results {
		if r != results[0] {
			t.Errorf("host %d ends with %q, host 1 with %q", i+1, r, results[0])
		}
	}
	for i, a := range agents {
		if err := a.p.Wait(); err != nil {
			t.Errorf("host %d: %v", i+1, err)
		}
	}
}

// agent is this program on a host, told what to do through its standard input.
type agent struct {
	p     *lab.Process
	in    *os.File
	lines chan string
}

func startAgent(t *testing.T, h *lab.Host, test string) *agent {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	p, out := h.StartSelf(t, []string{"-test.run=^" + test + "$", "-test.v", "-test.timeout=2m"}, []string{fmt.Sprint("HOST_NUMBER=", h.ID())}, r)
	r.Close()
	a := &agent{p: p, in: w, lines: make(chan string, 1<<16)}
	go func() {
		defer close(a.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			a.lines <- sc.Text()
		}
	}()
	return a
}

func (a *agent) say(t *testing.T, text string) {
	t.Helper()
	if _, err := a.in.WriteString(text + "\n"); err != nil {
		t.Fatal(err)
	}
}

// want reads the agent's lines up to one with a text in it, which it returns.
func (a *agent) want(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-a.lines:
			if !ok {
				t.Fatalf("no %q, but the end, in\n%s", text, strings.Join(seen, "\n"))
			}
			if strings.Contains(line, text) {
				return line
			}
			seen = append(seen, line)
		case <-timeout:
			t.Fatalf("no %q in\n%s", text, strings.Join(seen, "\n"))
		}
	}
}

func underFaults(t *testing.T, host int) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		bufio.NewScanner(os.Stdin).Scan()
	}()
	d := start(t)
	d.synced(t, hosts)
	fmt.Println("WRITING")
	var acked atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-told:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				begin := time.Now()
				err := d.write(ctx, (host-1)*writers+w, size, n)
				cancel()
				if took := time.Since(begin); took > 11*time.Second {
					t.Errorf("a write took %v: %v", took, err)
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // as a user would wait before trying again
					continue
				}
				acked.Add(1)
			}
		})
	}
	wg.Wait()
	if acked.Load() == 0 {
		t.Error("no write succeeded")
	}
	d.synced(t, hosts)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.write(ctx, writers*hosts+host-1, size, host); err != nil {
		t.Fatal(err)
	}
	d.until(t, "through", func(group.Status) bool { return d.app.done.Load() == hosts })
	d.stop()
	fmt.Printf("RESULT %d changes, %x\n", len(d.app.Disk.History), sha256.Sum256(d.app.Disk.State()))
}
