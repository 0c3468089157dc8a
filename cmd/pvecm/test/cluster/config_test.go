package cluster

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

// settled waits until all nodes are together, have loaded what the tree has, and no change
// is on trial any more. It returns the configuration.
func (c *hosts) settled() string {
	c.t.Helper()
	c.wantTogether(len(c.all), c.all...)
	testutil.EventuallyWithin(c.t, 2*testutil.Patience, func() error {
		for _, o := range c.all {
			if o.has("/var/lib/pve-cluster/config-guard.json") {
				return fmt.Errorf("a change is on trial on %s", o.Name())
			}
			text, _ := os.ReadFile(o.Path("/etc/pve/corosync.conf"))
			loaded, _ := o.in("", "corosync-cmapctl", "-g", "totem.config_version")
			_, loaded, _ = strings.Cut(strings.TrimSpace(loaded), "= ")
			if !strings.Contains(string(text), "config_version: "+loaded+"\n") {
				return fmt.Errorf("%s has loaded version %q, the tree has\n%s", o.Name(), loaded, text)
			}
		}
		return nil
	})
	return string(c.node(1).read("/etc/pve/corosync.conf"))
}

// unversioned is a configuration without its version.
func unversioned(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "config_version") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Changes of corosync.conf that are good stay, and those that aren't go, whatever becomes
// of the command and the node that made them.
func TestAChangeOfCorosyncConfIsOnTrial(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	one.must("create", "lab")
	for _, o := range c.all[1:] {
		o.must("add", "10.99.0.1", "--via", "ssh")
	}
	before := c.settled()
	wrong := func() string { return strings.Replace(c.settled(), "10.99.0.3", "10.99.0.33", 1) }
	apply := func(o *node, text string, args ...string) (string, int) {
		return o.in(text, append([]string{"/usr/bin/pvecm", "config", "apply", "-"}, args...)...)
	}
	same := func(what string) {
		t.Helper()
		if after := c.settled(); unversioned(after) != unversioned(before) {
			t.Fatalf("%s: the configuration is\n%s\nnot\n%s", what, after, before)
		}
	}

	// What is wrong with a text is said before.
	for _, bad := range []struct{ name, text, says string }{
		{"a typo", strings.Replace(before, "totem {", "totem {{", 1), "corosync.conf"},
		{"one id twice", strings.Replace(before, "nodeid: 2", "nodeid: 1", 1), "same nodeid"},
		{"another name", strings.Replace(before, "cluster_name: lab", "cluster_name: bal", 1), "can't be changed"},
		{"a value that corosync doesn't know", strings.Replace(before, "link_mode: passive", "link_mode: pasive", 1), "node node2"},
		{"a node is missing", strings.Replace(before, nodeText(before, "node3"), "", 1), "node node3 is missing"},
	} {
		if out, status := apply(two, bad.text); status != 4 || !strings.Contains(out, bad.says) {
			t.Errorf("%s: status %d, want 4 and %q: %s", bad.name, status, bad.says, out)
		}
	}
	if after := string(one.read("/etc/pve/corosync.conf")); after != before {
		t.Fatalf("refused texts changed it:\n%s", after)
	}
	if out, status := apply(one, before); status != 0 || !strings.Contains(out, "nothing to do") {
		t.Errorf("the same text: status %d: %s", status, out)
	}

	// A good change, and back.
	three.must("set-votes", "node2", "2", "--dry-run")
	three.must("set-votes", "node2", "2")
	if text := string(one.read("/etc/pve/corosync.conf")); !strings.Contains(text, "quorum_votes: 2") {
		t.Errorf("other votes: %s", text)
	}
	if out := one.must("config", "history"); !strings.Contains(out, "node node2: 1 vote becomes 2 votes") {
		t.Errorf("the history: %s", out)
	}
	two.must("config", "rollback")
	same("rolled back")

	// A wrong address.
	if out, status := apply(one, wrong(), "--timeout", "5"); status != 1 || !strings.Contains(out, "It was taken back") {
		t.Errorf("a wrong address: status %d: %s", status, out)
	}
	same("a wrong address")

	// The command is killed in the middle, and so is the node it runs on.
	begins := func(o *node, text string) *lab.Process {
		t.Helper()
		out := &bytes.Buffer{}
		p, err := o.Start(lab.Spec{Args: []string{"/usr/bin/pvecm", "config", "apply", "-", "--timeout", "5"}, Stdin: strings.NewReader(text), Stdout: out, Stderr: out})
		if err != nil {
			t.Fatal(err)
		}
		testutil.Eventually(t, "the change is made", func() error {
			if text, _ := os.ReadFile(o.Path("/etc/pve/corosync.conf")); !bytes.Contains(text, []byte("10.99.0.33")) {
				if !p.Running() {
					t.Fatalf("it has ended: %s", out)
				}
				return fmt.Errorf("it isn't: %s", text)
			}
			return nil
		})
		return p
	}
	p := begins(two, wrong())
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	same("the command was killed")

	begins(one, wrong())
	if err := one.Crash(); err != nil {
		t.Fatal(err)
	}
	testutil.EventuallyWithin(t, 2*testutil.Patience, func() error {
		if text, _ := os.ReadFile(two.Path("/etc/pve/corosync.conf")); unversioned(string(text)) != unversioned(before) {
			return fmt.Errorf("the others have\n%s", text)
		}
		return nil
	})
	if out, status := one.in("", "bash", "-c", "umount -l /etc/pve; rm -rf /run/*.mainpid /run/pve-cluster* /dev/shm/*; systemctl start pve-cluster corosync ssh && pvecm config-guard wait"); status != 0 {
		t.Fatalf("node1 comes back: status %d: %s", status, out)
	}
	same("the node was killed")

	// All nodes move to another network.
	for i, o := range c.all {
		if out, status := o.in("", "ip", "address", "add", fmt.Sprintf("10.98.0.%d/24", i+1), "dev", "eth0"); status != 0 {
			t.Fatal(out)
		}
	}
	moved := strings.ReplaceAll(c.settled(), "10.99.0.", "10.98.0.")
	if out, status := apply(one, moved, "--timeout", "40"); status != 0 || !strings.Contains(out, "Step 4 of 4") {
		t.Fatalf("other addresses of all: status %d: %s", status, out)
	}
	if after := c.settled(); unversioned(after) != unversioned(moved) {
		t.Errorf("the configuration is\n%s", after)
	}

	// A second link, and the first one goes.
	if out := one.must("link", "add", "1", "node1=10.99.0.1", "node2=10.99.0.2", "node3=10.99.0.3", "--timeout", "40"); !strings.Contains(out, "The cluster is as before") {
		t.Errorf("adding a link: %s", out)
	}
	c.settled()
	two.must("link", "remove", "0", "--timeout", "40")
	if after := c.settled(); strings.Contains(after, "10.98.0.") || !strings.Contains(after, "ring1_addr: 10.99.0.1") {
		t.Errorf("the configuration is\n%s", after)
	}
}

// nodeText is the section of a node.
func nodeText(conf, name string) string {
	begin := strings.Index(conf, "  node {\n    name: "+name+"\n")
	return conf[begin : begin+strings.Index(conf[begin:], "  }\n")+len("  }\n")]
}
