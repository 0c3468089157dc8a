package cluster

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

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

// same checks that the configuration is as it was.
func (c *hosts) same(what, before string) {
	c.t.Helper()
	if after := c.settled(); unversioned(after) != unversioned(before) {
		c.t.Fatalf("%s: the configuration is\n%s\nnot\n%s", what, after, before)
	}
}

func (o *node) apply(text string, args ...string) (string, int) {
	return o.in(text, append([]string{"/usr/bin/pvecm", "config", "apply", "-"}, args...)...)
}

// wrong is the present configuration with an address that node3 doesn't have.
func (c *hosts) wrong() string { return strings.Replace(c.settled(), "10.99.0.3", "10.99.0.33", 1) }

// What is wrong with a change of corosync.conf is said before it is made; what goes wrong
// behind it is taken back by the nodes themselves.
func TestAWrongChangeOfCorosyncConfIsTakenBack(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two := c.node(1), c.node(2)
	c.creates(c.all[1:]...)
	before := c.settled()

	// What is wrong with a text is said before.
	for _, bad := range []struct{ name, text, says string }{
		{"a typo", strings.Replace(before, "totem {", "totem {{", 1), "corosync.conf"},
		{"one id twice", strings.Replace(before, "nodeid: 2", "nodeid: 1", 1), "same nodeid"},
		{"another name", strings.Replace(before, "cluster_name: lab", "cluster_name: bal", 1), "can't be changed"},
		{"a value that corosync doesn't know", strings.Replace(before, "link_mode: passive", "link_mode: pasive", 1), "node node2"},
		{"a node is missing", strings.Replace(before, nodeText(before, "node3"), "", 1), "node node3 is missing"},
	} {
		if out, status := two.apply(bad.text); status != 4 || !strings.Contains(out, bad.says) {
			t.Errorf("%s: status %d, want 4 and %q: %s", bad.name, status, bad.says, out)
		}
	}
	if after := string(one.read("/etc/pve/corosync.conf")); after != before {
		t.Fatalf("refused texts changed it:\n%s", after)
	}
	if out, status := one.apply(before); status != 0 || !strings.Contains(out, "nothing to do") {
		t.Errorf("the same text: status %d: %s", status, out)
	}

	// What the checks let pass, or were told to.
	for _, bad := range []struct{ name, from, to, force string }{
		{"a wrong address", "10.99.0.3\n", "10.99.0.33\n", ""},
		{"addresses of two nodes swapped", "ring0_addr: 10.99.0.2\n", "ring0_addr: 10.99.0.3\n", ""},
		{"votes that nobody has", "provider: corosync_votequorum\n", "provider: corosync_votequorum\n  expected_votes: 9\n", ""},
		{"a cipher that there isn't", "secauth: on\n", "secauth: on\n  crypto_cipher: rot13\n", "node-test"},
		{"a removed node", nodeText(before, "node3"), "", "node-goes"},
	} {
		// On a busy machine the removed node may go on with the new text: a defect that is known.
		if bad.name == "a removed node" && os.Getenv("PMXCFS_LONG") == "" {
			continue
		}
		text := strings.Replace(c.settled(), bad.from, bad.to, 1)
		if bad.name == "addresses of two nodes swapped" {
			at := strings.LastIndex(text, bad.to)
			text = text[:at] + bad.from + text[at+len(bad.to):]
		}
		args := []string{"--timeout", "5"}
		if bad.force != "" {
			args = append(args, "--force="+bad.force)
		}
		out, status := one.apply(text, args...)
		if status != 1 || !strings.Contains(out, "It was taken back") {
			t.Errorf("%s: status %d: %s", bad.name, status, out)
		}
		// Without a hand of anybody's the nodes can be written to again.
		began := time.Now()
		for _, o := range c.all {
			testutil.Eventually(t, o.Name()+" can be written to", func() error {
				return os.WriteFile(o.Path("/etc/pve/after-"+o.Name()), nil, 0o600)
			})
		}
		t.Logf("%s: taken back, and written to %v later", bad.name, time.Since(began).Round(time.Millisecond))
		c.same(bad.name, before)
	}

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
	p := begins(two, c.wrong())
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	c.same("the command was killed", before)

	begins(one, c.wrong())
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
	c.same("the node was killed", before)

	c.refusesPlainly(before)
}

// refusesPlainly moves texts over corosync.conf by hand that corosync would refuse: they stay in
// the tree, and corosync doesn't get them.
func (c *hosts) refusesPlainly(before string) {
	t := c.t
	t.Helper()
	one := c.node(1)
	moves := func(text string) {
		one.write("/etc/pve/corosync.conf.new", text)
		if out, status := one.in("", "mv", "/etc/pve/corosync.conf.new", "/etc/pve/corosync.conf"); status != 0 {
			t.Fatal(out)
		}
	}
	good := c.settled()
	for _, bad := range []struct{ name, text, says string }{
		{"a lower version", regexp.MustCompile("config_version: [0-9]+").ReplaceAllString(good, "config_version: 1"), "version"},
		{"no list of nodes", strings.Replace(good, "nodelist {", "nodelost {", 1), "nodelist"},
	} {
		moves(bad.text)
		for _, o := range c.all {
			testutil.Eventually(t, bad.name+" is kept from corosync", func() error {
				refused, err := os.ReadFile(o.Path("/etc/corosync/corosync.conf.refused"))
				if err != nil {
					return err
				}
				own, err := os.ReadFile(o.Path("/etc/corosync/corosync.conf"))
				if string(refused) != bad.text || string(own) != good {
					return fmt.Errorf("%s: corosync has\n%s\nand refused is\n%s (%v)", o.Name(), own, refused, err)
				}
				return nil
			})
			if out, _ := o.in("", "/usr/bin/pmxcfs", "status"); !strings.Contains(out, "corosync.conf.refused") || !strings.Contains(out, bad.says) {
				t.Errorf("%s: status says\n%s", bad.name, out)
			}
			if s := o.state(); s.Quorum == nil || !s.Quorum.Quorate || s.Quorum.Total != 3 {
				t.Errorf("%s: %s has %+v", bad.name, o.Name(), s.Quorum)
			}
		}
		moves(good)
		for _, o := range c.all {
			testutil.Eventually(t, "what was refused goes with the reason", func() error {
				if o.has("/etc/corosync/corosync.conf.refused") {
					return fmt.Errorf("it is left on %s", o.Name())
				}
				return nil
			})
		}
	}
	c.same("texts that were refused", before)
}

// Changes of corosync.conf that are good stay.
func TestAGoodChangeOfCorosyncConfStays(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates(two, three)
	before := c.settled()

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
	c.same("rolled back", before)

	// All nodes move to another network.
	for i, o := range c.all {
		if out, status := o.in("", "ip", "address", "add", fmt.Sprintf("10.98.0.%d/24", i+1), "dev", "eth0"); status != 0 {
			t.Fatal(out)
		}
	}
	moved := strings.ReplaceAll(c.settled(), "10.99.0.", "10.98.0.")
	if out, status := one.apply(moved, "--timeout", "40"); status != 0 || !strings.Contains(out, "Step 4 of 4") {
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
