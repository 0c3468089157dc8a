package dcdb

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync/votequorum"
	"pmxcfs/internal/testutil"
)

// TestAMinorityRefusesChangesAndCatchesUp cuts one of three hosts off, and later
// takes its corosync away: each time it refuses changes, goes on reading, and has
// what the others wrote when it is back.
func TestAMinorityRefusesChangesAndCatchesUp(t *testing.T) {
	if lab.Inside() {
		commandedNode(t, os.Getenv("DATABASE"))
		return
	}
	dir := t.TempDir()
	l := lab.New(t, labHosts)
	agents := make([]*lab.Agent, labHosts)
	for i := range agents {
		agents[i] = startNode(t, l.Host(i+1), filepath.Join(dir, fmt.Sprint(i, ".db")))
	}
	ask := func(host int, command, answer string) {
		t.Helper()
		agents[host-1].Say(t, command)
		if got := agents[host-1].Want(t, "ANSWER "); got != "ANSWER "+answer {
			t.Fatalf("host %d: %s: %s, want %s", host, command, got, answer)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range agents {
		ask(i+1, "members 3", "ok")
		ask(i+1, "quorate true", "ok")
	}
	ask(1, "mkdir before", "ok")
	ask(3, "wait before", "ok")

	must(l.Split([]int{1, 2}, []int{3}))
	ask(3, "quorate false", "ok")
	ask(3, "mkdir minority", "permission denied")
	ask(3, "wait before", "ok")
	ask(1, "members 2", "ok")
	ask(1, "mkdir majority", "ok")
	must(l.Heal())
	ask(3, "wait majority", "ok")
	ask(3, "quorate true", "ok")
	ask(3, "mkdir merged", "ok")
	ask(1, "wait merged", "ok")

	must(l.Host(2).KillCorosync())
	ask(2, "quorate false", "ok")
	ask(2, "mkdir alone", "permission denied")
	ask(2, "wait merged", "ok")
	ask(3, "members 2", "ok")
	ask(3, "mkdir without", "ok")
	must(l.Host(2).StartCorosync())
	ask(2, "wait without", "ok")
	ask(2, "quorate true", "ok")
	ask(2, "mkdir end", "ok")

	var sums []string
	for i, a := range agents {
		ask(i+1, "wait end", "ok")
		a.Say(t, "sum")
		sums = append(sums, a.Want(t, "ANSWER "))
	}
	for i, a := range agents {
		if sums[i] != sums[0] {
			t.Errorf("host %d ends with %s, host 1 with %s", i+1, sums[i], sums[0])
		}
		a.Say(t, "quit")
		a.Rest()
		if err := a.Process.Wait(); err != nil {
			t.Errorf("host %d: %v\n%s", i+1, err, strings.Join(a.Seen(), "\n"))
		}
	}
}

// commandedNode does what its standard input says.
func commandedNode(t *testing.T, path string) {
	c, stop := openCluster(t, path)
	defer stop()
	c.SetQuorate(false)
	quit := make(chan struct{})
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		followQuorum(c, quit)
	}()
	defer func() { close(quit); <-followed }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, arg, _ := strings.Cut(in.Text(), " ")
		answer := "ok"
		switch command {
		case "quit":
			return
		case "members":
			testutil.WaitFor(t, "of "+arg, func() bool {
				s := c.Status().Group
				return fmt.Sprint(len(s.Members)) == arg && s.Mode.String() == "synced"
			})
		case "quorate":
			testutil.WaitFor(t, "quorate "+arg, func() bool { return fmt.Sprint(c.Quorate()) == arg })
		case "wait":
			testutil.WaitFor(t, "there", func() bool { return has(c.Tree(), arg) })
		case "mkdir":
			op := mkdir(arg)
			var errno syscall.Errno
			if _, err := c.Do(nil, &op); errors.As(err, &errno) {
				answer = errno.Error()
			}
		case "sum":
			answer = fmt.Sprintf("%x", c.Tree().Checksum())
		}
		fmt.Println("ANSWER " + answer)
	}
}

// followQuorum tells the store what corosync says of the quorum. Without corosync
// there is none.
func followQuorum(c *Cluster, quit <-chan struct{}) {
	for {
		if q, err := votequorum.Open(); err == nil {
			err = q.TrackStart()
			for err == nil {
				var events []votequorum.Event
				events, err = q.Next(nil, 50*time.Millisecond)
				for _, e := range events {
					if e.Quorum != nil {
						c.SetQuorate(e.Quorum.Quorate)
					}
				}
				select {
				case <-quit:
					q.Close()
					return
				default:
				}
			}
			q.Close()
		}
		c.SetQuorate(false)
		select {
		case <-quit:
			return
		case <-time.After(100 * time.Millisecond): // before the next try to connect
		}
	}
}
