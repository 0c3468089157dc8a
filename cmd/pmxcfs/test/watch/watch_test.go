package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/internal/testutil"
	"pmxcfs/status/ipc"
	"pmxcfs/status/metrics/metricstest"
)

// TestPrometheusWatchesACluster has one cluster and one Prometheus, on node1, which the
// network is taken from in between.
func TestPrometheusWatchesACluster(t *testing.T) {
	c := labtest.Hosts(t, lab.New(t, 3))
	for _, n := range c.Nodes {
		n.Flags = []string{"--metrics-listen", "0.0.0.0:" + port}
	}
	c.Start()
	p := startPrometheus(t, c, c.Node(1))
	p.wants("all are scraped", `up`, everywhere(1, c.Nodes...))
	p.wants("all are ready", `pmxcfs_ready`, everywhere(1, c.Nodes...))
	p.wantAlerts("nothing is wrong", nil)

	for _, s := range []struct {
		name string
		run  func(t *testing.T, c *cluster, p *prometheus)
	}{
		{"EveryChangeIsCountedOnEveryNode", countsAgree},
		{"WhatIsGivenIsOnTheListAndPassesPromtool", givenIsListed},
		{"APartitionIsToldAndItsEndToo", partition},
		{"AKilledDaemonIsToldAndItsReturnToo", kill},
		{"ACorosyncThatEndsIsToldAndItsReturnToo", corosyncEnds},
	} {
		ok := t.Run(s.name, func(t *testing.T) {
			p.t = t
			s.run(t, c.In(t), p)
		})
		p.t = t
		c.In(t)
		if !ok {
			t.Fatal("the cluster is not as the next test needs it")
		}
	}
}

