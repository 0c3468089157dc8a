package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// journald is a journal that listens where the daemon looks for it.
type journald struct {
	mu      sync.Mutex
	entries []map[string]string
}

// newJournald puts one in place of the host's /run, which the daemons of this test
// then have not.
func newJournald(t *testing.T) *journald {
	t.Helper()
	needLab(t)
	must(t, syscall.Mount("tmpfs", "/run", "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, syscall.Unmount("/run", syscall.MNT_DETACH)) })
	must(t, os.MkdirAll("/run/systemd/journal", 0o755))
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/systemd/journal/socket", Net: "unixgram"})
	must(t, err)
	j, done := &journald{}, make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1<<20); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			entry := map[string]string{}
			for line := range strings.Lines(string(b[:n])) {
				name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				entry[name] = value
			}
			j.mu.Lock()
			j.entries = append(j.entries, entry)
			j.mu.Unlock()
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return j
}

// about returns the entries about any of some events.
func (j *journald) about(events ...string) (list []map[string]string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if slices.Contains(events, e["PMXCFS_EVENT"]) {
			list = append(list, e)
		}
	}
	return list
}

// count returns how many entries there are.
func (j *journald) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries)
}

func TestJournalHasEventsWithTheirFields(t *testing.T) {
	j := newJournald(t)
	n, f := onFaultFS(t)
	n.startOn(f)
	f.fail(failWrites(syscall.ENOSPC))
	if err := os.Mkdir(n.path("d"), 0o755); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	f.fail(nil)
	n.mkdir("d")
	n.eventually("the journal says that the database is well", func() bool { return len(j.about("database-recovered")) == 1 })
	n.stop()
	n.eventually("the journal says that the daemon stops", func() bool { return len(j.about("daemon-stopping")) == 1 })
	for event, want := range map[string]map[string]string{
		"daemon-up":          {"PRIORITY": "5", "PMXCFS_PATH": n.mount, "PMXCFS_NODE": "node1", "PMXCFS_DOMAIN": "main", "PMXCFS_MODE": "local"},
		"disk-full":          {"PRIORITY": "3", "ERRNO": strconv.Itoa(int(syscall.ENOSPC)), "PMXCFS_DOMAIN": "database", "PMXCFS_NODE": "node1", "PMXCFS_CHANGES": "2"},
		"database-recovered": {"PRIORITY": "5", "PMXCFS_FAILED": "1"},
		"daemon-stopping":    {"PRIORITY": "5", "PMXCFS_SIGNAL": "terminated", "PMXCFS_PATH": n.mount},
	} {
		list := j.about(event)
		if len(list) != 1 {
			t.Errorf("%d entries about %s", len(list), event)
			continue
		}
		for name, value := range want {
			if list[0][name] != value {
				t.Errorf("%s: %s is %q, want %q", event, name, list[0][name], value)
			}
		}
		if len(list[0]["MESSAGE_ID"]) != 32 {
			t.Errorf("%s: MESSAGE_ID is %q", event, list[0]["MESSAGE_ID"])
		}
	}
}

// TestClientsInALoopDoNotFloodTheJournal has a disk come and go all the time, while
// a client writes on.
func TestClientsInALoopDoNotFloodTheJournal(t *testing.T) {
	j := newJournald(t)
	n, f := onFaultFS(t)
	n.startOn(f)
	const rounds = 300
	before, begin := j.count(), time.Now()
	for i := range rounds {
		f.fail(failWrites(syscall.ENOSPC))
		if err := os.Mkdir(n.path("no"), 0o755); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		f.fail(nil)
		n.mkdir(fmt.Sprint("d", i))
	}
	took := time.Since(begin)
	if k := j.count() - before; k < 2 || k > 40+4*int(took.Seconds()) {
		t.Errorf("%d rounds of failing and working again make %d entries in %v", rounds, k, took)
	}
	n.stop()
	// They tell of one state, and so are counted as one.
	n.eventually("all are accounted for, and the last word is true", func() bool {
		all, last := 0, ""
		for _, e := range j.about("disk-full", "database-recovered") {
			k, _ := strconv.Atoi(e["PMXCFS_SUPPRESSED"])
			all, last = all+1+k, e["PMXCFS_EVENT"]
		}
		return all == 2*rounds && last == "database-recovered"
	})
}

