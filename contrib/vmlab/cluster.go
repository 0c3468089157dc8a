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

// Cluster gives running hosts, which have corosync installed, one configuration
// and one key, and restarts corosync on them.
func (l *Lab) Cluster(ctx context.Context, hosts ...*Host) error {
	if len(hosts) == 0 {
		return fmt.Errorf("vmlab: a cluster of no hosts")
	}
	if _, err := hosts[0].Exec(ctx, "corosync-keygen", "-l"); err != nil {
		return err
	}
	name, err := hosts[0].Path("/etc/corosync/authkey")
	if err != nil {
		return err
	}
	key, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	for _, h := range hosts {
		if err := h.WriteFile("/etc/corosync/authkey", key, 0o400); err != nil {
			return err
		}
		if err := h.WriteFile("/etc/corosync/corosync.conf", []byte(CorosyncConf("lab", 1, hosts...)), 0o644); err != nil {
			return err
		}
		if _, err := h.Exec(ctx, "systemctl", "enable", "--quiet", "corosync"); err != nil {
			return err
		}
	}
	for _, h := range hosts { // none waits for the others
		if _, err := h.Exec(ctx, "systemctl", "restart", "--no-block", "corosync"); err != nil {
			return err
		}
	}
	return nil
}
