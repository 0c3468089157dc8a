package diagnosis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/status/health"
	"pmxcfs/status/inspect"
)

var now = time.Date(2026, 11, 25, 20, 0, 0, 0, time.UTC)

// well is the overview of a node of a cluster of three to which nothing can be said.
func well() *Overview {
	peer := func() *inspect.Peer {
		return &inspect.Peer{Software: "1.0", Mode: "synced", Quorate: true, Version: 1234, Heard: now.Add(-4 * time.Second)}
	}
	o := &Overview{
		Time:   now,
		Daemon: Daemon{Answers: true, PID: 77, Running: true, Locked: true},
		Mount:  Mount{Path: "/etc/pve", Mounts: 1, Answers: true},
		Status: &inspect.Status{
			Time: now, Mode: inspect.ModeCluster, Ready: true,
			Daemon: inspect.Daemon{PID: 77, Version: "1.0", Started: now.Add(-26 * time.Hour), MountPoint: "/etc/pve"},
			Node:   inspect.Node{Name: "node1", ID: 1, Address: "10.0.0.1"},
			Cluster: &inspect.Cluster{Known: true, Name: "lab", Version: 4, Quorate: true,
				Groups: []inspect.Group{{Name: "pve_dcdb_v1", Connected: true, Mode: "synced", Members: 3, Synced: 3}, {Name: "pve_kvstore_v1", Connected: true, Mode: "synced", Members: 3, Synced: 3}}},
			Database: inspect.Database{Path: "/var/lib/pve-cluster/config.db", Version: 1234, LastWriter: 2, LastChange: now.Add(-time.Minute),
				Entries: 412, MaxEntries: memdb.MaxEntries, Bytes: 1 << 20, MaxBytes: memdb.MaxTreeBytes, FileBytes: 2 << 20, LogBytes: 300 << 10, Commits: 99},
			Conf: &inspect.Conf{Tree: 4, Host: 4, Running: 4, Same: true},
		},
		Corosync: &Corosync{Name: "lab", Config: 4, Self: 1, Quorum: &Quorum{Quorate: true, Votes: 3, Expected: 3, Needed: 2}},
	}
	for i := range 3 {
		id, name, address := uint32(i+1), fmt.Sprintf("node%d", i+1), fmt.Sprintf("10.0.0.%d", i+1)
		o.Status.Cluster.Members = append(o.Status.Cluster.Members, inspect.Member{Name: name, ID: id, Address: address, Self: i == 0, Online: true, InDatabase: true, Peer: peer()})
		o.Corosync.Nodes = append(o.Corosync.Nodes, CorosyncNode{ID: id, Name: name, Address: address, Votes: 1, State: "member"})
	}
	return o
}

