package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"pmxcfs/internal/testutil"
)

// A node gets another name, though it is killed at it, and everything goes on under that one,
// after a power cut, too.
func TestANodeGetsAnotherName(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates(two, three)
	for _, line := range []string{
		"mkdir -p /etc/pve/nodes/node2/lxc /etc/pve/nodes/node2/qemu-server",
		"for i in 1 2 3; do echo 'memory: 512' > /etc/pve/nodes/node2/lxc/20$i.conf; echo 'memory: 512' > /etc/pve/nodes/node2/qemu-server/10$i.conf; done",
		"printf 'dir: local\n\tpath /x\n\tnodes node1,node2\n' > /etc/pve/storage.cfg",
	} {
		if out, status := two.in("", "bash", "-c", line); status != 0 {
			t.Fatal(out)
		}
	}
	for _, o := range c.all {
		o.in("", "bash", "-c", "mkdir -p /var/lib/rrdcached/db/pve-node-9.0 /var/lib/rrdcached/db/pve-storage-9.0/node2; cd /var/lib/rrdcached/db; echo load > pve-node-9.0/node2; echo sizes > pve-storage-9.0/node2/local")
	}

	// It says what speaks against it, from wherever it is called.
	guest, status := two.in("", "bash", "-c", "mkdir -p /run/qemu-server; (exec -a kvm bash -c 'sleep 1000; :' -id 101 x) >/dev/null 2>&1 < /dev/null & echo $! > /run/qemu-server/101.pid; cat /run/qemu-server/101.pid")
	if status != 0 {
		t.Fatal(guest)
	}
	testutil.Eventually(t, "a guest that runs is in the way", func() error {
		if out, status := one.pvecm("rename-node", "node2", "beta"); status != 4 || !strings.Contains(out, "guests run on this node: 101") {
			return fmt.Errorf("status %d: %s", status, out)
		}
		return nil
	})
	two.in("", "bash", "-c", "pkill -P $(cat /run/qemu-server/101.pid); kill -9 $(cat /run/qemu-server/101.pid)")
	if out, status := one.pvecm("rename-node", "node2", "node3"); status != 4 || !strings.Contains(out, "there is a node node3") {
		t.Errorf("a name that is taken: status %d: %s", status, out)
	}
	if out := three.must("rename-node", "node2", "beta", "--dry-run"); !strings.Contains(out, "would do: corosync.conf: node node2 (id 2) becomes beta") {
		t.Errorf("a dry run: %s", out)
	}
	if text := string(one.read("/etc/pve/corosync.conf")); strings.Contains(text, "beta") {
		t.Errorf("it did something: %s", text)
	}

	two.killed("rename.json", "tree", "rename-node", "node2", "beta")
	two.killed("rename.json", "host", "rename-node", "node2", "beta")
	two.killed("rename.json", "rest", "rename-node", "node2", "beta")
	two.must("rename-node", "node2", "beta")
	c.wantTogether(3, c.all...)
	if out, status := two.in("", "hostname"); status != 0 || out != "beta\n" {
		t.Errorf("the host is %s", out)
	}
	for _, o := range c.all {
		for _, path := range []string{"/etc/pve/nodes/beta/lxc/203.conf", "/etc/pve/nodes/beta/qemu-server/101.conf", "/var/lib/rrdcached/db/pve-node-9.0/beta", "/var/lib/rrdcached/db/pve-storage-9.0/beta/local"} {
			if !o.has(path) {
				t.Errorf("%s: %s is missing", o.Name(), path)
			}
		}
		// Nothing has the old name, and nothing is wrong with the new one.
		if out, _ := o.in("", "grep", "-rlw", "node2", "/etc/hosts", "/etc/hostname", "/etc/pve/corosync.conf", "/etc/corosync", "/etc/pve/nodes", "/etc/pve/priv/authorized_keys", "/etc/pve/storage.cfg", "/etc/pve/.members", "/etc/pve/.vmlist"); out != "" {
			t.Errorf("%s: these have the old name:\n%s", o.Name(), out)
		}
		if left := []string{"/etc/pve/nodes/node2", "/var/lib/rrdcached/db/pve-node-9.0/node2", "/var/lib/rrdcached/db/pve-storage-9.0/node2"}; o.has(left[0]) || o.has(left[1]) || o.has(left[2]) {
			t.Errorf("%s: one of %q is left", o.Name(), left)
		}
		testutil.Eventually(t, "pvecm check finds nothing", func() error {
			if out, status := o.pvecm("check"); status != 0 {
				return fmt.Errorf("%s: status %d: %s", o.Name(), status, out)
			}
			return nil
		})
	}
	if out := one.must("rename-node", "node2", "beta"); !strings.Contains(out, "nothing to do") {
		t.Errorf("again: %s", out)
	}
	// After a power cut all come back by themselves, this one under its new name.
	c.comesUpCold()
	if err := os.WriteFile(two.Path("/etc/pve/nodes/beta/lxc/204.conf"), nil, 0o600); err != nil {
		t.Error(err)
	}
}
