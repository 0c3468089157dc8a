package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/memdb"
	"pmxcfs/status/metrics/metricstest"
)

func TestPathsFallIntoClasses(t *testing.T) {
	for path, want := range map[string]string{
		"":                              "other",
		"storage.cfg":                   "other",
		"nodes":                         "other",
		"nodes/a":                       "node",
		"nodes/a/pve-ssl.key":           "node",
		"nodes/a/priv/x":                "node",
		"nodes/a/qemu-server/100.conf":  "guest",
		"nodes/a/lxc/100.conf.tmp.1234": "guest",
		"nodes/a/lxc":                   "guest",
		"ha/manager_status":             "ha",
		"ha":                            "ha",
		"hardware":                      "other",
		"firewall/100.fw":               "firewall",
		"priv/lock/ha_agent_a":          "lock",
		"priv/lock":                     "other",
		"priv/lock/a/b":                 "other",
		"priv/shadow.cfg":               "other",
	} {
		if got := classes[class(path)]; got != want {
			t.Errorf("%q is %s, want %s", path, got, want)
		}
	}
}

func TestChangesAreCountedByOperationClassAndNode(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newChangeCounter(reg)
	c.Applied(&memdb.Op{Kind: memdb.OpWrite, Path: "ha/x", Data: []byte("12345"), Writer: 1}, nil, false)
	c.SetNodes(map[corosync.NodeID]string{1: "alpha", 2: "beta"})
	c.Applied(&memdb.Op{Kind: memdb.OpRename, Path: "x", To: "nodes/alpha/lxc/100.conf", Writer: 1}, nil, true)
	c.Applied(&memdb.Op{Kind: memdb.OpDelete, Path: "x", Writer: 9}, nil, true)
	c.Applied(&memdb.Op{Kind: memdb.OpDelete, Path: "x"}, nil, true)
	c.Applied(&memdb.Op{Kind: 77, Path: "x"}, nil, true)
	c.Reset(make([]memdb.Change, 3))
	for _, want := range []struct {
		name   string
		labels []string
		value  float64
	}{
		{"changes_total", []string{"operation=write", "class=ha"}, 1},
		{"changes_total", []string{"operation=rename", "class=guest"}, 1},
		{"changes_total", []string{"operation=delete", "class=other"}, 2},
		{"changes_total", []string{"operation=delete", "class=ha"}, 0},
		{"changes_total", nil, 4},
		{"node_changes_total", []string{"node=alpha"}, 1},
		{"node_changes_total", []string{"node=local"}, 1},
		{"node_changes_total", []string{"node=other"}, 2}, // before the names were known, and an unknown one
		{"node_changes_total", []string{"node=beta"}, 0},
		{"changes_reverted_total", nil, 3},
		{"change_bytes_total", nil, 5},
	} {
		if got, ok := gathered(t, reg).Value("pmxcfs_"+want.name, want.labels...); got != want.value || !ok {
			t.Errorf("%s %v is %v (%v), want %v", want.name, want.labels, got, ok, want.value)
		}
	}
}

func gathered(t *testing.T, reg *prometheus.Registry) metricstest.Families {
	t.Helper()
	list, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := make(metricstest.Families)
	for _, f := range list {
		families[f.GetName()] = f
	}
	return families
}

func TestNamesOfNodesHaveABound(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newChangeCounter(reg)
	names := make(map[corosync.NodeID]string)
	for i := range 10 * maxNodes {
		names[corosync.NodeID(i+1)] = fmt.Sprint("node", i)
	}
	c.SetNodes(names)
	for id := range names {
		c.Applied(&memdb.Op{Kind: memdb.OpDelete, Path: "x", Writer: uint32(id)}, nil, true)
	}
	if n := len(gathered(t, reg)["pmxcfs_node_changes_total"].Metric); n != 1 {
		t.Errorf("%d series", n)
	}
}

func TestANameThatIsNotUTF8IsNobodysEnd(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newChangeCounter(reg)
	c.SetNodes(map[corosync.NodeID]string{1: "n\xf6de"})
	c.Applied(&memdb.Op{Kind: memdb.OpDelete, Path: "x", Writer: 1}, nil, true)
	if got, _ := gathered(t, reg).Value("pmxcfs_node_changes_total", "node=n\uFFFDde"); got != 1 {
		t.Errorf("counted %v times", got)
	}
}

func TestFailuresHaveTheirReason(t *testing.T) {
	wrap := func(err error) error { return &fs.PathError{Op: "write", Path: "x", Err: err} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{wrap(syscall.EEXIST), "refused"},
		{wrap(syscall.EFBIG), "refused"},
		{wrap(syscall.EACCES), "not_quorate"},
		{wrap(fmt.Errorf("%w: %w", dfsm.ErrDisconnected, syscall.EACCES)), "not_connected"},
		{wrap(fmt.Errorf("%w: %w", dfsm.ErrDisconnected, syscall.EIO)), "out_of_group"},
		{wrap(fmt.Errorf("%w: %w", group.ErrTimeout, syscall.ETIMEDOUT)), "timeout"},
		{syscall.EINTR, "interrupted"},
		{wrap(syscall.ENOSPC), "no_space"},
		{wrap(syscall.EIO), "io"},
		{errors.New("anything"), "refused"},
	} {
		if got := failures[failure(c.err, false)]; got != c.want {
			t.Errorf("%v is %s, want %s", c.err, got, c.want)
		}
	}
	if got := failures[failure(wrap(syscall.EACCES), true)]; got != "refused" { // as deleting the root
		t.Errorf("EACCES with quorum is %s", got)
	}
}

func TestFailedChangesAreCounted(t *testing.T) {
	m, _, _ := newNode(t, 1)
	for range 3 {
		m.FUSE.ChangeFailed(syscall.ENOSPC, true)
	}
	m.FUSE.ChangeFailed(syscall.EACCES, false)
	out := scrape(t, m)
	for _, line := range []string{
		"pmxcfs_change_failures_total{reason=\"no_space\"} 3\n",
		"pmxcfs_change_failures_total{reason=\"not_quorate\"} 1\n",
		"pmxcfs_change_failures_total{reason=\"refused\"} 0\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("no %s in %s", line, out)
		}
	}
}