// TestJudge breaks one thing at a time.
func TestJudge(t *testing.T) {
	peer2 := func(o *Overview) *inspect.Peer { return o.Status.Cluster.Members[1].Peer }
	for _, tt := range []struct {
		name string
		what func(o *Overview)
		want string // severity and check of the first finding; empty: none
		exit int
	}{
		{"nothing", func(*Overview) {}, "", ExitFine},
		{"no daemon", func(o *Overview) { o.Status, o.Daemon, o.Offline, o.Mount = nil, Daemon{}, &Offline{}, Mount{} }, "error daemon", ExitBroken},
		{"daemon stuck", func(o *Overview) { o.Status, o.Daemon.Answers, o.Offline = nil, false, &Offline{} }, "error daemon", ExitBroken},
		{"daemon starts", func(o *Overview) { o.Status, o.Daemon, o.Offline = nil, Daemon{Locked: true}, &Offline{} }, "error daemon", ExitBroken},
		{"left mount", func(o *Overview) { o.Status, o.Daemon, o.Offline = nil, Daemon{PID: 5}, &Offline{} }, "error daemon", ExitBroken},
		{"this node is behind", func(o *Overview) { peer2(o).Lag = -50000 }, "warning members", ExitAttention},
		{"another is behind", func(o *Overview) { peer2(o).Lag = 50000 }, "warning members", ExitAttention},
		{"one in the database's group only", func(o *Overview) { o.Status.Cluster.Members[1].Online = false }, "warning members", ExitAttention},
		{"two mounts", func(o *Overview) { o.Mount.Mounts = 2 }, "warning mount", ExitAttention},
		{"mount hangs", func(o *Overview) { o.Mount.Answers = false }, "error mount", ExitBroken},
		{"elsewhere mounted", func(o *Overview) { o.Mount = Mount{Path: "/etc/pve"} }, "error mount", ExitBroken},
		{"not quorate", func(o *Overview) {
			o.Status.NotReady = []health.Reason{{Code: health.NotQuorate, Text: "no quorum"}}
		}, "error readiness", ExitBroken},
		{"tree nearly full", func(o *Overview) { o.Status.Database.Entries = memdb.MaxEntries - 1 }, "warning database", ExitAttention},
		{"many bytes", func(o *Overview) { o.Status.Database.Bytes = 120 << 20 }, "warning database", ExitAttention},
		{"long log", func(o *Overview) { o.Status.Database.LogBytes = 100 << 20 }, "warning database", ExitAttention},
		{"host's conf newer", func(o *Overview) { o.Status.Conf.Host = 5 }, "warning corosync.conf", ExitAttention},
		{"host's conf other", func(o *Overview) { o.Status.Conf.Same = false }, "warning corosync.conf", ExitAttention},
		{"conf not loaded", func(o *Overview) { o.Status.Conf.Running = 3 }, "warning corosync.conf", ExitAttention},
		{"conf unusable", func(o *Overview) { o.Status.Conf.Tree = 0 }, "warning corosync.conf", ExitAttention},
		{"conf with a stray brace", func(o *Overview) { o.Status.Conf.Mistake = "line 64: the section is not closed" }, "error corosync.conf", ExitBroken},
		{"files lost by a split", func(o *Overview) { o.Kept = []Kept{{Dir: "/d", Files: 1, Example: "f"}} }, "warning split", ExitAttention},
		{"what a split has cost can't be seen", func(o *Overview) { o.KeptError = "no" }, "info split", ExitFine},
		{"expired lock", func(o *Overview) { o.Status.Locks = []inspect.Lock{{Name: "a", Expired: true}} }, "info locks", ExitFine},
		{"error of today", func(o *Overview) { o.Status.Errors = []inspect.Problem{{Level: "error", Last: now}} }, "warning log", ExitAttention},
		{"error of yesterday", func(o *Overview) {
			o.Status.Errors = []inspect.Problem{{Level: "error", Last: now.Add(-23 * time.Hour)}, {Level: "warning", Last: now}}
		}, "", ExitFine},
		{"no corosync", func(o *Overview) { o.Corosync = &Corosync{Error: "gone"} }, "error corosync", ExitBroken},
		{"no corosync, as the daemon says", func(o *Overview) {
			o.Corosync = &Corosync{Error: "gone"}
			o.Status.NotReady = []health.Reason{{Code: health.NotConnected, Text: "gone"}}
		}, "error readiness", ExitBroken},
		{"node offline", func(o *Overview) { o.Corosync.Nodes[1].State = "dead" }, "warning members", ExitAttention},
		{"no margin", func(o *Overview) { o.Corosync.Quorum.Votes = 2 }, "warning corosync", ExitAttention},
		{"its daemon is away", func(o *Overview) {
			o.Status.Cluster.Members[1].InDatabase, o.Status.Cluster.Members[1].Peer = false, nil
		}, "warning members", ExitAttention},
		{"a stock daemon", func(o *Overview) { o.Status.Cluster.Members[1].Peer = nil }, "info members", ExitFine},
		{"it lags", func(o *Overview) { peer2(o).Lag = 5000 }, "warning members", ExitAttention},
		{"it syncs", func(o *Overview) { peer2(o).Mode = "update" }, "warning members", ExitAttention},
		{"it is silent", func(o *Overview) { peer2(o).Heard = now.Add(-time.Minute) }, "warning members", ExitAttention},
		{"its clock", func(o *Overview) { peer2(o).ClockOffset = -3 }, "warning members", ExitAttention},
		{"versions", func(o *Overview) { peer2(o).Software = "2.0" }, "info members", ExitFine},
	} {
		o := well()
		tt.what(o)
		list := judge(o)
		got := ""
		if len(list) > 0 {
			got = string(list[0].Severity) + " " + list[0].Check
		}
		if got != tt.want || Exit(list) != tt.exit {
			t.Errorf("%s: %q and status %d, want %q and %d: %+v", tt.name, got, Exit(list), tt.want, tt.exit, list)
		}
		if slices.ContainsFunc(list, func(f Finding) bool { return f.Severity == Failure && f.Text == "" }) {
			t.Errorf("%s: a finding without words: %+v", tt.name, list)
		}
	}
}
