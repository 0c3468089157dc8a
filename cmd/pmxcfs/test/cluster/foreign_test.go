package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// example is like what a distribution's corosync package comes with.
const example = `totem {
	version: 2
	cluster_name: debian
	crypto_cipher: none
	crypto_hash: none
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

// TestRestoredDatabaseBesideAForeignCorosync puts a cluster's backup in place on a fresh
// host, where the distribution's corosync runs with its example: this has quorum, of a
// cluster of its own.
func TestRestoredDatabaseBesideAForeignCorosync(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	l, err := lab.Up(lab.Options{Hosts: 1, NoCorosync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Down() })
	c := labtest.Hosts(t, l)
	n := c.Node(1)
	conf := c.Lab.Conf().String()
	mtime := uint32(time.Now().Unix())
	if err := os.MkdirAll(strings.TrimSuffix(n.Database(), "/config.db"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Create(n.Database(), []*memdb.Entry{
		memdb.NewEntry(memdb.RootInode, 0, 2, 1, mtime, memdb.TypeDir, "", nil),
		memdb.NewEntry(2, 0, 2, 1, mtime, memdb.TypeFile, "corosync.conf", []byte(conf)),
	}); err != nil {
		t.Fatal(err)
	}
	confFile := n.Host.Path("/etc/corosync/corosync.conf")
	n.Must(os.WriteFile(confFile, []byte(example), 0o644))
	n.Must(n.Host.StartCorosync())
	n.Start()
	n.Eventually("the daemon says what runs there", func() error {
		if !strings.Contains(n.Log(), `it runs for cluster "debian"`) {
			return fmt.Errorf("the log has:\n%s", n.Log())
		}
		return nil
	})
	time.Sleep(3 * time.Second) // more than one attempt
	if err := os.WriteFile(n.Path("file"), []byte("x"), 0o644); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a write beside a foreign corosync: %v", err)
	}
	if m, err := os.ReadFile(n.Path(".members")); err != nil || strings.Contains(string(m), "debian") {
		t.Errorf(".members (%v):\n%s", err, m)
	}
	for _, command := range []string{"status", "doctor"} {
		out, err := n.Host.Exec(t.Context(), labtest.Program(), command, "--json")
		var x struct {
			Verdict  string
			Findings []struct{ Severity, Text, Remedy string }
		}
		if i := strings.IndexByte(string(out), '{'); i >= 0 {
			_ = json.NewDecoder(strings.NewReader(string(out[i:]))).Decode(&x)
		}
		told := false
		for _, f := range x.Findings {
			told = told || f.Severity == "error" && strings.Contains(f.Text, `cluster "debian"`) && strings.Contains(f.Remedy, "restart corosync")
		}
		if x.Verdict != "broken" || !told {
			t.Errorf("%s (%v) says:\n%s", command, err, out)
		}
	}
	// The remedy. The daemon has put the tree's corosync.conf in place.
	if got, err := os.ReadFile(confFile); err != nil || string(got) != conf {
		t.Fatalf("the host's corosync.conf (%v):\n%s", err, got)
	}
	n.Must(n.Host.StopCorosync())
	n.Must(n.Host.StartCorosync())
	n.WantWritable()
}
