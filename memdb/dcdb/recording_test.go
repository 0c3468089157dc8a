package dcdb

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/dfsmtest"
	"pmxcfs/dfsm/wire"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// The database that all three recorded nodes had at the end.
const (
	finalDB       = "../sqlite/testdata/trace.db.gz"
	finalChecksum = "../sqlite/testdata/trace.checksum.hex"
)

// recordings are what the three nodes saw and did.
var recordings = sync.OnceValues(func() (nodes [3][]dfsmtest.Record, err error) {
	for i := range nodes {
		if nodes[i], err = dfsmtest.RecordedNode(i+1, GroupName); err != nil {
			break
		}
	}
	return nodes, err
})

func recorded(tb testing.TB, node int) []dfsmtest.Record {
	tb.Helper()
	nodes, err := recordings()
	if err != nil {
		tb.Fatal(err)
	}
	return nodes[node-1]
}

// messages returns all recorded messages of some types that any node sent.
func messages(tb testing.TB, types ...wire.Type) (all []wire.Message) {
	tb.Helper()
	for node := 1; node <= 3; node++ {
		for _, rec := range recorded(tb, node) {
			if rec.Kind != dfsmtest.RecordMcast {
				continue
			}
			m, err := wire.Decode(rec.Bytes)
			if err != nil {
				tb.Fatal(err)
			}
			if slices.Contains(types, m.Type) {
				all = append(all, m)
			}
		}
	}
	return all
}

// importedConf is the corosync.conf that every node began with.
func importedConf(tb testing.TB) []byte {
	tb.Helper()
	for _, m := range messages(tb, wire.Update) {
		if e, err := decodeUpdate(m.Payload); err == nil && e.Name == confPath && e.Version == 3 {
			return e.Data()
		}
	}
	tb.Fatal("no update with the first corosync.conf")
	return nil
}

// startDB makes the database that a node began with: empty, but for the host's
// corosync.conf, which was imported at the time that its first state tells.
func startDB(tb testing.TB, records []dfsmtest.Record, path string) {
	tb.Helper()
	for _, rec := range records {
		m, err := wire.Decode(rec.Bytes)
		if rec.Kind != dfsmtest.RecordMcast || err != nil || m.Type != wire.State {
			continue
		}
		x, err := memdb.DecodeIndex(m.Payload)
		if err != nil {
			tb.Fatal(err)
		}
		entries := []*memdb.Entry{
			memdb.NewEntry(0, 0, x.Version, x.Writer, x.MTime, memdb.TypeDir, "", nil),
			memdb.NewEntry(2, 0, 3, 0, x.MTime, memdb.TypeFile, confPath, importedConf(tb)),
		}
		if got := memdb.EncodeIndex(entries); !bytes.Equal(got, m.Payload) {
			tb.Fatalf("the database to begin with has index %x, recorded was %x", got, m.Payload)
		}
		if err := sqlite.Create(path, entries); err != nil {
			tb.Fatal(err)
		}
		return
	}
	tb.Fatal("no state recorded")
}

// playedApp is the application of a replayed daemon.
type playedApp struct {
	*app
	commits int
}

func (a *playedApp) Quorum(quorate bool) { a.quorate.Store(quorate) }
func (a *playedApp) Commit() error       { a.commits++; return a.app.Commit() }

func TestRecordedNodesSendWhatThisDatabaseSends(t *testing.T) {
	wantSum := strings.TrimSpace(string(readFile(t, finalChecksum)))
	commits := 0
	for node := 1; node <= 3; node++ {
		t.Run(fmt.Sprintf("node%d", node), func(t *testing.T) {
			records := recorded(t, node)
			path := filepath.Join(t.TempDir(), "config.db")
			startDB(t, records, path)
			var db *sqlite.DB
			var tree *memdb.Tree
			var logs bytes.Buffer
			stats, err := dfsmtest.Replay(records, dfsmtest.ReplayConfig{
				NodeID: corosync.NodeID(node), Version: ProtocolVersion, Checksums: true,
				NewApp: func(p *dfsmtest.Playback) dfsmtest.App {
					var entries []*memdb.Entry
					var err error
					if db, entries, _, err = sqlite.Open(sqlite.Config{Path: path}); err != nil {
						t.Fatal(err)
					}
					tree = build(t, entries)
					a := &playedApp{app: newTestApp(tree, db)}
					a.log = slog.New(slog.NewTextHandler(&logs, nil))
					a.clock = func() time.Time { return time.Unix(int64(p.Now()), 0) }
					a.self = func() dfsm.Member { return p.Self }
					a.post = p.Post
					return a
				},
				Done: func(p *dfsmtest.Playback) {
					commits += p.App.(*playedApp).commits
					if p.Machine.Mode() != dfsm.ModeSynced {
						t.Errorf("%v ends in mode %v", p.Self, p.Machine.Mode())
					}
					if err := db.Close(); err != nil {
						t.Error(err)
					}
				},
			})
			if err != nil {
				t.Fatalf("%v\n%s", err, logs.String())
			}
			t.Logf("%+v", stats)
			if stats.Replies != stats.Compared[wire.Normal] || stats.Compared[wire.Normal] == 0 {
				t.Errorf("%d results for %d messages", stats.Replies, stats.Compared[wire.Normal])
			}
			if sum := tree.Checksum(); hex.EncodeToString(sum[:]) != wantSum {
				t.Errorf("checksum %x, recorded was %s", sum, wantSum)
			}
			sameRows(t, path)
		})
	}
	if commits < 5 {
		t.Errorf("only %d commits in all", commits)
	}
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sameRows compares a database with the recorded one, row by row.
func sameRows(t *testing.T, path string) {
	t.Helper()
	want := filepath.Join(t.TempDir(), "recorded.db")
	if err := os.WriteFile(want, gunzip(t, finalDB), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := func(path string) (all []string) {
		list, err := sqlite.ReadRows(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r[0] == int64(0) {
				r[5] = int64(memdb.TypeFile) // the version row's type may be either
			}
			all = append(all, fmt.Sprintf("%q", r))
		}
		return all
	}
	if got, want := strings.Join(rows(path), "\n"), strings.Join(rows(want), "\n"); got != want {
		t.Errorf("the database holds\n%s\nrecorded was\n%s", got, want)
	}
}

func TestRecordedMessagesDecodeAndEncodeToTheSameBytes(t *testing.T) {
	var kinds [9]int
	for _, m := range messages(t, wire.Normal) {
		kinds[m.Subtype]++
		var got []byte
		if m.Subtype >= msgUnlockRequest {
			path, digest, err := decodeUnlock(m.Payload)
			if err != nil {
				t.Fatal(err)
			}
			got = encodeUnlock(path, digest)
		} else {
			op, err := decodeOp(memdb.Kind(m.Subtype), m.Payload)
			if err != nil {
				t.Fatal(err)
			}
			got = encodeOp(op)
		}
		if !bytes.Equal(got, m.Payload) {
			t.Errorf("subtype %d: recorded %x, encoded %x", m.Subtype, m.Payload, got)
		}
	}
	for kind := 1; kind <= msgUnlockRequest; kind++ {
		if kinds[kind] == 0 {
			t.Errorf("no message of type %d is recorded", kind)
		}
	}
	updates := messages(t, wire.Update)
	if len(updates) < 10 {
		t.Errorf("only %d updates are recorded", len(updates))
	}
	for _, m := range updates {
		e, err := decodeUpdate(m.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendUpdate(nil, e); !bytes.Equal(got, m.Payload) {
			t.Errorf("update: recorded %x, encoded %x", m.Payload, got)
		}
	}
}