func TestNormalUseIsNotLogged(t *testing.T) {
	j := newJournald(t)
	n := newInstance(t)
	n.start()
	n.eventually("it is up", func() bool { return len(j.about("daemon-up")) == 1 })
	before := j.count()
	for last := -1; last != before; before = j.count() { // what else a start has to say
		last = before
		time.Sleep(time.Second)
	}
	n.mkdir("d")
	for i := range 200 {
		n.write("d/file", strconv.Itoa(i))
		n.wantContent("d/file", strconv.Itoa(i))
		_, _ = os.ReadFile(n.path("nothing"))
	}
	must(t, os.Rename(n.path("d/file"), n.path("d/moved")))
	must(t, os.RemoveAll(n.path("d")))
	if k := j.count() - before; k > 0 {
		t.Errorf("normal use makes %d entries", k)
	}
	n.stop()
}

// packageExample is what Debian's corosync package installs, less its comments.
const packageExample = `totem {
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

// TestOnlyAClustersConfigurationMakesAFreshHostItsMember starts on hosts without a
// database.
func TestOnlyAClustersConfigurationMakesAFreshHostItsMember(t *testing.T) {
	for _, c := range []struct {
		name, conf string
		mode       string
	}{
		{"the example of the package", packageExample, "local"},
		{"none", "none", "local"},
		{"an empty file", "", "cluster"},
		{"a stray brace before the example", "garbage {\n" + packageExample, "cluster"},
		{"a stray brace before a cluster's", "garbage {\n" + strings.NewReplacer("version: 2", "version: 2\n\tconfig_version: 3", "127.0.0.1", "192.0.2.1").Replace(packageExample), "cluster"},
		{"a cluster's", strings.NewReplacer("version: 2", "version: 2\n\tconfig_version: 3", "127.0.0.1", "192.0.2.1").Replace(packageExample), "cluster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJournald(t)
			n := newInstance(t)
			conf := filepath.Join(n.root, "etc/corosync/corosync.conf")
			if c.conf != "none" {
				must(t, os.MkdirAll(filepath.Dir(conf), 0o755))
				must(t, os.WriteFile(conf, []byte(c.conf), 0o644))
			}
			for range 2 { // the second start makes no difference
				n.launchArgs("--foreground", "--root", n.root, "--node-name", "node1", "--node-address", "192.0.2.1")
				n.waitUp()
				n.eventually("the daemon is up", func() bool { return len(j.about("daemon-up")) > 0 })
				if got := j.about("daemon-up")[0]["PMXCFS_MODE"]; got != c.mode {
					t.Errorf("it is in %s mode, want %s", got, c.mode)
				}
				if err := os.Mkdir(n.path("d"), 0o755); (err == nil || errors.Is(err, os.ErrExist)) != (c.mode == "local") {
					t.Errorf("a change answers %v", err)
				}
				n.stop()
			}
			if b, err := os.ReadFile(conf); c.conf != "none" && (err != nil || string(b) != c.conf) {
				t.Errorf("the host's file is another: %q, %v", b, err)
			}
			ignored := len(j.about("corosync-conf-ignored"))
			if want := c.mode == "local" && c.conf != "none"; (ignored == 1) != want {
				t.Errorf("%d entries about a file that is ignored", ignored)
			}
			failed := len(j.about("corosync-conf-failed"))
			if want := strings.HasPrefix(c.conf, "garbage") || c.conf == ""; (failed > 0) != want {
				t.Errorf("%d entries about a file that can't be used", failed)
			}
		})
	}
}
