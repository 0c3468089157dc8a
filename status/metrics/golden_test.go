package metrics

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pmxcfs/corosync"
	"pmxcfs/fuse"
	"pmxcfs/status/ipc"
	"pmxcfs/status/metrics/metricstest"
)

var update = flag.Bool("update", false, "write the golden list anew")

func TestMetricsAreThoseOfTheList(t *testing.T) {
	m, _, _ := newNode(t, 10)
	m.FUSE.Failed(fuse.OpWrite, syscall.ENOSPC)
	m.IPC.Failed(ipc.OpLog, syscall.EPERM)
	m.Syncs.Of(ConfigGroup)
	m.Changes.SetNodes(map[corosync.NodeID]string{1: "a"})
	families, err := metricstest.Read(strings.NewReader(scrape(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	got := families.List()
	if *update {
		if err := os.WriteFile("metricstest/golden.txt", []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := metricstest.Golden()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%q is not in the list: metricstest/golden.txt (-update), docs/metrics.md", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%q is in the list and not given", line)
		}
	}
}

// row is a line of a table in docs/metrics.md.
var row = regexp.MustCompile("(?m)^\\| `(pmxcfs_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([a-z_`, ]*) \\| .{10,} \\|$")

func TestEveryMetricIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		labels := strings.Split(strings.NewReplacer("`", "", " ", "").Replace(m[3]), ",")
		slices.Sort(labels)
		documented = append(documented, strings.TrimSpace(m[1]+" "+m[2]+" "+strings.Join(labels, ",")))
	}
	slices.Sort(documented)
	for _, line := range metricstest.Golden() {
		if !slices.Contains(documented, line) {
			t.Errorf("docs/metrics.md lacks a row for %q", line)
		}
	}
	for _, line := range documented {
		if !slices.Contains(metricstest.Golden(), line) {
			t.Errorf("docs/metrics.md has a row for %q, which does not exist so", line)
		}
	}
}
