package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pmxcfs/internal/testutil"
)

// secrets are digests of the keys that make a cluster's certificates, tickets and messages its own.
func (o *node) secrets() []string {
	out, _ := o.in("", "sha256sum", "/etc/corosync/authkey", "/etc/pve/priv/pve-root-ca.key", "/etc/pve/priv/authkey.key", "/etc/pve/pve-www.key")
	var list []string
	for line := range strings.Lines(out) {
		if digest, _, _ := strings.Cut(line, " "); len(digest) == 64 {
			list = append(list, digest)
		}
	}
	return list
}

// traces are the files of a host that a cluster may leave something in.
func (o *node) traces() (list []string) {
	for _, dir := range []string{"/etc", "/root", "/var/lib/corosync", "/var/lib/pve-cluster"} {
		_ = filepath.WalkDir(o.Path(dir), func(path string, d os.DirEntry, err error) error {
			name := strings.TrimPrefix(path, strings.TrimSuffix(o.Path("/"), "/"))
			switch {
			case err != nil:
				return nil
			case d.IsDir() && name == "/var/lib/pve-cluster/backup": // it is there to stay
				return filepath.SkipDir
			case name == "/etc/pve/alone" || name == "/etc/pve/mark" || strings.HasPrefix(name, "/etc/pve/.") || strings.HasPrefix(d.Name(), "config.db-"):
				return nil
			}
			list = append(list, name)
			return nil
		})
	}
	return list
}

// A node leaves its cluster and comes again, as often as one likes, and nothing of the
// cluster stays on it.
func TestANodeLeavesAndComesAgain(t *testing.T) {
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates(two)
	times := 2
	if os.Getenv("PMXCFS_LONG") != "" {
		times = 10
	}
	three.must("updatecerts")
	three.wantAlone()
	before := three.traces()
	for n := range times {
		one.letsIn(three) // its key goes with it
		three.must("add", "10.99.0.1", "--via", "ssh")
		c.wantTogether(3, c.all...)
		if n == 0 {
			if out := three.must("leave", "--dry-run"); !strings.Contains(out, "would do: ") {
				t.Errorf("a dry run: %s", out)
			}
			c.wantTogether(3, c.all...)
		}
		three.in("", "bash", "-c", "mkdir -p /etc/pve/nodes/node3/lxc && echo 'memory: 512' > /etc/pve/nodes/node3/lxc/300.conf")
		// Killed where the cluster may have removed it, and where it has: again completes it.
		switch n {
		case 0:
			three.killed("leave.json", "removing", "leave")
		case 1:
			three.killed("leave.json", "settling", "leave")
		}
		three.must("leave")
		three.wantAlone()
		c.wantTogether(2, one, two)
		if text, err := os.ReadFile(three.Path("/etc/pve/nodes/node3/lxc/300.conf")); err != nil || string(text) != "memory: 512\n" {
			t.Fatalf("its guest: %q, %v", text, err)
		}
		three.in("", "rm", "/etc/pve/nodes/node3/lxc/300.conf")
		if one.has("/etc/pve/nodes/node3") || three.has("/etc/pve/nodes/node1") {
			t.Error("a directory of the other side is left")
		}
		if text := string(three.read("/etc/pve/priv/authorized_keys")); strings.Contains(text, "root@node1") || strings.Contains(text, "root@node2") || !strings.Contains(text, "root@node3") {
			t.Errorf("its authorized_keys are\n%s", text)
		}
		if list := three.traces(); !slices.Equal(list, before) {
			t.Errorf("after %d times there is\n%s\nnot\n%s", n+1, strings.Join(list, "\n"), strings.Join(before, "\n"))
		}
		if own, clusters := three.secrets(), one.secrets(); slices.ContainsFunc(own, func(s string) bool { return slices.Contains(clusters, s) }) {
			t.Errorf("it has secrets of the cluster: %q, %q", own, clusters)
		}
		if out, status := three.pvecm("check"); status != 0 {
			t.Errorf("check, after it has left: status %d: %s", status, out)
		}
	}
	if out := three.must("leave"); !strings.Contains(out, "nothing to do") {
		t.Errorf("leaving no cluster: %s", out)
	}
	// Where the others can't go on without it, or can't be asked, it stays.
	if err := c.lab.Cut(2); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "leaving is refused without quorum", func() error {
		if out, status := one.pvecm("leave"); status != 2 || !strings.Contains(out, "no quorum") {
			return fmt.Errorf("status %d: %s", status, out)
		}
		return nil
	})
	if err := c.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	c.wantTogether(2, one, two)
	// The last one ends the cluster.
	two.must("leave")
	one.must("leave")
	one.wantAlone()
	two.wantAlone()
}
