package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/dfsmtest"
	"pmxcfs/dfsm/wire"
	"pmxcfs/memdb"
	"pmxcfs/status/clusterlog"
)

// The recordings are of three stock daemons, which were cut off, stopped and
// started again: all that crossed the boundary between each and its process
// groups, and what their special files showed before the partition (mid) and at
// the end (final). By then corosync.conf had been replaced.

const (
	midTime   = 1795251476 // seconds since 1970
	finalTime = 1795251505
)

// userMessages are what clients logged, by text as packed.
var userMessages = map[string]clusterlog.Message{
	`hello \\"quoted\\" w\u00f6rld`: {Priority: 6, PID: 13312, Ident: "root@pam", Tag: "tag", Text: `hello \"quoted\" wörld`},
	"from three":                    {Priority: 3, PID: 13341, Ident: "root", Tag: "abc", Text: "from three"},
	"while split":                   {Priority: 6, PID: 15786, Ident: "root", Tag: "abc", Text: "while split"},
}

func labCluster(self, nodes int, version uint64) ClusterInfo {
	info := ClusterInfo{Name: "lab", Version: version, Self: corosync.NodeID(self)}
	for i := range nodes {
		info.Nodes = append(info.Nodes, ClusterNode{ID: corosync.NodeID(i + 1), Name: fmt.Sprintf("node%d", i+1), Ring0Addr: address(i + 1)})
	}
	return info
}

func address(node int) string { return fmt.Sprintf("10.99.0.%d", node) }

// recordedNode replays one node's recording; it may have started several times.
type recordedNode struct {
	t       *testing.T
	node    int
	starts  int
	checks  []check // still to do
	checked int
	calls   int // of users
}

type check struct {
	at   uint32
	name string
}

// recordedApp is the store within one run of the node's daemon.
type recordedApp struct {
	dfsm.Application
	*recordedNode
	p      *dfsmtest.Playback
	store  *Store
	posted [][]byte // by the store itself, not delivered yet
	user   *dfsm.Message
	member bool
}

func (n *recordedNode) newApp(p *dfsmtest.Playback) dfsmtest.App {
	n.starts++
	store := mustNew(Config{
		Tree: memdb.New(), NodeName: fmt.Sprintf("node%d", n.node), Address: address(n.node), PID: p.Self.PID,
		Start: time.Unix(int64(p.Now()), 0),
		Now:   func() time.Time { return time.Unix(int64(p.Now()), 0) },
	})
	a := &recordedApp{Application: store.App(), recordedNode: n, p: p, store: store}
	store.SetGroup(a)
	store.SetCluster(labCluster(n.node, 3, 1))
	return a
}

// Post sends what the store has to say, unless it says it for a user: that
// message is the recording's, and is compared with it here.
func (a *recordedApp) Post(subtype uint16, payload []byte) {
	if m := a.user; m != nil {
		if subtype != m.Subtype || !samePayload(m.Payload, payload) {
			a.t.Errorf("for a user, sends type %d\n%q, recorded %d\n%q", subtype, payload, m.Subtype, m.Payload)
		}
		a.user = nil
		return
	}
	a.posted = append(a.posted, payload)
	a.p.Post(subtype, payload)
}

// samePayload compares payloads; what follows the key in its field was
// uninitialised memory of the stock daemon's.
func samePayload(a, b []byte) bool {
	keyA, valueA, errA := decodeUpdate(a)
	keyB, valueB, errB := decodeUpdate(b)
	if errA == nil && errB == nil && len(a) != clusterlog.RingSize {
		return keyA == keyB && bytes.Equal(valueA, valueB)
	}
	return bytes.Equal(a, b)
}

func (a *recordedApp) Apply(batch []dfsm.Message) dfsm.Applied {
	a.due(a.p.Now())
	for i := range batch {
		if m := &batch[i]; m.Own {
			if len(a.posted) > 0 && samePayload(m.Payload, a.posted[0]) {
				a.posted = a.posted[1:]
			} else {
				a.call(m)
			}
		}
	}
	return a.Application.Apply(batch)
}

