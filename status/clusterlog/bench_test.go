package clusterlog

import (
	"fmt"
	"testing"
	"time"
)

func fullLog(b *testing.B, node string) *Log {
	b.Helper()
	l, err := New(Config{Node: node, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 3000 {
		l.Add(Message{Priority: 6, PID: 1, Ident: "root@pam", Tag: "pvedaemon", Text: fmt.Sprintf("starting task %d", i)})
	}
	return l
}

func BenchmarkAdd(b *testing.B) {
	l := fullLog(b, "node1")
	for b.Loop() {
		l.Add(Message{Priority: 6, PID: 1, Ident: "root@pam", Tag: "pvedaemon", Text: "starting task UPID"})
	}
}

func BenchmarkInsert(b *testing.B) {
	l := fullLog(b, "node1")
	wire := testEntry("node2", 1, 1, 30).raw
	uid := uint32(0)
	for b.Loop() {
		uid++
		le.PutUint32(wire[entryUIDOff:], uid)
		if ok, err := l.Insert(wire); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkDump(b *testing.B) {
	l := fullLog(b, "node1")
	for b.Loop() {
		l.Dump(0, "")
	}
}

func BenchmarkState(b *testing.B) {
	l := fullLog(b, "node1")
	for b.Loop() {
		l.State()
	}
}

func BenchmarkMerge32Members(b *testing.B) {
	l := fullLog(b, "node0")
	var states [][]byte
	for i := range 32 {
		states = append(states, fullLog(b, fmt.Sprintf("node%d", i)).State())
	}
	for b.Loop() {
		if err := l.Merge(states); err != nil {
			b.Fatal(err)
		}
	}
}