// countsAgree makes so many changes on each node, and finds them counted on each.
func countsAgree(t *testing.T, c *cluster, p *prometheus) {
	c.Node(1).Mkdir("ha")
	c.Node(1).Mkdir("nodes/" + c.Node(1).String() + "/qemu-server")
	for _, n := range c.Nodes {
		n.WantDir("ha")
		n.WantDir("nodes/node1/qemu-server")
	}
	ask := func(expr string, labels ...string) map[string]float64 {
		t.Helper()
		m, err := p.values(expr, labels...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	// What was counted before must have been scraped before, or a change might be
	// taken for one of ours.
	f, err := metricstest.Read(strings.NewReader(scrape(c.Node(1))))
	c.Node(1).Must(err)
	version, _ := f.Value("pmxcfs_database_version")
	p.wants("all are scraped at the present version", `pmxcfs_database_version`, everywhere(version, c.Nodes...))
	const byNode = `pmxcfs_node_changes_total`
	const byClass = `sum by (instance, class) (pmxcfs_changes_total{operation=~"create|write"})`
	const delivered = `sum by (instance) (pmxcfs_change_delivery_duration_seconds_count{operation=~"create|write"})`
	const stored = `sum by (instance) (pmxcfs_change_commit_duration_seconds_count{operation=~"create|write"})`
	const bytes = `pmxcfs_change_bytes_total`
	beforeNode, beforeClass := ask(byNode, "instance", "node"), ask(byClass, "instance", "class")
	beforeDelivered, beforeStored, beforeBytes := ask(delivered, "instance"), ask(stored, "instance"), ask(bytes, "instance")

	began := time.Now()
	counts := []int{30, 20, 10}
	total := 0
	for i, n := range c.Nodes {
		for k := range counts[i] {
			path := fmt.Sprintf("ha/%s-%d", n, k)
			if k%2 == 0 {
				path = fmt.Sprintf("nodes/node1/qemu-server/%d.conf", 1000*(i+1)+k)
			}
			n.Write(path, "0123456789") // a create and a write
			total++
		}
	}
	for i, n := range c.Nodes {
		want := map[string]float64{}
		for j := range c.Nodes {
			want[c.Node(j+1).String()] = float64(2 * counts[j])
		}
		at := target(n)
		testutil.Eventually(t, "the counts of "+n.String(), func() error {
			var errs []error
			check := func(what string, got, want float64) {
				if got != want {
					errs = append(errs, fmt.Errorf("%s: %v, want %v", what, got, want))
				}
			}
			after := ask(byNode, "instance", "node")
			for name, w := range want {
				check("changes of "+name, after[at+" "+name]-beforeNode[at+" "+name], w)
			}
			class := ask(byClass, "instance", "class")
			check("of guests", class[at+" guest"]-beforeClass[at+" guest"], float64(total))
			check("of ha", class[at+" ha"]-beforeClass[at+" ha"], float64(total))
			check("own deliveries", ask(delivered, "instance")[at]-beforeDelivered[at], float64(2*counts[i]))
			check("stored", ask(stored, "instance")[at]-beforeStored[at], float64(2*total))
			check("bytes", ask(bytes, "instance")[at]-beforeBytes[at], float64(10*total))
			return errors.Join(errs...)
		})
	}
	// What Prometheus makes of it: a rate over so many seconds is so many changes. The
	// window reaches back before the writing, and a rate is extrapolated.
	window := int(time.Since(began).Seconds()) + 30
	got := ask(fmt.Sprintf(`sum by (instance) (increase(pmxcfs_changes_total{class="ha",operation="write"}[%ds]))`, window), "instance")
	for _, n := range c.Nodes {
		if v := got[target(n)]; v < float64(total/2)*0.9 || v > float64(total/2)*1.5 {
			t.Errorf("an increase of %v on %s, want about %d", v, n, total/2)
		}
	}
	p.wants("all have one version", `pmxcfs_database_version - on () group_left () max(pmxcfs_database_version)`, everywhere(0, c.Nodes...))
	list, err := p.query(`histogram_quantile(0.5, sum by (instance, le) (rate(pmxcfs_fuse_request_duration_seconds_bucket{operation="write"}[1m])))`)
	if err != nil || len(list) != len(c.Nodes) {
		t.Errorf("medians: %v, %v", list, err)
	}
}

// givenIsListed compares what each node gives with the golden list.
func givenIsListed(t *testing.T, c *cluster, p *prometheus) {
	for _, n := range c.Nodes {
		// An error of each kind, whose series begin with it.
		n.Mkdir("full-" + n.String())
		n.Write("full-"+n.String()+"/x", "")
		if err := syscall.Rmdir(n.Path("full-" + n.String())); !errors.Is(err, syscall.ENOTEMPTY) {
			t.Errorf("rmdir: %v", err)
		}
		r := &labtest.Request{Op: ipc.OpGetConfig, Data: "no/such\x00"}
		n.Ask(r)
		if r.Errno != syscall.ENOENT {
			t.Errorf("a missing file: %v", r.Errno)
		}
		var text string
		n.Eventually("everything is given", func() error {
			text = scrape(n)
			f, err := metricstest.Read(strings.NewReader(text))
			if err != nil {
				return err
			}
			got, want := f.List(), metricstest.Golden()
			for _, line := range want {
				if !slices.Contains(got, line) { // peers tell now and then
					return fmt.Errorf("%q is not given", line)
				}
			}
			for _, line := range got {
				if !slices.Contains(want, line) {
					return fmt.Errorf("%q is not on the list", line)
				}
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, p.promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: promtool check metrics: %v\n%s", n, err, out)
		}
	}
}

// partition cuts node1, Prometheus with it, off from the others.
func partition(t *testing.T, c *cluster, p *prometheus) {
	one, rest := c.Node(1), c.Others(c.Node(1))
	caughtUp, err := p.values(`pmxcfs_sync_catch_ups_total`, "instance")
	one.Must(err)
	const timed = `sum by (instance) (pmxcfs_group_sync_duration_seconds_count{group="dcdb"})`
	timedBefore, err := p.values(timed, "instance")
	one.Must(err)
	one.Must(c.Lab.Cut(1))
	p.wantAlerts("a node is alone", []string{
		"PmxcfsNoQuorum " + target(one), "PmxcfsDown " + target(rest[0]), "PmxcfsDown " + target(rest[1]),
	})
	p.wants("it says so", `pmxcfs_not_ready{reason="not_quorate"}`, everywhere(1, one))
	p.wants("and does not take changes", `pmxcfs_writable`, everywhere(0, one))
	if err := os.WriteFile(one.Path("refused"), nil, 0o640); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a change without quorum: %v", err)
	}
	p.wants("a refused change is counted", `pmxcfs_change_failures_total{reason="not_quorate"} > bool 0`, everywhere(1, one))
	rest[0].WantWritable()
	for k := range 50 {
		rest[0].Write(fmt.Sprintf("during-%d", k), "partition")
	}
	one.Must(c.Lab.Heal())
	c.WantTogether(c.Nodes...)
	one.WantFile("during-49", "partition")
	p.wants("all are ready", `pmxcfs_ready`, everywhere(1, c.Nodes...))
	p.wantAlerts("all is well again", nil)
	p.wants("it was brought up to date", `pmxcfs_sync_catch_ups_total`, map[string]float64{
		target(one): caughtUp[target(one)] + 1, target(rest[0]): caughtUp[target(rest[0])], target(rest[1]): caughtUp[target(rest[1])],
	})
	for unit, least := range map[string]int{"entries": 50, "bytes": 3000} {
		p.wants("what it received is counted by the reason, "+unit, fmt.Sprintf(
			`pmxcfs_sync_%s_total{direction="received",reason="own_join"} + on (instance) pmxcfs_sync_%[1]s_total{direction="received",reason="member_joined"} >= bool %d`,
			unit, least), map[string]float64{target(one): 1, target(rest[0]): 0, target(rest[1]): 0})
	}
	testutil.Eventually(t, "the synchronisation was timed", func() error {
		now, err := p.values(timed, "instance")
		for _, n := range c.Nodes {
			if err == nil && now[target(n)] <= timedBefore[target(n)] {
				err = fmt.Errorf("%s: %v after %v", n, now, timedBefore)
			}
		}
		return err
	})
}

// kill ends a daemon as nothing but SIGKILL does, and starts it again.
func kill(t *testing.T, c *cluster, p *prometheus) {
	one, two, three := c.Node(1), c.Node(2), c.Node(3)
	three.Kill()
	p.wantAlerts("a daemon is gone", []string{
		"PmxcfsDown " + target(three), "PmxcfsMemberMissing " + target(one), "PmxcfsMemberMissing " + target(two),
	})
	for k := range 20 {
		one.Write(fmt.Sprintf("meanwhile-%d", k), "without it")
	}
	three.Start()
	three.WantFile("meanwhile-19", "without it")
	p.wants("all are ready", `pmxcfs_ready`, everywhere(1, c.Nodes...))
	p.wantAlerts("all is well again", nil)
	p.wants("it counts its own joining", `pmxcfs_group_syncs_total{group="dcdb",reason="own_join"}`+
		` and on (instance) pmxcfs_cluster_mode{instance="`+target(three)+`"}`, everywhere(1, three))
	p.wants("all have one version", `pmxcfs_database_version - on () group_left () max(pmxcfs_database_version)`, everywhere(0, c.Nodes...))
}

// corosyncEnds takes a node's corosync away from its daemon.
func corosyncEnds(t *testing.T, c *cluster, p *prometheus) {
	one, two, three := c.Node(1), c.Node(2), c.Node(3)
	wantReady(three, "200 OK", "")
	three.Must(three.Host.StopCorosync())
	p.wantAlerts("a node is in no group", []string{
		"PmxcfsNotSynced " + target(three), "PmxcfsNoQuorum " + target(three),
		"PmxcfsMemberMissing " + target(one), "PmxcfsMemberMissing " + target(two),
	})
	wantReady(three, "503 Service Unavailable", "corosync")
	wantReady(one, "200 OK", "")
	three.Must(three.Host.StartCorosync())
	c.WantTogether(c.Nodes...)
	wantReady(three, "200 OK", "")
	p.wants("all are ready", `pmxcfs_ready`, everywhere(1, c.Nodes...))
	p.wantAlerts("all is well again", nil)
}

// wantReady waits until /readyz, asked by TCP on the node, answers with a status and says something.
func wantReady(n *node, status, says string) {
	n.T.Helper()
	n.Eventually("/readyz answers "+status, func() error {
		out, err := n.Host.Exec(n.T.Context(), "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/"+port+
			`; printf 'GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3; cat <&3`)
		if err == nil && (!strings.HasPrefix(string(out), "HTTP/1.0 "+status) || !strings.Contains(string(out), says)) {
			err = fmt.Errorf("it answers %s", out)
		}
		return err
	})
}
