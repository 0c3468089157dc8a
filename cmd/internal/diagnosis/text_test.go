package diagnosis

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmxcfs/memdb/dcdb"
	"pmxcfs/status/health"
	"pmxcfs/status/inspect"
)

var update = flag.Bool("update", false, "write the frozen outputs anew")

// golden compares what is written with what is frozen, in colour and without.
func golden(t *testing.T, name string, write func(*Painter)) {
	t.Helper()
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	for suffix, color := range map[string]bool{".txt": false, ".color.txt": true} {
		var b bytes.Buffer
		write(&Painter{Out: &b, Color: color})
		path := filepath.Join("testdata", name+suffix)
		if *update {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		frozen, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(frozen) {
			t.Errorf("%s:\n%s\nfrozen:\n%s", path, b.String(), frozen)
		}
		if strings.Contains(b.String(), "\x1b[") != color {
			t.Errorf("%s: colour is %v", path, !color)
		}
	}
}

func TestStatusIsWrittenForPeople(t *testing.T) {
	o := well()
	o.Findings, o.Verdict = judge(o), "fine"
	golden(t, "status-fine", func(p *Painter) { p.Overview(o) })

	o = well()
	o.Status.NotReady = []health.Reason{{Code: health.NotQuorate, Text: "the node has no quorum: everything is read-only"}}
	o.Corosync.Quorum = &Quorum{Votes: 1, Expected: 3, Needed: 2}
	for i := 1; i < 3; i++ {
		o.Corosync.Nodes[i].State = "dead"
		o.Status.Cluster.Members[i].Online, o.Status.Cluster.Members[i].InDatabase, o.Status.Cluster.Members[i].Peer = false, false, nil
	}
	o.Status.Cluster.Groups[0].Mode, o.Status.Cluster.Groups[0].Waiting = "start-sync", 2
	o.Status.Database.Error = "database or disk is full"
	o.Status.Conf = &inspect.Conf{Tree: 4, Host: 5, Running: 3}
	for i, name := range []string{"expired", "held", "foreign\x1b[31m"} {
		o.Status.Locks = append(o.Status.Locks, inspect.Lock{Name: name, Holder: map[int]string{0: "node2", 1: "node1"}[i], ID: uint32(9 - i), Taken: now.Add(-time.Duration(200-90*i) * time.Second), Since: now.Add(-time.Duration(200-90*i) * time.Second), Expired: i == 0})
	}
	o.Status.Errors = []inspect.Problem{
		{First: now.Add(-time.Hour), Last: now.Add(-time.Second), Count: 12, Level: "error", Domain: "database", Text: "storing a change failed: \x1b]0;evil\a", Remedy: "make room"},
		{First: now.Add(-time.Hour), Last: now.Add(-time.Hour), Count: 1, Level: "warning", Domain: "quorum", Text: "node lost quorum"},
	}
	o.Findings = judge(o)
	o.Verdict = verdict(o.Findings)
	golden(t, "status-broken", func(p *Painter) { p.Overview(o) })
}

func TestWhatASplitHasCostIsWrittenForPeople(t *testing.T) {
	o := well()
	for i, k := range []Kept{
		{Files: 3, Empty: 1, Example: "nodes/node1/qemu-server/500.conf"}, {Files: 1, Example: "a file's\x1b name"},
		{Empty: 2, Example: "nodes/new"}, {Files: 1, Example: "f"}, {Files: 1, Example: "g"},
	} {
		k.Time = now.Add(-time.Duration(i) * time.Hour)
		k.Dir = "/var/lib/pve-cluster/split/" + k.Time.Format(dcdb.LostName) + "-1"
		o.Kept = append(o.Kept, k)
	}
	o.Findings = judge(o)
	o.Verdict = verdict(o.Findings)
	golden(t, "status-split", func(p *Painter) { p.Overview(o) })
	golden(t, "doctor-split", func(p *Painter) { p.Examination(&Examination{Verdict: o.Verdict, Findings: o.Findings}) })
}

func TestComparisonIsWrittenForPeople(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	c := &inspect.Comparison{
		Nodes: []inspect.ComparedNode{
			{Name: "node1", ID: 1, State: inspect.NodeCompared, Software: "1.0", Mode: "synced", Quorate: true, Version: 7, Digest: digest},
			{Name: "node2", ID: 2, State: inspect.NodeCompared, Software: "1.0", Mode: "synced", Quorate: true, Version: 7, Digest: "f" + digest[1:]},
			{Name: "node3", ID: 3, State: inspect.NodeForeign, Reason: "it is in the database's group, but answers no comparison (a stock daemon?)"},
		},
		Omitted: true, AtLeast: 600,
		Differences: []inspect.Difference{
			{Inode: 3, Path: "/storage.cfg", What: []string{"content", "mtime"}, Have: map[string]*inspect.Version{
				"node1": {Path: "/storage.cfg", Type: "file", Size: 5, Version: 6, Writer: 1, MTime: now, Content: digest[:32]},
				"node2": {Path: "/storage.cfg", Type: "file", Size: 6, Version: 6, Writer: 1, MTime: now.Add(time.Second), Content: digest[1:33]},
			}},
			{Inode: 4, Path: "/nodes", What: []string{"missing"}, Have: map[string]*inspect.Version{
				"node1": nil, "node2": {Path: "/nodes", Type: "directory", Version: 6, Writer: 1, MTime: now},
			}},
		},
	}
	golden(t, "compare-different", func(p *Painter) { p.Comparison(c) })
	if got := CompareExit(c); got != ExitBroken {
		t.Errorf("status %d", got)
	}
	passing := *c
	passing.Differences, passing.Omitted = nil, false
	golden(t, "compare-passing", func(p *Painter) { p.Comparison(&passing) })
	if got := CompareExit(&passing); got != ExitUnknown {
		t.Errorf("no difference stays: status %d", got)
	}
	c.Equal = true
	if got := CompareExit(c); got != ExitAttention {
		t.Errorf("equal, not complete: status %d", got)
	}
	c.Complete = true
	if got := CompareExit(c); got != ExitFine {
		t.Errorf("equal: status %d", got)
	}
	c.Nodes[1].State = inspect.NodeSilent
	if got := CompareExit(c); got != ExitUnknown {
		t.Errorf("one node of several: status %d", got)
	}
}

func TestLockWarningDependsOnExpiry(t *testing.T) {
	golden(t, "lock-warning", func(p *Painter) {
		p.LockWarning(&inspect.Lock{Name: "a", Holder: "node2", Since: now.Add(-30 * time.Second)}, now)
		p.LockWarning(&inspect.Lock{Name: "b", ID: 7, Since: now.Add(-time.Hour), Expired: true}, now)
	})
}

func TestExaminationIsWrittenForPeople(t *testing.T) {
	golden(t, "doctor", func(p *Painter) {
		p.Examination(&Examination{Verdict: "broken", Findings: []Finding{
			{"host name", OK, "node1 resolves to 10.0.0.1", ""}, {"fuse", Failure, "the kernel's FUSE can't be used", "load it: modprobe fuse"},
			{"clock", Warning, "the clock is not synchronised", "run a time service"}, {"rrd", Info, "rrdcached is not there", ""},
		}})
	})
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min", 2 * time.Hour: "2 h 0 min", 26*time.Hour + 5*time.Minute: "26 h 5 min", 72 * time.Hour: "3 days", -5 * time.Second: "5 s"} {
		if got := duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 10: "1.0 KiB", 3 << 20: "3.0 MiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := clean("a\x1b[31m\n\xff\u2028é"); got != "a?[31m???é" {
		t.Errorf("%q", got)
	}
}
