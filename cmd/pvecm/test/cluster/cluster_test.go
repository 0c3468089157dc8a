package cluster

import (
	"strings"
	"testing"
)

func TestCreateJoinAndRemove(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	c.node(1).must("create", "lab")
	c.wantTogether(1, c.node(1))
	for i := 2; i <= 3; i++ {
		c.node(i).must("add", "10.99.0.1", "--via", "ssh")
		c.wantTogether(i, c.all[:i]...)
	}
	// Keys and certificates are those of a node.
	for _, o := range c.all {
		for _, path := range []string{"/etc/pve/nodes/" + o.Name() + "/pve-ssl.pem", "/etc/pve/nodes/" + o.Name() + "/ssh_known_hosts"} {
			if !o.has(path) {
				t.Errorf("%s: %s is missing", o.Name(), path)
			}
		}
		if out, status := o.pvecm("check"); status != 0 {
			t.Errorf("%s: check: status %d: %s", o.Name(), status, out)
		}
	}
	if out := c.node(2).must("add", "10.99.0.1", "--via", "ssh"); !strings.Contains(out, "nothing to do") {
		t.Errorf("joining again: %s", out)
	}
	if out, status := c.node(1).pvecm("delnode", "node3"); status != 4 || !strings.Contains(out, "is running") {
		t.Errorf("removing a node that runs: status %d: %s", status, out)
	}
	c.node(3).in("", "systemctl", "stop", "pve-cluster", "corosync")
	c.node(1).must("delnode", "node3")
	c.wantTogether(2, c.all[:2]...)
}
