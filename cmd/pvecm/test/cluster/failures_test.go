package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/cmd/internal/join"
	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

// stoppedAt begins "pvecm add" and stops it in a phase.
func (o *node) stoppedAt(phase join.Phase, args ...string) (*lab.Process, *bytes.Buffer) {
	o.t.Helper()
	return o.stopped("join.json", string(phase), append([]string{"add"}, args...)...)
}

// stopped begins a pvecm command and stops it where it has noted in its journal, a file in
// /var/lib/pve-cluster, that it begins a phase: what the test does then happens in that phase,
// however busy the machine is. It returns the process and what it writes.
func (o *node) stopped(journal, phase string, args ...string) (*lab.Process, *bytes.Buffer) {
	o.t.Helper()
	dir := o.Path("/var/lib/pve-cluster")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		o.t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		o.t.Fatal(err)
	}
	noted := func() string {
		var j struct{ Phase string }
		if text, err := os.ReadFile(dir + "/" + journal); err != nil || json.Unmarshal(text, &j) != nil {
			return ""
		}
		return j.Phase
	}
	out := &bytes.Buffer{}
	p, err := o.Start(lab.Spec{Args: append([]string{"/usr/bin/pvecm"}, args...), Stdout: out, Stderr: out})
	if err != nil {
		o.t.Fatal(err)
	}
	events := make([]byte, 4096)
	for p.Running() {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000); n == 0 || err != nil {
			continue
		}
		if _, err := unix.Read(fd, events); err != nil {
			o.t.Fatal(err)
		}
		if noted() != phase {
			continue
		}
		if err := p.Signal(unix.SIGSTOP); err != nil {
			o.t.Fatal(err)
		}
		// On a busy machine it may have come further, but not to the end, which is seconds
		// away: what then holds of this phase holds of that one.
		switch now := noted(); now {
		case phase:
		case string(join.Finished), "":
			o.t.Fatalf("pvecm %s was through before it was stopped in phase %s", args[0], phase)
		default:
			o.t.Logf("it went on to phase %s before it was stopped in phase %s", now, phase)
		}
		return p, out
	}
	o.t.Fatalf("pvecm %s never was in phase %s: %s", args[0], phase, out)
	return nil, nil
}

// killed begins a pvecm command and kills it in a phase.
func (o *node) killed(journal, phase string, args ...string) {
	o.t.Helper()
	p, _ := o.stopped(journal, phase, args...)
	if err := p.Signal(unix.SIGKILL); err != nil {
		o.t.Fatal(err)
	}
	p.Wait()
}

// quorate writes to a node's tree again and again, until stopped, and counts failures.
func (o *node) quorate() (stop func()) {
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		failures := 0
		for n := 0; ; n++ {
			select {
			case <-end:
				ended <- failures
				return
			case <-time.After(20 * time.Millisecond):
			}
			if os.WriteFile(o.Path("/etc/pve/beat"), fmt.Append(nil, n), 0o600) != nil {
				failures++
			}
		}
	}()
	return func() {
		close(end)
		if n := <-ended; n > 0 {
			o.t.Errorf("%s could not be written to %d times: the cluster lost quorum", o.Name(), n)
		}
	}
}

// A join whose process is killed at any phase is taken back or completed, and the cluster
// never notices.
func TestAJoinThatIsKilled(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates(two)
	for _, step := range []struct {
		phase join.Phase
		then  string
	}{
		{join.Entered, "--abort"}, {join.Switched, "--abort"}, {join.Joined, "--abort"}, {join.Entered, "--resume"}, {join.Joined, "--resume"},
	} {
		t.Logf("killed in phase %s, then %s", step.phase, step.then)
		stop := one.quorate()
		three.killed("join.json", string(step.phase), "add", "10.99.0.1", "--via", "ssh")
		if out, status := three.pvecm("add", "10.99.0.1", "--via", "ssh"); status == 0 && three.has("/var/lib/pve-cluster/join.json") || !strings.Contains(out, "unfinished") {
			t.Errorf("a plain add afterwards: status %d: %s", status, out)
		}
		three.must("add", step.then)
		stop()
		if step.then == "--abort" {
			three.wantAlone()
			testutil.Eventually(t, "the cluster has two nodes again", func() error {
				text, err := os.ReadFile(one.Path("/etc/pve/corosync.conf"))
				if err == nil && strings.Contains(string(text), "node3") {
					err = fmt.Errorf("it has\n%s", text)
				}
				return err
			})
			c.wantTogether(2, one, two)
			continue
		}
		c.wantTogether(3, c.all...)
		if step.phase == join.Entered { // and out again
			three.in("", "systemctl", "stop", "pve-cluster", "corosync")
			testutil.Eventually(t, "node3 is off", func() error {
				if out, status := one.pvecm("delnode", "node3"); status != 0 {
					return fmt.Errorf("%s", out)
				}
				return nil
			})
			one.letsIn(three)
			three.in("", "bash", "-c", "rm -f /etc/corosync/* /var/lib/pve-cluster/config.db*; systemctl start pve-cluster")
			three.wantAlone()
		}
	}
}

