package packages

import (
	"fmt"
	"testing"

	"pmxcfs/internal/testutil"
)

// example is what Debian's corosync package comes with, in what counts.
const example = `totem {
	version: 2
	cluster_name: debian
	crypto_cipher: none
	crypto_hash: none
}
logging {
	to_syslog: yes
}
quorum {
	provider: corosync_votequorum
}
nodelist {
	node {
		name: node1
		nodeid: 1
		ring0_addr: 127.0.0.1
	}
}
`

// fresh makes the host one on which the package has just been installed, beside Debian's
// corosync with its example.
func (h host) fresh(t *testing.T, r release) {
	t.Helper()
	h.apt(t, "purge", plain)
	h.run(t, "systemctl", "stop", "corosync")
	h.run(t, "systemctl", "disable", "--quiet", "corosync")
	h.run(t, "rm", "-f", "/etc/corosync/authkey")
	if err := h.WriteFile("/etc/corosync/corosync.conf", []byte(example), 0o644); err != nil {
		t.Fatal(err)
	}
	h.run(t, "systemctl", "start", "corosync")
	h.install(t, r)
	h.serves(t, soon, ".debug", "0\n")
}

// recovers does what the documentation says of each disaster.
func (c cluster) recovers(t *testing.T, builds map[string]release) {
	const document = "disaster.md"
	node1, node2, node3 := c.hosts[0], c.hosts[1], c.hosts[2]
	follow(t, document, "When something is lost", node1, c.hosts...)
	t.Run("Database", func(t *testing.T) {
		follow(t, document, "One node's database is lost", node3, c.hosts...)
		c.agree(t, c.hosts...)
	})
	t.Run("Node", func(t *testing.T) {
		node3.fresh(t, builds[node3.Suite()])
		follow(t, document, "A node is lost, and installed anew", node3, c.hosts...)
		c.agree(t, c.hosts...)
		if err := node3.holds("first", "of the cluster\n"); err != nil {
			t.Error(err)
		}
	})
	t.Run("Quorum", func(t *testing.T) {
		for _, h := range []host{node2, node3} {
			if err := h.Crash(within(t, settles)); err != nil {
				t.Fatal(err)
			}
		}
		testutil.EventuallyWithin(t, settles, func() error {
			if err := node1.write("quorum-test", "x"); !readOnly(err) {
				return fmt.Errorf("alone, it answers to a write: %v", err)
			}
			return nil
		})
		follow(t, document, "Quorum is lost", node1, node1)
		node1.mustWrite(t, "while-alone", "kept")
		for _, h := range []host{node2, node3} {
			if err := h.Boot(within(t, settles)); err != nil {
				t.Fatal(err)
			}
		}
		c.agree(t, c.hosts...)
		if err := node3.holds("while-alone", "kept"); err != nil {
			t.Error(err)
		}
	})
	t.Run("Cluster", func(t *testing.T) {
		for _, h := range []host{node2, node3} {
			if err := h.Shutdown(within(t, settles)); err != nil {
				t.Fatal(err)
			}
		}
		node1.fresh(t, builds[node1.Suite()])
		follow(t, document, "The whole cluster is lost", node1, node1)
		if err := node1.holds("first", "of the cluster\n"); err != nil {
			t.Error(err)
		}
	})
}
