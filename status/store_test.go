package status

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pmxcfs/memdb"
)

func mustNew(cfg Config) *Store {
	s, err := New(cfg)
	if err != nil {
		panic(err)
	}
	return s
}

func TestNewSaysWhatItLacks(t *testing.T) {
	for _, cfg := range []Config{{}, {Tree: memdb.New()}, {NodeName: "alpha"}} {
		if s, err := New(cfg); s != nil || err == nil {
			t.Errorf("%+v: %v, %v", cfg, s, err)
		}
	}
}

func newStore(t *testing.T) (*Store, *memdb.Tree) {
	t.Helper()
	tree := memdb.New()
	return mustNew(Config{Tree: tree, NodeName: "alpha", Start: time.Unix(1700000000, 0)}), tree
}

func apply(t *testing.T, s *Store, tree *memdb.Tree, op memdb.Op) {
	t.Helper()
	res, err := tree.Apply(&op)
	if err != nil {
		t.Fatal(err)
	}
	s.Applied(&op, res.Changes, false)
}

func decode(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in:\n%s", err, b)
	}
	return v
}

func TestVersionHasEveryWatchedPathInOrder(t *testing.T) {
	s, _ := newStore(t)
	text := string(s.Version())
	v := decode(t, []byte(text))
	if v["starttime"] != float64(1700000000) {
		t.Errorf("starttime is %v", v["starttime"])
	}
	at := 0
	for _, path := range watchedPaths {
		i := strings.Index(text, "\""+path+"\": 1,")
		if i < at {
			t.Errorf("%s is missing, out of order or not 1", path)
		}
		at = i
	}
	if kv, ok := v["kvstore"].(map[string]any); !ok || kv["alpha"] == nil {
		t.Errorf("kvstore lacks this node: %v", v["kvstore"])
	}
}

func TestEachKindOfChangeCountsAWatchedPathUp(t *testing.T) {
	s, tree := newStore(t)
	want := 1.0
	expect := func(path string, n float64) {
		t.Helper()
		if got := decode(t, s.Version())[path]; got != n {
			t.Errorf("%s is %v, want %v", path, got, n)
		}
	}
	for _, op := range []memdb.Op{
		{Kind: memdb.OpCreate, Path: "storage.cfg"},
		{Kind: memdb.OpWrite, Path: "storage.cfg", Data: []byte("x")},
		{Kind: memdb.OpMTime, Path: "storage.cfg", MTime: 5},
		{Kind: memdb.OpRename, Path: "storage.cfg", To: "user.cfg"},
	} {
		apply(t, s, tree, op)
		want++
		expect("storage.cfg", want)
	}
	expect("user.cfg", 2)
	apply(t, s, tree, memdb.Op{Kind: memdb.OpDelete, Path: "user.cfg"})
	expect("user.cfg", 3)
	expect("jobs.cfg", 1)
	s.Reset(nil)
	expect("jobs.cfg", 2)
}

func TestVMListFollowsTheTree(t *testing.T) {
	s, tree := newStore(t)
	if v := decode(t, s.VMList()); v["ids"] != nil {
		t.Errorf("a list without guests has ids: %v", v)
	}
	for _, dir := range []string{"nodes", "nodes/alpha", "nodes/alpha/qemu-server", "nodes/alpha/lxc"} {
		apply(t, s, tree, memdb.Op{Kind: memdb.OpMkdir, Path: dir})
	}
	apply(t, s, tree, memdb.Op{Kind: memdb.OpCreate, Path: "nodes/alpha/qemu-server/100.conf"})
	apply(t, s, tree, memdb.Op{Kind: memdb.OpCreate, Path: "nodes/alpha/lxc/99.conf"})
	v := decode(t, s.VMList())
	ids := v["ids"].(map[string]any)
	g := ids["100"].(map[string]any)
	if len(ids) != 2 || g["node"] != "alpha" || g["type"] != "qemu" {
		t.Errorf("the list is %v", v)
	}
	before := v["version"]
	apply(t, s, tree, memdb.Op{Kind: memdb.OpDelete, Path: "nodes/alpha/lxc/99.conf"})
	v = decode(t, s.VMList())
	if len(v["ids"].(map[string]any)) != 1 || v["version"] == before {
		t.Errorf("after a delete the list is %v", v)
	}
}

func TestMembersWithoutAClusterNamesThisNodeOnly(t *testing.T) {
	s, _ := newStore(t)
	v := decode(t, s.Members())
	if len(v) != 2 || v["nodename"] != "alpha" {
		t.Errorf("members is %v", v)
	}
}