// cutsOff has a join get nowhere, which is taken back by itself on both sides. The cluster has
// one node.
func (c *hosts) cutsOff(o *node) {
	t, one := c.t, c.node(1)
	t.Helper()
	stop := one.quorate()
	p, out := o.stoppedAt(join.Switched, lab.Address(1), "--via", "ssh", "--timeout", "4")
	if err := c.lab.Cut(o.ID()); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if !strings.Contains(out.String(), "Everything was taken back") {
		t.Errorf("it ended with %s", out)
	}
	o.wantAlone()
	testutil.Eventually(t, "the cluster has one node again", func() error {
		text, err := os.ReadFile(one.Path("/etc/pve/corosync.conf"))
		if err == nil && strings.Contains(string(text), o.Name()) {
			err = fmt.Errorf("it has\n%s", text)
		}
		return err
	})
	if err := c.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	stop()
	o.must("add", lab.Address(1), "--via", "ssh")
	c.wantTogether(2, one, o)
}

// What speaks against a join is told before anything is changed; one that gets nowhere is
// taken back.
func TestJoinsThatAreRefusedOrCutOff(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates(two)
	before := string(one.read("/etc/pve/corosync.conf"))
	refused := func(status int, text string, args ...string) {
		t.Helper()
		out, got := three.pvecm(append([]string{"add", "10.99.0.1", "--via", "ssh"}, args...)...)
		if got != status || !strings.Contains(out, text) {
			t.Errorf("%v: status %d, want %d and %q: %s", args, got, status, text, out)
		}
		three.wantAlone()
		if after := string(one.read("/etc/pve/corosync.conf")); after != before {
			t.Errorf("%v: the cluster's corosync.conf was changed", args)
		}
	}
	refused(4, "node id 1 belongs to node node1", "--nodeid", "1")
	refused(4, "no interface of this host", "--link0", "10.99.0.77")
	refused(4, "no link 1", "--link0", "10.99.0.3", "--link1", "10.99.0.3")
	refused(5, "no host key", "--fingerprint", "SHA256:"+strings.Repeat("A", 43))
	os.MkdirAll(three.Path("/etc/pve/nodes/node3/qemu-server"), 0o755)
	three.write("/etc/pve/nodes/node3/qemu-server/100.conf", "name: x\n")
	refused(4, "this host has 1 guests")
	os.Remove(three.Path("/etc/pve/nodes/node3/qemu-server/100.conf"))
	out, status := three.pvecm("add", "10.99.0.1", "--via", "ssh", "--dry-run")
	if status != 0 || !strings.Contains(out, "would do: ") {
		t.Errorf("a dry run: status %d: %s", status, out)
	}
	three.wantAlone()
	// A member whose network takes smaller packets only is named.
	one.in("", "ip", "link", "set", "eth0", "mtu", "1400")
	if out, status := three.pvecm("add", "10.99.0.1", "--via", "ssh", "--dry-run"); status != 0 || !strings.Contains(out, "node node1 on link 0 (10.99.0.1): packets of 1500 bytes") || strings.Contains(out, "node node2 on") {
		t.Errorf("with another MTU on node1: status %d: %s", status, out)
	}
	one.in("", "ip", "link", "set", "eth0", "mtu", "1500")
	// A dry run takes no key anywhere, and makes none.
	if out, status := three.pvecm("add", "10.99.0.1", "--via", "ssh", "--copy-id", "--dry-run"); status != 0 || three.has("/root/.ssh/config") {
		t.Errorf("a dry run with --copy-id: status %d: %s", status, out)
	}
	// A member that can't be reached is named.
	if err := c.lab.Split([]int{1, 2}, []int{3}); err != nil {
		t.Fatal(err)
	}
	refused(5, "can't be reached")
	if err := c.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	// Without quorum nobody joins.
	two.in("", "systemctl", "stop", "pve-cluster", "corosync")
	testutil.Eventually(t, "node1 has no quorum", func() error {
		if s := one.state(); s.Quorum == nil || s.Quorum.Quorate {
			return fmt.Errorf("it has")
		}
		return nil
	})
	refused(2, "no quorum")
	if out, status := one.pvecm("delnode", "node2"); status != 2 {
		t.Errorf("delnode: status %d: %s", status, out)
	}
	one.must("expected", "1")
	testutil.Eventually(t, "it has quorum again", func() error {
		if s := one.state(); s.Quorum == nil || !s.Quorum.Quorate {
			return fmt.Errorf("no")
		}
		return nil
	})
	one.must("delnode", "node2")
	c.wantTogether(1, one)
	c.cutsOff(three)
}

// comesUpCold has the power go for all nodes, which come back one by one.
func (c *hosts) comesUpCold() {
	c.t.Helper()
	for _, o := range c.all {
		if err := o.Crash(); err != nil {
			c.t.Fatal(err)
		}
	}
	for i := len(c.all); i >= 1; i-- {
		c.node(i).in("", "bash", "-c", "umount -l /etc/pve; rm -rf /run/*.mainpid /run/pve-cluster* /dev/shm/*; systemctl start pve-cluster corosync ssh")
	}
	c.wantTogether(len(c.all), c.all...)
}
