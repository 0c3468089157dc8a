package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/internal/testutil"
)

func TestCreateJoinAndRemove(t *testing.T) {
	t.Parallel()
	many := 5
	if labtest.RaceDetector { // its daemons are slow
		many = 3
	}
	c := fresh(t, many)
	last := c.node(many)
	c.creates(c.all[1 : many-1]...)
	// The last one finds a thousand guests. On an idle machine that takes a few seconds.
	if out, status := c.node(1).in("", "bash", "-c", "mkdir -p /etc/pve/nodes/node1/qemu-server && cd /etc/pve/nodes/node1/qemu-server && for i in {1000..1999}; do echo 'memory: 512' > $i.conf; done"); status != 0 {
		t.Fatal(out)
	}
	begin := time.Now()
	last.must("add", "10.99.0.1", "--via", "ssh")
	t.Logf("joined a cluster with 1000 guests within %v", time.Since(begin).Round(10*time.Millisecond))
	if text, err := os.ReadFile(last.Path("/etc/pve/nodes/node1/qemu-server/1999.conf")); err != nil || string(text) != "memory: 512\n" {
		t.Errorf("a node that has joined has of a guest %q (%v)", text, err)
	}
	c.wantTogether(many, c.all...)
	// Keys and certificates are those of a node.
	for _, o := range c.all {
		for _, path := range []string{"/etc/pve/nodes/" + o.Name() + "/pve-ssl.pem", "/etc/pve/nodes/" + o.Name() + "/ssh_known_hosts"} {
			if !o.has(path) {
				t.Errorf("%s: %s is missing", o.Name(), path)
			}
		}
		// It gives another node 10 s to answer, which five at once may take on a busy machine.
		testutil.EventuallyWithin(t, 3*testutil.Patience, func() error {
			if out, status := o.pvecm("check"); status != 0 {
				return fmt.Errorf("%s: check: status %d: %s", o.Name(), status, out)
			}
			return nil
		})
	}
	if out := c.node(2).must("add", "10.99.0.1", "--via", "ssh"); !strings.Contains(out, "nothing to do") {
		t.Errorf("joining again: %s", out)
	}
	if out, status := c.node(1).pvecm("delnode", last.Name()); status != 4 || !strings.Contains(out, "is running") {
		t.Errorf("removing a node that runs: status %d: %s", status, out)
	}
	last.in("", "systemctl", "stop", "pve-cluster", "corosync")
	if out := c.node(1).must("delnode", last.Name()); !strings.Contains(out, "ssh keys of "+last.Name()+" are removed") {
		t.Errorf("removing a node: %s", out)
	}
	if c.node(1).has("/etc/pve/nodes/"+last.Name()) || strings.Contains(string(c.node(1).read("/etc/pve/priv/authorized_keys")), "root@"+last.Name()) {
		t.Error("the tree still has the node's directory or key")
	}
	// One that runs is stopped, and can't come back; what it had is kept in an archive.
	live := c.node(many - 1)
	live.in("", "bash", "-c", "mkdir -p /etc/pve/nodes/"+live.Name()+"/lxc && echo x > /etc/pve/nodes/"+live.Name()+"/lxc/100.conf")
	c.node(1).must("delnode", live.Name(), "--kill", "--purge-dir")
	c.wantTogether(many-2, c.all[:many-2]...)
	if live.has("/etc/corosync/authkey") || live.has("/etc/corosync/corosync.conf") || c.node(1).has("/etc/pve/nodes/"+live.Name()) {
		t.Error("the removed node has its configuration, or the tree its directory")
	}
	if out, status := c.node(1).in("", "bash", "-c", "tar -tzf /var/lib/pve-cluster/backup/node-"+live.Name()+"-*.tar.gz"); status != 0 || !strings.Contains(out, live.Name()+"/lxc/100.conf") {
		t.Errorf("the archive: status %d: %s", status, out)
	}
}

// A node joins a peer that runs the stock tool, and one that runs the stock tool joins
// ours: what differs is how they talk over ssh.
func TestJoinsWithTheStockToolOnTheOtherSide(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates()
	// It knows no join-serve, and says so with the status that ssh has for itself.
	if out, status := one.in("#!/bin/sh\n[ \"$1\" != join-serve ] || { echo \"ERROR: unknown command 'pvecm join-serve'\" >&2; exit 255; }\nexec /usr/bin/pvecm.real \"$@\"\n",
		"bash", "-c", "mv /usr/bin/pvecm /usr/bin/pvecm.real && cat > /usr/bin/pvecm && chmod 755 /usr/bin/pvecm"); status != 0 {
		t.Fatal(out)
	}
	two.must("add", "10.99.0.1", "--via", "ssh")
	c.wantTogether(2, one, two)
	if out, status := three.pvecm("add", "10.99.0.1", "--via", "ssh", "--nodeid", "2"); status != 4 {
		t.Errorf("an id that is taken: status %d: %s", status, out)
	}
	// The stock tool's way, step by step.
	for _, line := range []string{
		"test $(ssh 10.99.0.1 -o BatchMode=yes pvecm apiver) = 1",
		"ssh 10.99.0.1 -o BatchMode=yes pvecm addnode node3 --force 1 --link0 10.99.0.3",
		"scp -o BatchMode=yes 10.99.0.1:/etc/corosync/authkey 10.99.0.1:/etc/pve/corosync.conf /etc/corosync/",
		"systemctl stop pve-cluster; rm /var/lib/pve-cluster/config.db; systemctl start corosync pve-cluster",
	} {
		if out, status := three.in("", "bash", "-c", line); status != 0 {
			t.Fatalf("%s: status %d: %s", line, status, out)
		}
	}
	c.wantTogether(3, c.all...)
}
