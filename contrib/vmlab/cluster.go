package vmlab

import (
	"context"
	"fmt"
	"os"
	"strings"

	"pmxcfs/contrib/lab"
)

// CorosyncConf is a corosync.conf(5) for hosts: encrypted, with a key that lies
// beside it.
func CorosyncConf(name string, version int, hosts ...*Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, `totem {
  version: 2
  cluster_name: %s
  config_version: %d
  transport: knet
  crypto_cipher: aes256
  crypto_hash: sha256
}

quorum {
  provider: corosync_votequorum
}

logging {
  to_syslog: yes
  debug: off
}

nodelist {
`, name, version)
	for _, h := range hosts {
		fmt.Fprintf(&b, "  node {\n    name: %s\n    nodeid: %d\n    quorum_votes: 1\n    ring0_addr: %s\n  }\n",
			h.Name(), h.ID(), lab.Address(h.ID()))
	}
	b.WriteString("}\n")
	return b.String()
}

// Cluster makes running hosts that have pve-cluster and corosync installed one
// cluster, in the order of docs/installation.md: the first one's tree becomes
// everybody's. The others' own are deleted where that moves them aside, and the files
// are copied from outside, as hosts have no ssh. It does not wait until they are one.
func (l *Lab) Cluster(ctx context.Context, hosts ...*Host) error {
	if len(hosts) == 0 {
		return fmt.Errorf("vmlab: a cluster of no hosts")
	}
	conf := []byte(CorosyncConf("lab", 1, hosts...))
	first := hosts[0]
	if _, err := first.Exec(ctx, "corosync-keygen", "-l"); err != nil {
		return err
	}
	name, err := first.Path("/etc/corosync/authkey")
	if err != nil {
		return err
	}
	key, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	if err := first.WriteFile("/etc/pve/corosync.conf", conf, 0o640); err != nil {
		return err
	}
	for _, h := range hosts[1:] {
		// Without a database of its own it takes the cluster from the host's
		// corosync.conf, and the tree from the others.
		if _, err := h.Exec(ctx, "systemctl", "stop", "pve-cluster", "corosync"); err != nil {
			return err
		}
		if _, err := h.Exec(ctx, "find", "/var/lib/pve-cluster", "-name", "config.db*", "-delete"); err != nil {
			return err
		}
		if err := h.WriteFile("/etc/corosync/authkey", key, 0o400); err != nil {
			return err
		}
		if err := h.WriteFile("/etc/corosync/corosync.conf", conf, 0o644); err != nil {
			return err
		}
	}
	for _, h := range hosts {
		for _, verb := range [][]string{{"restart", "pve-cluster"}, {"enable", "--quiet", "corosync"}, {"restart", "corosync"}} {
			if _, err := h.Exec(ctx, append([]string{"systemctl"}, verb...)...); err != nil {
				return err
			}
		}
	}
	return nil
}
