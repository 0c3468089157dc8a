package lab

import (
	"fmt"
	"strings"
	"time"
)

// Conf is a corosync.conf for a lab, as far as it varies. corosync.conf(5).
type Conf struct {
	Cluster string        // cluster_name
	Version int           // config_version
	Token   time.Duration // totem token timeout, in whole milliseconds
	Nodes   []int         // node ids, also the last byte of the addresses
	Votes   map[int]int   // quorum_votes by node id; absent: 1
	Fair    bool          // see Options
	Idle    int           // token rotations without a message before the token is held; 0 means corosync's own 30
}

// Address is the IPv4 address of host i.
func Address(i int) string { return fmt.Sprintf("10.99.0.%d", i) }

// Name is the host name of host i.
func Name(i int) string { return fmt.Sprintf("node%d", i) }

// String gives the text of the file.
func (c Conf) String() string {
	var b strings.Builder
	idle := ""
	if c.Idle > 0 {
		idle = fmt.Sprintf("  seqno_unchanged_const: %d\n", c.Idle)
	}
	fmt.Fprintf(&b, `totem {
  version: 2
  cluster_name: %s
  config_version: %d
  transport: knet
  crypto_cipher: none
  crypto_hash: none
  token: %d
%s  interface {
    linknumber: 0
  }
}

quorum {
  provider: corosync_votequorum
}

logging {
  to_logfile: yes
  logfile: /var/log/corosync.log
  to_syslog: no
  to_stderr: no
  timestamp: hires
}

nodelist {
`, c.Cluster, c.Version, c.Token.Milliseconds(), idle)
	for _, n := range c.Nodes {
		votes, ok := c.Votes[n]
		if !ok {
			votes = 1
		}
		fmt.Fprintf(&b, "  node {\n    name: %s\n    nodeid: %d\n    quorum_votes: %d\n    ring0_addr: %s\n  }\n",
			Name(n), n, votes, Address(n))
	}
	b.WriteString("}\n")
	if c.Fair {
		b.WriteString("\nsystem {\n  sched_rr: no\n  priority: 0\n}\n")
	}
	return b.String()
}
