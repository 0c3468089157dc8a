package look

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// TestLook goes through the states that a node can be in, on one cluster.
func TestLook(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 3)
	for _, part := range []struct {
		name string
		test func(t *testing.T, c *labtest.Cluster)
	}{
		{"Healthy", testHealthy},
		{"Comparing", testComparing},
		{"Locks", testLocks},
		{"HalfStarted", testHalfStarted},
		{"Partitioned", testPartitioned},
		{"Broken", testBroken},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(t, c.In(t)) }) {
			break // the next ones start from what this one leaves
		}
	}
}

// wantAll has every command look at a node in some state: status, log and locks, which ask the
// daemon, compare and doctor.
func wantAll(n *labtest.Node, state string, status, ask, compare int) {
	n.T.Helper()
	want(n, state+"-status", status, "status")
	want(n, state+"-log", ask, "log", "--node", "node3", "--priority", "info")
	want(n, state+"-locks", ask, "locks")
	want(n, state+"-compare", compare, "compare")
	wantDoctor(n, state+"-doctor")
}

func testHealthy(t *testing.T, c *labtest.Cluster) {
	n := c.Node(1)
	wantAll(n, "healthy", 0, 0, 0)
	o, status := document[diagnosis.Overview](n, "status")
	if status != 0 || o.Verdict != "fine" || o.Status == nil || !o.Status.Ready || len(o.Status.Cluster.Members) != 3 || !o.Corosync.Quorum.Quorate {
		t.Errorf("status %d: %+v", status, o)
	}
	out, status := look(n, "log", "--priority", "info", "--user", "root", "--since", "1h")
	if status != 0 {
		t.Errorf("log: status %d", status)
	}
	only(t, out, "node1 root cluster[", "node2 root cluster[", "node3 root cluster[", "info: starting cluster log")
	if out, status := look(n, "log", "--node", "node2", "--json"); status != 0 || len(out) == 0 || out[0] != '{' {
		t.Errorf("log --json: status %d: %s", status, out)
	}
	for _, args := range [][]string{{"status", "x"}, {"status", "--what"}, {"log", "--since", "yesterday"}, {"log", "-p", "9"}, {"locks", "brake", "x"}, {"compare", "now"}} {
		if out, status := look(n, args...); status != 1 || out == "" {
			t.Errorf("%v: status %d: %s", args, status, out)
		}
	}
}