// call does what the user did whose message this is.
func (a *recordedApp) call(m *dfsm.Message) {
	a.calls++
	a.user = m
	if m.Subtype == subtypeLog {
		entry, err := clusterlog.ParseEntry(m.Payload)
		if err != nil {
			a.t.Fatal(err)
		}
		msg, ok := userMessages[string(entry.Text())]
		if !ok {
			a.t.Fatalf("unknown message %q", entry.Text())
		}
		a.store.Log(msg)
	} else {
		key, value, err := decodeUpdate(m.Payload)
		if err == nil {
			err = a.store.Set(key, value)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
	if a.user != nil {
		a.t.Errorf("sends nothing for a user's %q", m.Payload)
		a.user = nil
	}
}

// Quorum events have no time in a replay; the only loss of quorum follows mid.
func (a *recordedApp) Quorum(quorate bool) {
	if a.member && !quorate {
		a.due(midTime + 1)
	}
	a.store.SetQuorate(quorate)
}

func (a *recordedApp) ViewChanged(m []dfsm.Member) {
	a.member = true
	a.due(a.p.Now())
	a.Application.ViewChanged(m)
}

func (a *recordedApp) ModeChanged(m dfsm.Mode) {
	a.due(a.p.Now())
	a.Application.ModeChanged(m)
}

// due compares what the special files show once their time has come.
func (a *recordedApp) due(now uint32) {
	for len(a.checks) > 0 && a.checks[0].at < now {
		name := a.checks[0].name
		if name == "final" {
			a.store.SetCluster(labCluster(a.node, 3, 2))
		}
		a.compare(fmt.Sprintf("%s-node%d", name, a.node))
		a.checks = a.checks[1:]
		a.checked++
	}
}

func (a *recordedApp) compare(name string) {
	read := func(suffix string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "trace-3node", name+suffix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.t.Fatal(err)
		}
		return b
	}
	if got, want := decode(a.t, a.store.Members()), decode(a.t, read(".members")); !reflect.DeepEqual(got, want) {
		a.t.Errorf("%s.members: %v, want %v", name, got, want)
	}
	version, recorded := a.store.Version(), read(".version")
	if got, want := topKeys(a.t, version), topKeys(a.t, recorded); !slices.Equal(got, want) {
		a.t.Errorf("%s.version has %q, want %q", name, got, want)
	}
	got, want := decode(a.t, version), decode(a.t, recorded)
	for _, key := range []string{"starttime", "clinfo", "kvstore"} {
		if !reflect.DeepEqual(got[key], want[key]) {
			a.t.Errorf("%s.version has %s %v, want %v", name, key, got[key], want[key])
		}
	}
	if got, want := a.store.RRD(), read(".rrd"); !bytes.Equal(got, want) {
		a.t.Errorf("%s.rrd: %q, want %q", name, got, want)
	}
	// The recorded one is not valid JSON: a user had typed a backslash before a
	// quote, which the stock daemon doesn't escape.
	log, err := os.ReadFile(filepath.Join("clusterlog", "testdata", "trace-3node", name+".clusterlog"))
	if err != nil {
		a.t.Fatal(err)
	}
	if got, want := string(a.store.ClusterLog(0, "")), strings.ReplaceAll(string(log), `\\"`, `\\\"`); got != want {
		a.t.Errorf("%s.clusterlog: %s, want %s", name, got, want)
	}
}

// topKeys lists the keys of a JSON object in their order.
func topKeys(t *testing.T, b []byte) (keys []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	depth, key := 0, false
	for {
		token, err := d.Token()
		if err != nil {
			return keys
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' {
				depth++
			} else {
				depth--
			}
			key = depth == 1
		case string:
			if depth == 1 && key {
				keys = append(keys, v)
			}
			key = !key
		default:
			key = true
		}
	}
}

func TestRecordedNodesSendAndShowWhatTheStoreSendsAndShows(t *testing.T) {
	starts, users := []int{1, 2, 2}, []int{3, 2, 1}
	for node := 1; node <= 3; node++ {
		t.Run(fmt.Sprintf("node%d", node), func(t *testing.T) {
			records, err := dfsmtest.RecordedNode(node, GroupName)
			if err != nil {
				t.Fatal(err)
			}
			n := &recordedNode{t: t, node: node, checks: []check{{midTime, "mid"}, {finalTime, "final"}}}
			stats, err := dfsmtest.Replay(records, dfsmtest.ReplayConfig{
				NodeID: corosync.NodeID(node), Version: GroupVersion,
				NewApp: n.newApp,
				Equal:  func(_ wire.Type, recorded, sent []byte) bool { return samePayload(recorded, sent) },
				Done: func(p *dfsmtest.Playback) {
					a := p.App.(*recordedApp)
					if n.starts == starts[node-1] {
						a.due(^uint32(0))
					}
					if len(a.posted) > 0 {
						t.Errorf("%d messages sent that were not delivered", len(a.posted))
					}
					if p.Machine.Mode() != dfsm.ModeSynced {
						t.Errorf("%v ends in mode %v", p.Self, p.Machine.Mode())
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v, %d users' calls", stats, n.calls)
			if n.starts != starts[node-1] || n.checked != 2 || n.calls != users[node-1] {
				t.Errorf("%d starts, %d comparisons of the special files, %d users' calls", n.starts, n.checked, n.calls)
			}
			if stats.Compared[wire.Normal] < 6 || stats.Compared[wire.State] < 4 {
				t.Errorf("only %v messages compared", stats.Compared)
			}
		})
	}
}
