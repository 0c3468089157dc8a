package clusterlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestLogNeedsNodeAndClock(t *testing.T) {
	if _, err := New(Config{Now: time.Now}); err == nil {
		t.Error("no node: no error")
	}
	if _, err := New(Config{Node: "node1"}); err == nil {
		t.Error("no clock: no error")
	}
}

func TestAddNumbersEntriesFromTheFirstUID(t *testing.T) {
	for first, want := range map[uint32]uint32{0: 1, 1: 1, 77: 77} {
		l, err := New(Config{Node: "node1", Now: time.Now, FirstUID: first})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint32(3) {
			e, err := ParseEntry(l.Add(Message{Text: "x"}))
			if err != nil || e.UID() != want+i {
				t.Errorf("first %d: uid %d, %v", first, e.UID(), err)
			}
		}
	}
}

func TestInsertTakesOnlyWhatIsNewerOfItsNode(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	steps := []struct {
		node      string
		uid, time uint32
		want      bool
	}{
		{"node2", 5, 100, true},
		{"node2", 5, 100, false}, // the same
		{"node2", 4, 100, false},
		{"node2", 9, 99, false}, // later number, earlier time
		{"node3", 1, 50, true},  // another node's clock does not count
		{"node2", 6, 100, true},
		{"node2", 1, 101, true}, // restarted: numbers begin again
		{"node1", 1, 100, true}, // an earlier run of this node
		{"node1", 1, 100, false},
	}
	for i, s := range steps {
		got, err := l.Insert(testEntry(s.node, s.uid, s.time, 3).raw)
		if err != nil || got != s.want {
			t.Errorf("step %d: %v, %v, want %v", i, got, err, s.want)
		}
	}
	if n := len(l.Entries()); n != 5 {
		t.Errorf("%d entries", n)
	}
}

func TestInsertRefusesMalformedAndKeepsTheLog(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	l.Add(Message{Text: "mine"})
	before := l.State()
	if ok, err := l.Insert([]byte("garbage")); ok || !errors.Is(err, ErrEntry) {
		t.Errorf("%v, %v", ok, err)
	}
	if !bytes.Equal(l.State(), before) {
		t.Error("the log has changed")
	}
}

func TestInsertDoesNotKeepTheCallersMemory(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	wire := testEntry("node2", 1, 1, 20).raw
	if ok, err := l.Insert(wire); !ok || err != nil {
		t.Fatal(ok, err)
	}
	before := l.State()
	clear(wire)
	if !bytes.Equal(l.State(), before) {
		t.Error("the log has changed with the message")
	}
}

func TestManyNodesDoNotMakeTheLogGrow(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	l.Add(Message{Text: "mine"})
	for i := range 3 * maxNodes {
		if ok, err := l.Insert(testEntry(fmt.Sprintf("n%d", i), 1, 1000, 0).raw); !ok || err != nil {
			t.Fatal(i, ok, err)
		}
	}
	if n := len(l.newest); n > maxNodes {
		t.Errorf("%d nodes are remembered", n)
	}
	// Those whose entries are in the ring are still known.
	for _, e := range l.Entries() {
		if ok, _ := l.Insert(bytes.Clone(e.raw)); ok {
			t.Fatalf("%s again", e.Node())
		}
	}
}

func TestMergedLogsAreAlike(t *testing.T) {
	var logs []*Log
	for n := range 3 {
		l, now := newTestLog(t, fmt.Sprintf("node%d", n+1))
		for i := range 10 * (n + 1) {
			*now = now.Add(time.Duration(n) * time.Second)
			l.Add(Message{Ident: "root", Tag: "t", Text: fmt.Sprint(n, i)})
		}
		logs = append(logs, l)
	}
	states := [][]byte{logs[0].State(), logs[1].State(), logs[2].State()}
	for _, l := range logs {
		if err := l.Merge(states); err != nil {
			t.Fatal(err)
		}
	}
	want := logs[0].State()
	for i, l := range logs {
		if !bytes.Equal(l.State(), want) {
			t.Errorf("log %d differs", i)
		}
		if n := len(l.Entries()); n != 60 {
			t.Errorf("log %d has %d entries", i, n)
		}
	}
	// Nothing that was merged is accepted once more.
	for _, e := range logs[2].Entries() {
		if ok, _ := logs[0].Insert(e.raw); ok {
			t.Errorf("%s %d again", e.Node(), e.UID())
		}
	}
}

func TestMergeKeepsWhatWasLoggedSinceTheState(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	l.Add(Message{Text: "before"})
	state := l.State()
	l.Add(Message{Text: "meanwhile"})
	if err := l.Merge([][]byte{state}); err != nil {
		t.Fatal(err)
	}
	if list := l.Entries(); len(list) != 2 || string(list[0].Text()) != "meanwhile" {
		t.Errorf("%d entries", len(list))
	}
}

func TestMergeLeavesOutMalformedStatesAndNamesThem(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	other, _ := newTestLog(t, "node2")
	other.Add(Message{Text: "from two"})
	astray := other.State()
	le.PutUint32(astray[4:], RingSize)
	err := l.Merge([][]byte{l.State(), astray, other.State(), []byte("short")})
	if !errors.Is(err, ErrRing) {
		t.Fatalf("error %v", err)
	}
	var indexes []int
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var re *RingError
		if !errors.As(e, &re) {
			t.Fatalf("%v is not a RingError", e)
		}
		indexes = append(indexes, re.Index)
	}
	if fmt.Sprint(indexes) != "[1 3]" {
		t.Errorf("left out %v", indexes)
	}
	if list := l.Entries(); len(list) != 1 || string(list[0].Node()) != "node2" {
		t.Errorf("%d entries", len(list))
	}
}

func TestOfTwoEntriesWithOneKeyTheFirstMembersCounts(t *testing.T) {
	ringWith := func(text int) []byte {
		r := newRing()
		r.add(testEntry("node9", 1, 100, text))
		return r.buf
	}
	l, _ := newTestLog(t, "node1")
	if _, err := l.Insert(testEntry("node9", 1, 100, 3).raw); err != nil {
		t.Fatal(err)
	}
	if err := l.Merge([][]byte{ringWith(7), ringWith(3)}); err != nil {
		t.Fatal(err)
	}
	if list := l.Entries(); len(list) != 1 || len(list[0].Text()) != 7 {
		t.Errorf("%d entries", len(list))
	}
}

func TestConcurrentUseLosesNothing(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	const workers, each = 4, 100
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				l.Add(Message{Text: "x"})
				if _, err := l.Insert(testEntry(fmt.Sprintf("peer%d", w), uint32(i+1), 1, 3).raw); err != nil {
					t.Error(err)
				}
				if i%20 == 0 {
					if !json.Valid(l.Dump(0, "")) {
						t.Error("the dump is not JSON")
					}
					if err := l.Merge([][]byte{l.State()}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(l.Entries()); n != 2*workers*each {
		t.Errorf("%d entries, want %d", n, 2*workers*each)
	}
}