// testComparing compares again and again while all nodes write.
func testComparing(t *testing.T, c *labtest.Cluster) {
	stop := make(chan struct{})
	done := make(chan error, len(c.Nodes))
	for i, n := range c.Nodes {
		go func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if err := os.WriteFile(n.Path(fmt.Sprintf("load%d-%d", i, k%20)), fmt.Appendf(nil, "%d", k), 0o640); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	var last uint64
	for range 5 {
		r, status := document[inspect.Comparison](c.Node(2), "compare")
		if status != 0 || !r.Equal || !r.Complete || len(r.Differences) > 0 {
			t.Errorf("status %d: %+v", status, r)
		}
		if v := r.Nodes[0].Version; v <= last {
			t.Errorf("version %d after %d: nothing changes meanwhile", v, last)
		} else {
			last = v
		}
	}
	close(stop)
	for range c.Nodes {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i := range c.Nodes {
		for k := range 20 {
			c.Node(1).Remove(fmt.Sprintf("load%d-%d", i, k))
		}
	}
}

func testLocks(t *testing.T, c *labtest.Cluster) {
	n, o := c.Node(1), c.Node(2)
	n.Mkdir("priv/lock/mine")
	o.WantDir("priv/lock/mine")
	want(o, "lock-held", 0, "locks")
	want(o, "lock-warning", 1, "locks", "break", "mine")
	o.WantDir("priv/lock/mine")
	out, status := look(o, "locks", "break", "--yes", "--force", "mine")
	if status != 0 {
		t.Errorf("status %d", status)
	}
	only(t, out, `The lock "mine" is held by node1`, "It has NOT expired", `the lock "mine" is broken`)
	for _, n := range c.Nodes {
		n.WantNone("priv/lock/mine")
	}
	for _, name := range []string{"mine", "..", "../..", ""} {
		if out, status := look(o, "locks", "break", "--yes", name); status != 1 {
			t.Errorf("breaking %q: status %d: %s", name, status, out)
		}
	}
}

// testHalfStarted leaves node3 as it was.
func testHalfStarted(t *testing.T, c *labtest.Cluster) {
	n, o := c.Node(3), c.Node(1)
	n.Stop()
	wantAll(n, "stopped", 3, 1, 1)
	wantAll(o, "other-stopped", 2, 0, 2)
	if out, status := look(n, "locks", "break", "x"); status != 1 || !strings.Contains(out, "pmxcfs: the daemon does not answer on /run/pve-cluster/pmxcfs.sock: ") {
		t.Errorf("breaking a lock without a daemon: status %d: %s", status, out)
	}
	n.Must(n.Host.StopCorosync())
	wantAll(n, "nothing", 3, 1, 1)
	n.Start()
	wantAll(n, "no-corosync", 3, 0, 1)
	n.Must(n.Host.StartCorosync())
	c.WantTogether(c.Nodes...)
	want(o, "healthy-status", 0, "status")
}

func testPartitioned(t *testing.T, c *labtest.Cluster) {
	n, o := c.Node(3), c.Node(1)
	if err := c.Lab.Cut(3); err != nil {
		t.Fatal(err)
	}
	wantAll(n, "cut-off", 3, 0, 1)
	wantAll(o, "majority", 2, 0, 2)
	if r, status := document[inspect.Comparison](o, "compare"); status != 2 || !r.Equal || r.Complete {
		t.Errorf("compare: status %d: %+v", status, r)
	}
	if err := c.Lab.Heal(); err != nil {
		t.Fatal(err)
	}
	c.WantTogether(c.Nodes...)
	wantAll(n, "healed", 0, 0, 0)
	// A corosync that is there, but does not turn.
	p := n.Host.Corosync()
	n.Must(p.Signal(syscall.SIGSTOP))
	o.Eventually("node3 is missed", func() error {
		if _, status := look(o, "status"); status != 2 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	out, status := look(n, "status")
	n.Must(p.Signal(syscall.SIGCONT))
	if status != 3 {
		t.Errorf("with a frozen corosync: status %d", status)
	}
	only(t, out, "corosync does not answer: no answer in time")
	c.WantTogether(c.Nodes...)
}

func testBroken(t *testing.T, c *labtest.Cluster) {
	n := c.Node(3)
	// A daemon that does not turn.
	n.Must(n.Process().Signal(syscall.SIGSTOP))
	out, status := look(n, "status")
	n.Must(n.Process().Signal(syscall.SIGCONT))
	if status != 3 {
		t.Errorf("with a frozen daemon: status %d", status)
	}
	only(t, out, "runs, but does not answer", "/etc/pve, does not answer")
	// One that was killed, and left its mount.
	c.WantTogether(c.Nodes...)
	n.Kill()
	n.Eventually("it has ended", func() error {
		if o, _ := document[diagnosis.Overview](n, "status"); o.Daemon.Running || o.Daemon.Locked {
			return fmt.Errorf("%+v", o.Daemon)
		}
		return nil
	})
	wantAll(n, "killed", 3, 1, 1)
	// A database that is none.
	n.RemoveDatabase()
	wantAll(n, "no-database", 3, 1, 1)
	n.Must(os.WriteFile(n.Database(), []byte("this is not a database, and long enough to be looked at as one"), 0o600))
	n.Launch()
	select {
	case <-n.Process().Done():
	case <-time.After(testutil.Patience):
		t.Fatal("the daemon starts on a broken database")
	}
	wantAll(n, "broken-database", 3, 1, 1)
	n.RemoveDatabase()
	n.Start()
	c.WantTogether(c.Nodes...)
	want(c.Node(1), "healthy-status", 0, "status")
}

// TestExpiredLockIsBrokenByAgreement waits for a lock to expire, beside the other
// tests.
func TestExpiredLockIsBrokenByAgreement(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 2)
	n, o := c.Node(1), c.Node(2)
	n.Mkdir("priv/lock/left")
	o.WantDir("priv/lock/left")
	expired := func(n *labtest.Node) bool {
		d, status := document[inspect.Locks](n, "locks")
		if status != 0 || len(d.Locks) != 1 || d.Locks[0].Name != "left" || d.Locks[0].Holder != "node1" {
			t.Fatalf("status %d: %+v", status, d)
		}
		return d.Locks[0].Expired
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	limit := time.After(memdb.LockTimeout + testutil.Patience)
	for !expired(n) || !expired(o) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it never expires")
		}
	}
	out, status := look(o, "status")
	if status != 0 {
		t.Errorf("status %d", status)
	}
	only(t, out, "locks have not been renewed for long, and have expired: left")
	out, status = look(o, "locks", "break", "left")
	if status != 1 {
		t.Errorf("without --yes: status %d", status)
	}
	only(t, out, "It has expired: it was not renewed")
	o.WantDir("priv/lock/left")
	if out, status = look(o, "locks", "break", "--yes", "left"); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	for _, n := range c.Nodes {
		n.WantNone("priv/lock/left")
	}
}
