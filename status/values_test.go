package status

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pmxcfs/memdb"
)

func TestSettingIsLocalWithoutAGroup(t *testing.T) {
	s, _ := newStore(t)
	value := []byte("v")
	if err := s.Set("k", value); err != nil {
		t.Fatal(err)
	}
	value[0] = 'x' // it is the caller's again
	for _, node := range []string{"", "alpha"} {
		if v, ok := s.Get("k", node); !ok || string(v) != "v" {
			t.Errorf("%q's value is %q, %v", node, v, ok)
		}
	}
	for _, c := range [][2]string{{"k", "beta"}, {"other", ""}} {
		if v, ok := s.Get(c[0], c[1]); ok {
			t.Errorf("%v is %q", c, v)
		}
	}
}

// told keeps the payloads of updates.
type told []string

func (p *told) Post(_ uint16, payload []byte) { *p = append(*p, string(payload)) }

func TestTextsAreToldUpToTheirFirstNUL(t *testing.T) {
	s, _ := newStore(t)
	var told told
	s.SetGroup(&told)
	for _, key := range []string{"nodeip", "rrd/x", "k"} {
		if err := s.Set(key, []byte("1.2.3.4\x00 secret\x00")); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{string(encodeUpdate("nodeip", []byte("1.2.3.4\x00"))), string(encodeUpdate("rrd/x", []byte("1.2.3.4\x00"))),
		string(encodeUpdate("k", []byte("1.2.3.4\x00 secret\x00")))}
	if !slices.Equal(told, want) {
		t.Errorf("told are %q", told)
	}
}

func TestAnEmptyNameIsToldButNobodyCanAskForIt(t *testing.T) {
	s, _ := newStore(t)
	var told told
	s.SetGroup(&told)
	if err := s.Set("", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Get("", ""); ok || len(told) != 1 || told[0] != string(encodeUpdate("", []byte("v"))) {
		t.Errorf("found: %v, told: %q", ok, told)
	}
}

func TestLimitsAndErrorsOfSet(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       error
		errno      syscall.Errno
	}{
		{"k", strings.Repeat("v", MaxValue), nil, 0},
		{"k", strings.Repeat("v", MaxValue+1), ErrTooLarge, syscall.EFBIG},
		{strings.Repeat("k", keyField-1), "v", nil, 0},
		{strings.Repeat("k", keyField), "v", ErrKey, syscall.EINVAL},
		{"a\x00b", "v", ErrKey, syscall.EINVAL},
		{nodeIPKey, "10.0.0.1\x00", nil, 0},
		{nodeIPKey, strings.Repeat("1", maxAddress-2) + "\x00", nil, 0},
		{nodeIPKey, strings.Repeat("1", maxAddress-1) + "\x00", ErrText, syscall.ENOMEM},
		{nodeIPKey, "10.0.0.1", ErrText, syscall.ENOMEM},
		{nodeIPKey, "", ErrText, syscall.ENOMEM},
		{"rrd/k", strings.Repeat("1", 4094) + "\x00", nil, 0},
		{"rrd/k", strings.Repeat("1", 4095) + "\x00", ErrText, syscall.ENOMEM},
		{"rrd/k", "1", ErrText, syscall.ENOMEM},
		{"rrd/k", "", ErrText, syscall.ENOMEM},
		{"rrd/", "1\x00", ErrKey, syscall.EINVAL},
	} {
		s, _, sent, _ := sample(t)
		err := s.Set(c.key, []byte(c.value))
		errno, _ := errors.AsType[syscall.Errno](err)
		if !errors.Is(err, c.want) || errno != c.errno {
			t.Errorf("%.20q = %d bytes: %v, want %v", c.key, len(c.value), err, c.want)
		}
		if told := len(sent.list) == 1; told != (c.want == nil) {
			t.Errorf("%.20q = %d bytes: %d messages", c.key, len(c.value), len(sent.list))
		}
	}
}

func TestVersionsOfAValue(t *testing.T) {
	s, app, _, _ := sample(t)
	check := func(what string, want map[string]any) {
		t.Helper()
		if got := decode(t, s.Version())["kvstore"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: kvstore is %v, want %v", what, got, want)
		}
	}
	type m = map[string]any
	check("at first", m{"alpha": m{}})
	s.Set("k", []byte("1"))
	check("once", m{"alpha": m{"k": 0.0}})
	s.Set("k", []byte("1"))
	s.Set("l", []byte("1"))
	check("again", m{"alpha": m{"k": 1.0, "l": 0.0}})
	deliver(app, 2, "k", "x")
	deliver(app, 2, "k", "x")
	check("another node's", m{"alpha": m{"k": 1.0, "l": 0.0}, "node2": m{"k": 1.0}})
	s.Set("k", nil)
	check("deleted", m{"alpha": m{"l": 0.0}, "node2": m{"k": 1.0}})
	s.Set("k", []byte("2"))
	check("set anew", m{"alpha": m{"k": 0.0, "l": 0.0}, "node2": m{"k": 1.0}})
	deliver(app, 3, nodeIPKey, "10.0.0.3\x00")
	deliver(app, 3, "rrd/k", "1\x00")
	deliver(app, 3, "never", "")
	check("a node that has no values", m{"alpha": m{"k": 0.0, "l": 0.0}, "node2": m{"k": 1.0}})
	if text := string(s.Version()); strings.Index(text, `"alpha"`) > strings.Index(text, `"node2"`) {
		t.Error("this node is not the first")
	}
}

func TestANodesValuesAreBounded(t *testing.T) {
	s, app, _, _ := sample(t)
	big := strings.Repeat("v", MaxValue)
	n := 0
	for ; n < maxKeys+1; n++ {
		if err := deliver(app, 2, fmt.Sprintf("big%d", n), big); err != nil {
			break
		}
	}
	if want := maxBytes / (MaxValue + keyField); n != want {
		t.Errorf("%d large values were taken, want %d", n, want)
	}
	if err := deliver(app, 2, "big0", big); err != nil {
		t.Errorf("an old key can't be set any more: %v", err)
	}
	if err := deliver(app, 2, "big0", "small"); err != nil {
		t.Errorf("an old key can't be set any more: %v", err)
	}
	for i := range maxKeys {
		if err := s.Set(fmt.Sprintf("k%d", i), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Set("one more", []byte("v")); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("one key too many: %v", err)
	}
	if err := s.Set("k7", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Set("one more", []byte("v")); err != nil {
		t.Errorf("after a delete: %v", err)
	}
	for i := range n {
		deliver(app, 2, fmt.Sprintf("big%d", i), "")
	}
	if v := &s.nodes["node2"].values; v.bytes != 0 || len(v.keys) != 0 {
		t.Errorf("%d bytes are left, of %q", v.bytes, v.keys)
	}
}

// writer records samples.
type writer []string

func (w *writer) Submit(key, text string) bool { *w = append(*w, key+":"+text); return true }

func TestSamplesAreKeptAndWritten(t *testing.T) {
	w := new(writer)
	s := mustNew(Config{Tree: memdb.New(), NodeName: "alpha", RRD: w})
	s.SetCluster(labCluster(1, 2, 1))
	if err := s.Set("rrd/pve-vm-9.0/100", []byte("1:2:3\x00")); err != nil {
		t.Fatal(err)
	}
	if err := deliver(s.App(), 2, "rrd/pve-vm-9.0/101", "4:5:6\x00"); err != nil {
		t.Fatal(err)
	}
	if want := (writer{"pve-vm-9.0/100:1:2:3", "pve-vm-9.0/101:4:5:6"}); !reflect.DeepEqual(*w, want) {
		t.Errorf("written: %q, want %q", *w, want)
	}
	want := "pve-vm-9.0/100:1:2:3\npve-vm-9.0/101:4:5:6\n"
	if got := s.RRD(); string(got) != want {
		t.Errorf(".rrd is %q, want %q", got, want)
	}
	if got := s.RRDWithNUL(); string(got) != want+"\x00" {
		t.Errorf("for clients it is %q", got)
	}
	if _, ok := s.Get("rrd/pve-vm-9.0/100", ""); ok {
		t.Error("a sample can be got as a value")
	}
}

// slowWriter checks that the store can be used while it writes.
type slowWriter struct{ s *Store }

func (w slowWriter) Submit(string, string) bool {
	w.s.Members()
	return w.s.Set("k", []byte("v")) == nil
}

func TestSamplesAreWrittenWithoutTheLock(t *testing.T) {
	s, app, _, _ := sample(t)
	s.rrd = slowWriter{s} // a lock held would deadlock
	if err := s.Set("rrd/k", []byte("1\x00")); err != nil {
		t.Fatal(err)
	}
	if err := deliver(app, 2, "rrd/l", "1\x00"); err != nil {
		t.Fatal(err)
	}
}

func TestVersionIsRenderedAgainOnlyAfterAChange(t *testing.T) {
	s, app, _, _ := sample(t)
	tree := s.tree
	same := func() bool { a, b := s.Version(), s.Version(); return &a[0] == &b[0] }
	if !same() {
		t.Error("rendered twice without a change")
	}
	for name, change := range map[string]func(){
		"watched path":  func() { s.Applied(&memdb.Op{Kind: memdb.OpWrite, Path: "user.cfg"}, nil, false) },
		"reset":         func() { s.Reset(nil) },
		"value":         func() { s.Set("k", []byte("v")) },
		"foreign value": func() { deliver(app, 2, "k", "v") },
		"address":       func() { s.Set(nodeIPKey, []byte("1.1.1.1\x00")) },
		"new config":    func() { s.SetCluster(labCluster(1, 3, 9)) },
		"registered guest": func() {
			for _, dir := range []string{"nodes", "nodes/alpha", "nodes/alpha/lxc"} {
				tree.Apply(&memdb.Op{Kind: memdb.OpMkdir, Path: dir})
			}
			tree.Apply(&memdb.Op{Kind: memdb.OpCreate, Path: "nodes/alpha/lxc/100.conf"})
		},
	} {
		before := bytes.Clone(s.Version())
		change()
		if bytes.Equal(s.Version(), before) {
			t.Errorf("%s: not shown", name)
		}
		if !same() {
			t.Errorf("%s: rendered twice", name)
		}
	}
	before := s.Version()
	s.Applied(&memdb.Op{Kind: memdb.OpWrite, Path: "nodes/alpha/config"}, nil, false)
	if after := s.Version(); &after[0] != &before[0] {
		t.Error("rendered again for a path that nobody watches")
	}
}

func TestFirstEntryOfTheClusterLog(t *testing.T) {
	s := mustNew(Config{Tree: memdb.New(), NodeName: "alpha", PID: 4104})
	log := decode(t, s.ClusterLog(0, ""))["data"].([]any)
	if len(log) != 1 {
		t.Fatalf("the log is %v", log)
	}
	e := log[0].(map[string]any)
	for key, want := range map[string]any{"uid": 1.0, "pri": 6.0, "tag": "cluster", "pid": 4104.0, "node": "alpha", "user": "root", "msg": "starting cluster log"} {
		if e[key] != want {
			t.Errorf("%s is %v, want %v", key, e[key], want)
		}
	}
}

func TestVersionIsSorted(t *testing.T) {
	s := busy()
	text := string(s.Version())
	text = text[strings.Index(text, `"kvstore"`):]
	for _, name := range []string{"some-key-0", "some-key-1", "some-key-10", "some-key-11", "some-key-19", "some-key-2"} {
		i := strings.Index(text, `"`+name+`"`)
		if i < 0 {
			t.Fatalf("%s is missing or out of order in %s", name, s.Version())
		}
		text = text[i:]
	}
	for _, name := range []string{"node10", "node11", "node2", "node20", "node32", "node9"} { // after node1, this one
		i := strings.Index(text, `"`+name+`"`)
		if i < 0 {
			t.Fatalf("%s is missing or out of order in %s", name, s.Version())
		}
		text = text[i:]
	}
}
