package clusterlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The recordings in testdata/trace-3node are of three stock daemons: what
// crossed the boundary between each of them and the process group
// pve_kvstore_v1, less the key/value updates; and what .clusterlog showed
// before the partition (mid) and at the end (final).

type traceEvent struct {
	Time    float64       `json:"t"`
	Event   string        `json:"ev"`
	NodeID  int           `json:"nodeid"`
	PID     int           `json:"pid"`
	Msg     string        `json:"msg"`
	Members []traceMember `json:"members"`

	typ, subtype int
	payload      []byte // after the header
}

type traceMember struct {
	NodeID int `json:"nodeid"`
	PID    int `json:"pid"`
}

// traceEpoch numbers the seconds of the recording: its times are 17952514xx.
const traceEpoch = 1795251000

func readTrace(t testing.TB, node int) []traceEvent {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "trace-3node", fmt.Sprintf("node%d.jsonl.gz", node)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var events []traceEvent
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e traceEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Msg != "" {
			msg, err := hex.DecodeString(e.Msg)
			if err != nil {
				t.Fatal(err)
			}
			e.typ, e.subtype = int(le.Uint16(msg)), int(le.Uint16(msg[2:]))
			e.payload = msg[32:]
			if e.typ == 0 {
				e.payload = msg[24:]
			}
		}
		events = append(events, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

// recordedDump is what a stock daemon showed. It is not valid JSON: a user had
// typed a backslash before a quote. Escaping that backslash is the one
// difference that our dump has.
func recordedDump(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "trace-3node", name))
	if err != nil {
		t.Fatal(err)
	}
	if json.Valid(b) {
		t.Fatalf("%s is valid JSON: not the recording", name)
	}
	return strings.ReplaceAll(string(b), `\\"`, `\\\"`)
}

// userMessages are the messages of the recording that clients logged, by text as packed.
var userMessages = map[string]Message{
	`hello \\"quoted\\" w\u00f6rld`: {Priority: 6, PID: 13312, Ident: "root@pam", Tag: "tag", Text: `hello \"quoted\" wörld`},
	"from three":                    {Priority: 3, PID: 13341, Ident: "root", Tag: "abc", Text: "from three"},
	"while split":                   {Priority: 6, PID: 15786, Ident: "root", Tag: "abc", Text: "while split"},
}

func TestReplayOfRecordingSendsTheSameAndShowsTheSame(t *testing.T) {
	for node := 1; node <= 3; node++ {
		t.Run(fmt.Sprintf("node%d", node), func(t *testing.T) { replay(t, node) })
	}
}

func replay(t *testing.T, node int) {
	const midTime, finalTime = traceEpoch + 476, traceEpoch + 505
	var (
		log     *Log
		now     time.Time
		self    int // pid
		members []traceMember
		states  map[traceMember][]byte
		sent    int // own messages seen, so that the test cannot pass empty
		checked int
	)
	events := readTrace(t, node)
	dumps := []struct {
		at   float64
		name string
	}{{midTime, "mid"}, {finalTime, "final"}}
	for i, e := range events {
		for len(dumps) > 0 && e.Time > dumps[0].at {
			got := string(log.Dump(0, ""))
			if want := recordedDump(t, fmt.Sprintf("%s-node%d.clusterlog", dumps[0].name, node)); got != want {
				t.Errorf("%s: dump\n%swant\n%s", dumps[0].name, got, want)
			}
			dumps = dumps[1:]
			checked++
		}
		now = time.Unix(int64(e.Time), 0)
		switch {
		case e.Event == "join":
			var err error
			log, err = New(Config{Node: fmt.Sprintf("node%d", node), Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			self = nextPID(events[i:], node)
			log.Add(Message{Priority: 6, PID: uint32(self), Ident: "root", Tag: "cluster", Text: "starting cluster log"})
		case e.Event == "confchg":
			members, states = e.Members, map[traceMember][]byte{}
		case e.Event == "mcast" && e.typ == 0:
			entry, err := ParseEntry(e.payload)
			if err != nil {
				t.Fatal(err)
			}
			m, ok := userMessages[string(entry.Text())]
			if !ok {
				t.Fatalf("unknown message %q", entry.Text())
			}
			if got := log.Add(m); !bytes.Equal(got, e.payload) {
				t.Errorf("t=%f: sends\n%x, want\n%x", e.Time, got, e.payload)
			}
			sent++
		case e.Event == "mcast" && e.typ == 2:
			if got := log.State(); !bytes.Equal(got, e.payload) {
				t.Errorf("t=%f: another state than recorded", e.Time)
			}
			sent++
		case e.Event == "deliver" && e.typ == 0 && e.NodeID != node:
			if ok, err := log.Insert(e.payload); !ok || err != nil {
				t.Errorf("t=%f: entry refused: %v %v", e.Time, ok, err)
			}
		case e.Event == "deliver" && e.typ == 2:
			states[traceMember{e.NodeID, e.PID}] = e.payload
			if len(states) != len(members) {
				break
			}
			var rings [][]byte
			for _, m := range members {
				rings = append(rings, states[m])
			}
			if err := log.Merge(rings); err != nil {
				t.Errorf("t=%f: %v", e.Time, err)
			}
		}
	}
	if sent < 5 || checked != 2 {
		t.Errorf("only %d own messages and %d dumps in the recording", sent, checked)
	}
}

// nextPID is the pid under which node appears in the first view.
func nextPID(events []traceEvent, node int) int {
	for _, e := range events {
		if e.Event != "confchg" {
			continue
		}
		for _, m := range e.Members {
			if m.NodeID == node {
				return m.PID
			}
		}
	}
	return 0
}

func TestRecordedRingsRebuildToTheSameBytes(t *testing.T) {
	rings := 0
	for node := 1; node <= 3; node++ {
		for _, e := range readTrace(t, node) {
			if e.typ != 2 || e.payload == nil {
				continue
			}
			list, err := ParseRing(e.payload)
			if err != nil {
				t.Fatalf("node %d, t=%f: %v", node, e.Time, err)
			}
			if len(list) == 0 {
				t.Errorf("node %d, t=%f: no entry", node, e.Time)
			}
			if !json.Valid(dump(list)) {
				t.Errorf("node %d, t=%f: the dump is not JSON", node, e.Time)
			}
			for _, entry := range list {
				if entry.NodeDigest() != Digest(string(entry.Node())) || entry.IdentDigest() != Digest(string(entry.Ident())) {
					t.Errorf("digests of %s, %s differ", entry.Node(), entry.Ident())
				}
			}
			if !bytes.Equal(rebuild(list).buf, e.payload) {
				t.Errorf("node %d, t=%f: rebuilt differs", node, e.Time)
			}
			rings++
		}
	}
	if rings < 70 {
		t.Errorf("%d rings in the recordings", rings)
	}
}
