package packages

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/vmlab"
	"pmxcfs/internal/event"
	"pmxcfs/internal/testutil"
)

// cluster is hosts that become one.
type cluster struct {
	lab   *vmlab.Lab
	hosts []host
	name  string // empty: "lab"
}

// settles is how long a cluster may take to see a change of its members: on a machine with
// many times as much to do as it can, where each systemctl takes seconds.
const settles = 5 * time.Minute

// forms makes the cluster in the order of docs/installation.md.
func (c cluster) forms(t *testing.T, builds map[string]release) {
	first := c.hosts[0]
	for _, h := range c.hosts {
		h.install(t, builds[h.Suite()])
		h.serves(t, soon, ".debug", "0\n")
	}
	first.mustWrite(t, "first", "of the cluster\n")

	var members []*vmlab.Host
	for _, h := range c.hosts {
		members = append(members, h.Host)
	}
	if err := c.lab.Cluster(within(t, settles), members...); err != nil {
		t.Fatal(err)
	}
	c.agree(t, c.hosts...)
	for _, h := range c.hosts {
		if got := h.run(t, "cat", "/etc/corosync/corosync.conf"); got != strings.TrimSpace(vmlab.CorosyncConf("lab", 1, members...)) {
			t.Errorf("corosync.conf of %s:\n%s", h.Name(), got)
		}
		if err := h.holds("first", "of the cluster\n"); err != nil {
			t.Error(err)
		}
		h.well(t)
	}
}

// agree waits until what one of these hosts writes is read on the others, each
// way, and each has these as its members.
func (c cluster) agree(t *testing.T, hosts ...host) {
	t.Helper()
	for _, w := range hosts {
		name := "from-" + w.Name()
		text := fmt.Sprintf("%s %d\n", name, time.Now().UnixNano())
		testutil.EventuallyWithin(t, settles, func() error { return w.write(name, text) })
		for _, r := range hosts {
			testutil.EventuallyWithin(t, settles, func() error { return r.holds(name, text) })
		}
	}
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name())
	}
	name := cmp.Or(c.name, "lab")
	want := regexp.MustCompile(`^cluster ` + name + `; quorate; members: ` + strings.Join(names, ", ") + `; synced; version [0-9]+$`)
	for _, h := range hosts {
		testutil.EventuallyWithin(t, settles, func() error {
			members, err := h.read(".members")
			if n := strings.Count(members, `"online": 1`); err != nil || n != len(hosts) {
				return fmt.Errorf("%s: %d of %d members online (%v):\n%s", h.Name(), n, len(hosts), err, members)
			}
			status := h.property(t, unit, "StatusText")
			if !want.MatchString(status) {
				return fmt.Errorf("the status of %s is %q", h.Name(), status)
			}
			return nil
		})
	}
	t.Logf("status: %s", hosts[0].property(t, unit, "StatusText"))
}

// upgrades brings one host after the other to the release, while one of them
// writes.
func (c cluster) upgrades(t *testing.T, builds map[string]release) {
	w := c.hosts[0].load(t)
	w.more(t, 100)
	for _, h := range c.hosts {
		h.install(t, builds[h.Suite()])
		h.serves(t, settles, "first", "of the cluster\n")
		w.more(t, 50)
	}
	n := w.stop(t)
	c.agree(t, c.hosts...)
	for _, h := range c.hosts {
		h.complete(t, n)
		h.well(t)
	}
}

func (c cluster) partitions(t *testing.T) {
	alone, rest := c.hosts[2], c.hosts[:2]
	if err := c.lab.Cut(alone.ID()); err != nil {
		t.Fatal(err)
	}
	testutil.EventuallyWithin(t, settles, func() error {
		if err := alone.write("alone", "x"); !readOnly(err) {
			return fmt.Errorf("a host without quorum answers to a write: %v", err)
		}
		return nil
	})
	testutil.EventuallyWithin(t, settles, func() error {
		if status := alone.property(t, unit, "StatusText"); !strings.Contains(status, "no quorum") {
			return fmt.Errorf("its status is %q", status)
		}
		return nil
	})
	if err := alone.holds("first", "of the cluster\n"); err != nil {
		t.Errorf("reading without quorum: %v", err)
	}
	c.agree(t, rest...)
	if _, err := rest[0].read("alone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was refused is there: %v", err)
	}
	if err := c.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	c.agree(t, c.hosts...)
	for want, fields := range map[event.Event][]string{
		event.QuorumLost:   nil,
		event.QuorumGained: nil,
		event.SyncDone:     {"PMXCFS_GROUP", "PMXCFS_EPOCH", "PMXCFS_MEMBERS", "PMXCFS_SYNCED", "PMXCFS_TOOK_USEC"},
	} {
		entries, err := alone.Journal(within(t, settles), "--boot", "_SYSTEMD_UNIT="+unit, "PMXCFS_EVENT="+string(want))
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			t.Errorf("no entry of the event %s", want)
			continue
		}
		last := entries[len(entries)-1]
		alone.hasFields(t, last, fields...)
		alone.explains(t, last.Field("MESSAGE_ID"), string(want))
	}
	for _, h := range c.hosts {
		h.well(t)
	}
}

// loses has a host go in good order, and one without a word, while the others
// write.
func (c cluster) loses(t *testing.T) {
	for i, how := range []string{"reboot", "crash"} {
		h := c.hosts[1+i]
		rest := append(append([]host(nil), c.hosts[:1+i]...), c.hosts[2+i:]...)
		switch how {
		case "reboot":
			if err := h.Reboot(within(t, settles)); err != nil {
				t.Fatal(err)
			}
		case "crash":
			if err := h.Crash(within(t, settles)); err != nil {
				t.Fatal(err)
			}
			c.agree(t, rest...)
			rest[0].mustWrite(t, "while-away", how)
			if err := h.Boot(within(t, settles)); err != nil {
				t.Fatal(err)
			}
			testutil.EventuallyWithin(t, settles, func() error { return h.holds("while-away", how) })
		}
		c.agree(t, c.hosts...)
		h.order(t)
		h.well(t)
	}
	// One and the same tree, to the byte.
	sums := map[string][]string{}
	for _, h := range c.hosts {
		dir := filepath.Join("/root", "export-"+h.Name())
		h.run(t, "pmxcfs", "db", "export", dir)
		sum := h.sh(t, "cd "+dir+" && find . -type f -exec sha256sum {} + | sort | sha256sum")
		sums[sum] = append(sums[sum], h.Name())
	}
	if len(sums) != 1 {
		t.Errorf("the hosts' trees differ: %v", sums)
	}
}
