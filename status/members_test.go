package status

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
)

func member(node int) dfsm.Member { return dfsm.Member{Node: corosync.NodeID(node), PID: 100} }

// infoVersion is the cluster info version, which .members and .version must agree on.
func infoVersion(t *testing.T, s *Store) float64 {
	t.Helper()
	m, v := decode(t, s.Members())["version"], decode(t, s.Version())["clinfo"]
	if m != v {
		t.Errorf(".members has version %v, .version %v", m, v)
	}
	return m.(float64)
}

func TestMembersShowTheCluster(t *testing.T) {
	s, _ := newStore(t)
	s.SetCluster(ClusterInfo{Name: "lab", Version: 3, Self: 1, Nodes: []ClusterNode{
		{ID: 2, Ring0Addr: "beta.example"}, // its address is its name
		{ID: 1, Name: "alpha", Ring0Addr: "10.0.0.1"},
	}})
	s.SetQuorate(true)
	s.App().ViewChanged([]dfsm.Member{member(1), member(9)})
	if err := s.Set(nodeIPKey, []byte("10.0.0.7\x00")); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"nodename": "alpha", "version": 3.0,
		"cluster": map[string]any{"name": "lab", "version": 3.0, "nodes": 2.0, "quorate": 1.0},
		"nodelist": map[string]any{
			"alpha":        map[string]any{"id": 1.0, "online": 1.0, "ip": "10.0.0.7"},
			"beta.example": map[string]any{"id": 2.0, "online": 0.0},
		},
	}
	if got := decode(t, s.Members()); !reflect.DeepEqual(got, want) {
		t.Errorf("members is %v, want %v", got, want)
	}
	s.SetQuorate(false)
	if got := decode(t, s.Members())["cluster"].(map[string]any); got["quorate"] != 0.0 {
		t.Errorf("without quorum the cluster is %v", got)
	}
}

func TestClusterInfoVersionCountsChangesOnly(t *testing.T) {
	s, _ := newStore(t)
	app := s.App()
	want := infoVersion(t, s)
	step := func(what string, up float64, do func()) {
		t.Helper()
		do()
		want += up
		if got := infoVersion(t, s); got != want {
			t.Errorf("%s: version %v, want %v", what, got, want)
			want = got
		}
	}
	info := labCluster(1, 2, 1)
	step("cluster info", 1, func() { s.SetCluster(info) })
	step("the same again", 0, func() { s.SetCluster(labCluster(1, 2, 1)) })
	step("the same in another order", 0, func() {
		s.SetCluster(ClusterInfo{Name: "lab", Version: 1, Self: 1, Nodes: []ClusterNode{info.Nodes[1], info.Nodes[0]}})
	})
	step("a new config version", 1, func() { s.SetCluster(labCluster(1, 2, 2)) })
	step("a new node", 1, func() { s.SetCluster(labCluster(1, 3, 2)) })
	step("a view", 1, func() { app.ViewChanged([]dfsm.Member{member(1), member(2)}) })
	step("quorum", 0, func() { s.SetQuorate(true) })
	step("an address", 1, func() { s.Set(nodeIPKey, []byte("10.0.0.1\x00")) })
	step("the same address", 0, func() { s.Set(nodeIPKey, []byte("10.0.0.1\x00")) })
	step("another's address", 1, func() { deliver(app, 2, nodeIPKey, "10.0.0.2\x00") })
	step("another's same address", 0, func() { deliver(app, 2, nodeIPKey, "10.0.0.2\x00") })
	step("a value", 0, func() { s.Set("k", []byte("v")) })
	step("out of the group", 1, func() { app.ModeChanged(dfsm.ModeStart) })
}

func TestNobodyIsOnlineOutsideTheGroup(t *testing.T) {
	for _, mode := range []dfsm.Mode{dfsm.ModeStart, dfsm.ModeVersionError, dfsm.ModeError} {
		s, _ := newStore(t)
		s.SetCluster(labCluster(1, 2, 1))
		app := s.App()
		app.ViewChanged([]dfsm.Member{member(1), member(2)})
		if m := memberOf(t, s, "node2"); m["online"] != 1.0 {
			t.Fatalf("node 2 is %v in the group", m)
		}
		app.ModeChanged(dfsm.ModeLeave)
		app.ModeChanged(mode)
		for _, name := range []string{"node1", "node2"} {
			if m := memberOf(t, s, name); m["online"] != 0.0 {
				t.Errorf("in mode %v %s is %v", mode, name, m)
			}
		}
	}
}

