package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/status/clusterlog"
)

// posts records what a store sends.
type posts struct {
	mu   sync.Mutex
	list []post
}

type post struct {
	subtype uint16
	payload []byte
}

func (p *posts) Post(subtype uint16, payload []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, post{subtype, payload})
}

// updates takes the updates sent since the last time, as "KEY=VALUE".
func (p *posts) updates(t *testing.T) (list []string) {
	t.Helper()
	for _, m := range p.list {
		key, value, err := decodeUpdate(m.payload)
		if m.subtype != subtypeUpdate || err != nil {
			t.Fatalf("not an update: type %d %q", m.subtype, m.payload)
		}
		list = append(list, key+"="+string(value))
	}
	p.list = nil
	return list
}

// deliver has an application apply a foreign update.
func deliver(app dfsm.Application, node int, key, value string) error {
	return deliverRaw(app, dfsm.Message{From: member(node), Subtype: subtypeUpdate, Payload: encodeUpdate(key, []byte(value))})
}

func deliverRaw(app dfsm.Application, m dfsm.Message) error {
	done := app.Apply([]dfsm.Message{m})
	if done.Err != nil || done.Done != 1 {
		panic("a message stops the group")
	}
	if done.Results == nil {
		return nil
	}
	return done.Results[0].Err
}

// sample is a store of alpha, node 1 of three, with what it sends and logs.
func sample(t *testing.T) (s *Store, app dfsm.Application, sent *posts, lines *bytes.Buffer) {
	t.Helper()
	lines, sent = new(bytes.Buffer), new(posts)
	s = mustNew(Config{Tree: memdb.New(), NodeName: "alpha", Address: "10.0.0.1", Logger: slog.New(slog.NewTextHandler(lines, nil))})
	info := labCluster(1, 3, 1)
	info.Nodes[0].Name = "alpha"
	s.SetCluster(info)
	s.SetGroup(sent)
	lines.Reset()
	return s, s.App(), sent, lines
}

// leaving is a group that this node is out of as soon as a message is sent: what Post may call.
type leaving struct {
	app   dfsm.Application
	posts int
}

func (l *leaving) Post(uint16, []byte) {
	l.posts++
	l.app.ModeChanged(dfsm.ModeLeave)
	l.app.ModeChanged(dfsm.ModeStart)
}

func TestSendingMayEndTheMembership(t *testing.T) {
	s, app, _, _ := sample(t)
	group := &leaving{app: app}
	s.SetGroup(group)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, key := range []string{"k", nodeIPKey, rrdPrefix + "pve2-node/alpha"} {
			if err := s.Set(key, []byte("1:2\x00")); err != nil {
				t.Error(err)
			}
		}
		s.Log(clusterlog.Message{Ident: "root", Tag: "t", Text: "x"})
		app.ModeChanged(dfsm.ModeSynced)
		if _, err := app.ProcessStates(nil); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-ended:
	case <-time.After(testutil.Patience):
		t.Fatal("it waits for itself")
	}
	if group.posts != 6 { // three values, a log entry, the address, and the value again
		t.Errorf("%d messages", group.posts)
	}
}

func TestOwnMessagesAreIgnored(t *testing.T) {
	s, app, _, _ := sample(t)
	s.Set("k", []byte("new"))
	entries := len(lines(s))
	for _, m := range []dfsm.Message{
		{From: member(1), Own: true, Subtype: subtypeUpdate, Payload: encodeUpdate("k", []byte("old"))},
		{From: dfsm.Member{Node: 1, PID: 7}, Subtype: subtypeUpdate, Payload: encodeUpdate("k", []byte("earlier run"))},
		{From: dfsm.Member{Node: 1, PID: 7}, Subtype: subtypeUpdate, Payload: encodeUpdate(nodeIPKey, []byte("1.2.3.4\x00"))},
		{From: dfsm.Member{Node: 1, PID: 7}, Subtype: subtypeUpdate, Payload: encodeUpdate("rrd/x", []byte("1\x00"))},
		{From: member(1), Own: true, Subtype: subtypeLog, Payload: otherLog(t, "alpha").Add(clusterlog.Message{Text: "x"})},
		{From: member(1), Own: true, Subtype: subtypeLog, Payload: []byte("not even an entry")},
	} {
		if err := deliverRaw(app, m); err != nil {
			t.Errorf("%v", err)
		}
	}
	if v, _ := s.Get("k", ""); string(v) != "new" {
		t.Errorf("the value is %q", v)
	}
	if len(lines(s)) != entries || len(s.RRD()) > 0 || memberOf(t, s, "alpha")["ip"] != nil {
		t.Errorf("log %q, rrd %q, members %s", lines(s), s.RRD(), s.Members())
	}
}

func otherLog(t *testing.T, node string) *clusterlog.Log {
	t.Helper()
	l, err := clusterlog.New(clusterlog.Config{Node: node, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUpdatesOfUnknownNodesAreIgnored(t *testing.T) {
	s, app, _, log := sample(t)
	before := string(s.Members())
	for _, key := range []string{"k", nodeIPKey, "rrd/x"} {
		if err := deliver(app, 9, key, "1\x00"); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if len(s.RRD()) > 0 || string(s.Members()) != before || log.Len() > 0 {
		t.Errorf("rrd %q, members %s, logged %s", s.RRD(), s.Members(), log)
	}
	kv := decode(t, s.Version())["kvstore"].(map[string]any)
	if len(kv) != 1 {
		t.Errorf("kvstore is %v", kv)
	}
}

func TestBadMessagesAreDroppedWithALine(t *testing.T) {
	entry := otherLog(t, "node2").Add(clusterlog.Message{Text: "x"})
	update := func(key, value string) dfsm.Message {
		return dfsm.Message{From: member(2), Subtype: subtypeUpdate, Payload: encodeUpdate(key, []byte(value))}
	}
	unterminated := bytes.Repeat([]byte{'k'}, keyField+5)
	for _, c := range []struct {
		name string
		m    dfsm.Message
		want error
	}{
		{"no payload", dfsm.Message{From: member(2), Subtype: subtypeUpdate}, errMessage},
		{"short", dfsm.Message{From: member(2), Subtype: subtypeUpdate, Payload: make([]byte, keyField-1)}, errMessage},
		{"no NUL in the key", dfsm.Message{From: member(2), Subtype: subtypeUpdate, Payload: unterminated}, errMessage},
		{"large value", update("k", strings.Repeat("v", MaxValue+1)), ErrTooLarge},
		{"large sample", update("rrd/k", strings.Repeat("v", 4095)+"\x00"), ErrText},
		{"sample without NUL", update("rrd/k", "v"), ErrText},
		{"empty sample", update("rrd/k", ""), ErrText},
		{"sample without a key", update("rrd/", "v\x00"), ErrKey},
		{"sample of two lines", update("rrd/k", "v\nw\x00"), ErrText},
		{"address without NUL", update(nodeIPKey, "10.0.0.1"), ErrText},
		{"empty address", update(nodeIPKey, ""), ErrText},
		{"address that is NUL", update(nodeIPKey, "\x00"), ErrText},
		{"long address", update(nodeIPKey, strings.Repeat("1", maxAddress-1)+"\x00"), ErrText},
		{"short entry", dfsm.Message{From: member(2), Subtype: subtypeLog, Payload: entry[:len(entry)-1]}, clusterlog.ErrEntry},
		{"empty entry", dfsm.Message{From: member(2), Subtype: subtypeLog}, clusterlog.ErrEntry},
		{"update complete", dfsm.Message{From: member(2), Subtype: 2}, syscall.EACCES},
		{"unknown type", dfsm.Message{From: member(2), Subtype: 4, Payload: encodeUpdate("k", []byte("v"))}, syscall.EACCES},
		{"own of an unknown type", dfsm.Message{From: member(1), Own: true, Subtype: 77}, syscall.EACCES},
	} {
		s, app, _, log := sample(t)
		version := string(s.Version())
		if err := deliverRaw(app, c.m); !errors.Is(err, c.want) {
			t.Errorf("%s: answers %v, want %v", c.name, err, c.want)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "node") {
			t.Errorf("%s: logs %d lines: %s", c.name, n, log)
		}
		if string(s.Version()) != version || len(s.RRD()) > 0 || len(lines(s)) != 1 {
			t.Errorf("%s: something was taken in", c.name)
		}
	}
}

func TestABadMessageLeavesTheRestOfItsBatch(t *testing.T) {
	s, app, _, _ := sample(t)
	done := app.Apply([]dfsm.Message{
		{From: member(2), Subtype: subtypeUpdate, Payload: encodeUpdate("a", []byte("1"))},
		{From: member(2), Subtype: subtypeUpdate},
		{From: member(2), Subtype: subtypeUpdate, Payload: encodeUpdate("b", []byte("2"))},
	})
	if done.Done != 3 || done.Err != nil || len(done.Results) != 3 || done.Results[0].Err != nil || done.Results[1].Err == nil || done.Results[2].Err != nil {
		t.Errorf("answers %+v", done)
	}
	for key, want := range map[string]string{"a": "1", "b": "2"} {
		if v, _ := s.Get(key, "node2"); string(v) != want {
			t.Errorf("%s is %q", key, v)
		}
	}
}

func TestWhatFollowsTheKeyInItsFieldIsNotLookedAt(t *testing.T) {
	s, app, _, _ := sample(t)
	payload := encodeUpdate("k", []byte("v"))
	for i := 2; i < keyField; i++ {
		payload[i] = 0xaa
	}
	if err := deliverRaw(app, dfsm.Message{From: member(2), Subtype: subtypeUpdate, Payload: payload}); err != nil {
		t.Fatal(err)
	}
	payload[keyField] = 'x' // it is not kept
	if v, _ := s.Get("k", "node2"); string(v) != "v" {
		t.Errorf("the value is %q", v)
	}
}

func TestAFloodOfBadMessagesIsAFewLines(t *testing.T) {
	var log bytes.Buffer
	now := time.Unix(1000, 0)
	c := complaints{log: slog.New(slog.NewTextHandler(&log, nil)), now: func() time.Time { return now }}
	for range 1000 {
		c.add("a", "first kind")
	}
	c.add("b", "second kind")
	now = now.Add(complaintEvery)
	c.add("a", "first kind")
	want := []string{`msg="first kind"`, `msg="second kind"`, `msg="first kind" held_back=999`}
	got := slices.Collect(strings.Lines(log.String()))
	if len(got) != len(want) {
		t.Fatalf("logs %q", got)
	}
	for i, line := range got {
		if !strings.HasSuffix(strings.TrimSpace(line), want[i]) {
			t.Errorf("line %d is %s, want %s", i, line, want[i])
		}
	}
}

func TestASyncTellsValuesAndThenTheAddress(t *testing.T) {
	s, app, sent, _ := sample(t)
	s.Set("b", []byte("2"))
	s.Set("a", []byte("1"))
	s.Set("gone", []byte("x"))
	s.Set("gone", nil)
	s.Set("rrd/k", []byte("5\x00"))
	want := []string{"b=2", "a=1", "gone=x", "gone=", "rrd/k=5\x00"}
	if got := sent.updates(t); !slices.Equal(got, want) {
		t.Errorf("setting sends %q, want %q", got, want)
	}
	deliver(app, 2, "theirs", "x")
	other := otherLog(t, "node2")
	other.Add(clusterlog.Message{Text: "theirs"})
	own, _ := app.State()
	sync, err := app.ProcessStates([]dfsm.MemberState{{Member: member(1), Self: true, State: own}, {Member: member(2), State: other.State()}})
	if err != nil || !slices.Equal(sync.Synced, []bool{true, true}) || sync.Leader || sync.Updates != nil {
		t.Errorf("concludes %+v, %v", sync, err)
	}
	if got, want := sent.updates(t), []string{"a=1", "b=2"}; !slices.Equal(got, want) {
		t.Errorf("sends %q, want %q", got, want)
	}
	if n := len(lines(s)); n != 2 {
		t.Errorf("%d entries in the log: %q", n, lines(s))
	}
	app.ModeChanged(dfsm.ModeSynced)
	if got, want := sent.updates(t), []string{"nodeip=10.0.0.1\x00"}; !slices.Equal(got, want) {
		t.Errorf("synced, sends %q, want %q", got, want)
	}
	if m := memberOf(t, s, "alpha"); m["ip"] != "10.0.0.1" {
		t.Errorf("this node is %v", m)
	}
	s.Set(nodeIPKey, []byte("10.0.0.9\x00"))
	app.ModeChanged(dfsm.ModeStartSync)
	app.ModeChanged(dfsm.ModeSynced)
	if got, want := sent.updates(t), []string{"nodeip=10.0.0.9\x00", "nodeip=10.0.0.9\x00"}; !slices.Equal(got, want) {
		t.Errorf("with an address set, sends %q, want %q", got, want)
	}
}

func TestABadStateIsLeftOutWithALine(t *testing.T) {
	s, app, _, log := sample(t)
	own, _ := app.State()
	other := otherLog(t, "node3")
	other.Add(clusterlog.Message{Text: "good"})
	sync, err := app.ProcessStates([]dfsm.MemberState{
		{Member: member(1), Self: true, State: own},
		{Member: member(2), State: []byte("too short")},
		{Member: member(3), State: other.State()},
	})
	if err != nil || !slices.Equal(sync.Synced, []bool{true, true, true}) {
		t.Errorf("concludes %+v, %v", sync, err)
	}
	if got := lines(s); len(got) != 2 || !strings.Contains(strings.Join(got, "\n"), "good") {
		t.Errorf("the log is %q", got)
	}
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "2/100") {
		t.Errorf("logged %s", log)
	}
}

func TestWithoutAnAddressNoneIsTold(t *testing.T) {
	s := mustNew(Config{Tree: memdb.New(), NodeName: "alpha"})
	sent := new(posts)
	s.SetGroup(sent)
	s.App().ModeChanged(dfsm.ModeSynced)
	if got := sent.updates(t); len(got) > 0 {
		t.Errorf("sends %q", got)
	}
}

func TestEntriesLeaveInTheirOrder(t *testing.T) {
	s, _, sent, _ := sample(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				s.Log(clusterlog.Message{Text: "x"})
				s.Set("k", []byte("v"))
			}
		})
	}
	wg.Wait()
	receiver := otherLog(t, "other")
	updates := 0
	for _, m := range sent.list {
		if m.subtype == subtypeUpdate {
			updates++
			continue
		}
		if ok, err := receiver.Insert(m.payload); !ok || err != nil {
			t.Fatalf("a receiver takes an entry for an old one: %v", err)
		}
	}
	if n := len(receiver.Entries()); n != 400 || updates != 400 {
		t.Errorf("%d entries and %d updates sent", n, updates)
	}
}