func TestKnowledgeOfNodesThatStayOutlivesANewClusterInfo(t *testing.T) {
	s, _ := newStore(t)
	s.SetCluster(labCluster(1, 3, 1))
	app := s.App()
	app.ViewChanged([]dfsm.Member{member(1), member(2), member(3)})
	s.Set("own", []byte("1"))
	for node := 2; node <= 3; node++ {
		deliver(app, node, nodeIPKey, address(node)+"\x00")
		deliver(app, node, "k", "v")
	}
	s.SetCluster(labCluster(1, 2, 2))
	if m := memberOf(t, s, "node2"); m["ip"] != address(2) || m["online"] != 1.0 {
		t.Errorf("node 2 is %v", m)
	}
	want := map[string]any{"alpha": map[string]any{"own": 0.0}, "node2": map[string]any{"k": 0.0}}
	if kv := decode(t, s.Version())["kvstore"]; !reflect.DeepEqual(kv, want) {
		t.Errorf("kvstore is %v, want %v", kv, want)
	}
	if _, ok := s.Get("k", "node3"); ok {
		t.Error("node 3's value is still there")
	}
}

func TestReadyOnceTheClusterIsKnown(t *testing.T) {
	s, _ := newStore(t)
	if err := s.Ready(); err != ErrNoCluster {
		t.Errorf("before: %v", err)
	}
	s.SetCluster(labCluster(1, 1, 1))
	if err := s.Ready(); err != nil {
		t.Errorf("after: %v", err)
	}
}

func TestOddClusterInfoIsValidJSON(t *testing.T) {
	for _, nodes := range [][]ClusterNode{
		nil,
		{{}},
		{{ID: 1, Name: "same"}, {ID: 2, Name: "same"}, {ID: 2, Name: "other"}},
		{{ID: 3, Name: "alpha"}, {ID: 1, Name: "other"}}, // another node has this host's name
		{{ID: 1, Name: "\"\\\x00\xff\x7f"}},
	} {
		s, _ := newStore(t)
		s.SetCluster(ClusterInfo{Name: "\"\n", Self: 1, Nodes: nodes})
		app := s.App()
		for node := range 4 {
			deliver(app, node, nodeIPKey, "\"\x01\xfe\x00")
			deliver(app, node, "\"\\\x01\xff", "v")
		}
		s.Set("\"\\\x01\xff", []byte("v"))
		for _, b := range [][]byte{s.Members(), s.Version()} {
			if !json.Valid(b) {
				t.Errorf("%v: %s", nodes, b)
			}
		}
		if n := bytes.Count(s.Version(), []byte(`"alpha": {`)); n != 1 {
			t.Errorf("%v: this node is %d times in %s", nodes, n, s.Version())
		}
	}
}

func TestAnotherNodeIDMakesThisNodeAnotherEntry(t *testing.T) {
	s, _ := newStore(t)
	s.SetCluster(labCluster(1, 2, 1))
	s.Set(nodeIPKey, []byte("10.0.0.1\x00"))
	s.Set("k", []byte("own"))
	s.SetCluster(labCluster(2, 2, 1))
	if a, b := memberOf(t, s, "node1"), memberOf(t, s, "node2"); a["ip"] != nil || b["ip"] != "10.0.0.1" {
		t.Errorf("node1 is %v, node2, which this is now, %v", a, b)
	}
	app := s.App()
	deliver(app, 1, "k", "theirs")
	deliver(app, 2, "k", "an earlier run's")
	for node, want := range map[string]string{"": "own", "node2": "own", "node1": "theirs"} {
		if v, _ := s.Get("k", node); string(v) != want {
			t.Errorf("%q's value is %q, want %q", node, v, want)
		}
	}
}