func TestStoreFromAllSidesAtOnce(t *testing.T) {
	s, app, _, _ := sample(t)
	var wg sync.WaitGroup
	wg.Go(func() { // the group's goroutine
		for i := range 300 {
			deliver(app, 2, "k", "v")
			deliver(app, 2, nodeIPKey, address(i%5)+"\x00")
			deliver(app, 3, "rrd/k", "5\x00")
			state, _ := app.State()
			if i%10 == 0 {
				app.ProcessStates([]dfsm.MemberState{{State: state}})
			}
			app.ViewChanged([]dfsm.Member{member(1), member(i % 4)})
			app.ModeChanged(dfsm.ModeSynced)
		}
	})
	wg.Go(func() { // the daemon
		for i := range 300 {
			s.SetCluster(labCluster(1, 2+i%2, uint64(i)))
			s.SetQuorate(i%2 == 0)
		}
	})
	wg.Go(func() { // the tree
		for range 300 {
			s.Applied(&memdb.Op{Kind: memdb.OpRename, Path: "user.cfg", To: "storage.cfg"}, nil, true)
			s.Reset(nil)
		}
	})
	for range 2 { // clients
		wg.Go(func() {
			for range 300 {
				s.Set("k", []byte("v"))
				s.Get("k", "node2")
				s.Log(clusterlog.Message{Text: "x"})
				for _, b := range [][]byte{s.Version(), s.Members(), s.VMList(), s.ClusterLog(5, "")} {
					if !json.Valid(b) {
						t.Errorf("not JSON: %s", b)
					}
				}
				s.RRD()
			}
		})
	}
	wg.Wait()
	s.Set("last", []byte("v"))
	if kv := decode(t, s.Version())["kvstore"].(map[string]any)["alpha"].(map[string]any); kv["k"] != 599.0 || kv["last"] != 0.0 {
		t.Errorf("at the end the versions are %v", kv)
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(uint16(1), encodeUpdate("ceph-version", []byte(`{"v":1}`)))
	f.Add(uint16(1), encodeUpdate("nodeip", []byte("10.99.0.1\x00")))
	f.Add(uint16(1), encodeUpdate("rrd/pve-node-9.0/node2", []byte("100:1:1795251028:0.5\x00")))
	f.Add(uint16(1), encodeUpdate("k", nil))
	f.Add(uint16(1), []byte{})
	f.Add(uint16(1), bytes.Repeat([]byte{0xff}, keyField))
	f.Add(uint16(3), bytes.Repeat([]byte{0}, 48))
	f.Fuzz(func(t *testing.T, subtype uint16, payload []byte) {
		s := mustNew(Config{Tree: memdb.New(), NodeName: "alpha"})
		s.SetCluster(labCluster(1, 2, 1))
		err := deliverRaw(s.App(), dfsm.Message{From: member(2), Subtype: subtype, Payload: payload})
		for _, b := range [][]byte{s.Version(), s.Members(), s.ClusterLog(0, "")} {
			if !json.Valid(b) {
				t.Errorf("not JSON: %s", b)
			}
		}
		if key, value, derr := decodeUpdate(payload); derr == nil {
			again, data, derr := decodeUpdate(encodeUpdate(key, value))
			if derr != nil || again != key || !bytes.Equal(data, value) {
				t.Errorf("%q, %q become %q, %q, %v", key, value, again, data, derr)
			}
			if key == nodeIPKey || strings.HasPrefix(key, rrdPrefix) || subtype != subtypeUpdate || err != nil {
				return
			}
			if got, ok := s.Get(key, "node2"); !bytes.Equal(got, value) || ok != (len(value) > 0) {
				t.Errorf("%q is %q, %v", key, got, ok)
			}
		}
	})
}
