package metrics

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/fuse"
	"pmxcfs/internal/tally"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/history"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/health"
	"pmxcfs/status/ipc"
	"pmxcfs/status/rrd"
)

// newNode returns metrics over a real database and tree of so many entries, and the
// store that changes them.
func newNode(t testing.TB, entries int) (*Metrics, *dcdb.Local, *memdb.Tree) {
	t.Helper()
	m := New(Config{Version: "1.2.3"})
	store, tree := newNodeOf(t, m, entries, m.Database, m.Changes)
	return m, store, tree
}

func newNodeOf(t testing.TB, m *Metrics, entries int, database sqlite.Observer, observer dcdb.Observer) (*dcdb.Local, *memdb.Tree) {
	t.Helper()
	db, rows, _, err := sqlite.Open(sqlite.Config{Path: filepath.Join(t.TempDir(), "config.db"), Observer: database})
	if err != nil {
		t.Fatal(err)
	}
	root := rows[0]
	for i := 1; i < entries; i++ {
		inode := uint64(i + 1)
		rows = append(rows, memdb.NewEntry(inode, memdb.RootInode, inode, 0, 0, memdb.TypeFile, fmt.Sprint("f", i), make([]byte, 100)))
	}
	rows[0] = memdb.NewEntry(memdb.RootInode, memdb.RootInode, uint64(entries)+1, 0, 0, memdb.TypeDir, "", nil)
	var changes []memdb.Change
	for _, e := range rows {
		c := memdb.Change{Inode: e.Inode, New: e}
		if e.Inode == memdb.RootInode {
			c.Old = root
		}
		changes = append(changes, c)
	}
	if err := db.Commit(changes); err != nil {
		t.Fatal(err)
	}
	tree, _, err := memdb.Build(rows)
	if err != nil {
		t.Fatal(err)
	}
	store := dcdb.NewLocal(dcdb.Config{Tree: tree, DB: db, Log: slog.New(slog.DiscardHandler), Observer: observer})
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	s := group.Status{
		Connected: true, Mode: dfsm.ModeSynced, Members: make([]dfsm.Member, 3), Synced: 2, Retries: 5,
		Verified: 4, Mismatches: 1, LastVerified: time.Unix(1700000000, 0), QueuedBytes: 9,
	}
	s.Sent.Messages[1], s.Delivered.Bytes[7] = 11, 12
	of := func() group.Status { return s }
	took := tally.New(tally.Times) // the same for all operations
	took.Took(3 * time.Millisecond)
	took.Took(time.Millisecond)
	cluster := new(dcdb.Stats)
	cluster.Sent[group.SyncMemberJoin].Entries.Store(3)
	cluster.Sent[group.SyncMemberJoin].Bytes.Store(300)
	cluster.Received[group.SyncOwnJoin].Entries.Store(4)
	cluster.Received[group.SyncOwnJoin].Bytes.Store(400)
	m.Watch(Sources{
		Node: func() health.Node {
			return health.Node{Cluster: true, Mounted: true, Up: true, Version: tree.Stats(time.Now()).Version,
				Config: health.Group{Connected: true, Mode: dfsm.ModeSynced}, Status: health.Group{Mode: dfsm.ModeSynced}}
		},
		Tree: tree, Database: db, History: func() history.Status {
			return history.Status{Changes: 7, Bytes: 8, Limit: 9, Oldest: time.Unix(10, 0), Gaps: 11, Lost: 12, Lag: 1.5}
		},
		FUSE: func() fuse.Stats {
			s := fuse.Stats{Requests: [fuse.Operations]uint64{fuse.OpRead: 9}, InFlight: 3, Oldest: 2 * time.Second, Pending: 4}
			for op := range s.Took {
				s.Took[op].Add(took)
			}
			return s
		},
		RRD:     func() rrd.Stats { return rrd.Stats{Cached: 1, Direct: 2, Failed: 3, Dropped: 4, Created: 5, Queued: 6} },
		Log:     func() clusterlog.Stats { return clusterlog.Stats{Own: 1, Foreign: 2, Repeated: 3} },
		IPC:     fakeIPC{},
		Cluster: cluster, Groups: map[GroupName]func() group.Status{ConfigGroup: of, StatusGroup: of},
		Corosync: func() Corosync { return Corosync{TreeVersion: 5, HostVersion: 4, RunningVersion: 3, Nodes: 3} },
		Peers: func() []Peer {
			return []Peer{{"b", 77, 3 * time.Second}, {"c\xff", 78, 0}, {"c\xfe", 79, 0}}
		},
	})
	return store, tree
}

type fakeIPC struct{}

func (fakeIPC) Clients() (full, readOnly int) { return 2, 7 }
func (fakeIPC) Requests() ipc.Stats           { return ipc.Stats{ipc.OpLog: 8} }

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestWhatSourcesTellIsGiven(t *testing.T) {
	m, store, _ := newNode(t, 10)
	for i := range 3 {
		op := &memdb.Op{Kind: memdb.OpCreate, Path: fmt.Sprint("new", i)}
		if _, err := store.Do(nil, op); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Sync(nil); err != nil {
		t.Fatal(err)
	}
	m.FUSE.Failed(fuse.OpWrite, syscall.ENOSPC)
	m.FUSE.Failed(fuse.OpRename, 133)
	m.FUSE.Failed(fuse.OpRename, 100000)
	m.IPC.Took(ipc.OpGetConfig, time.Millisecond)
	m.IPC.Failed(0, syscall.ECHRNG)
	m.Latencies.Delivered(memdb.OpCreate, time.Second)
	m.Latencies.Stored(memdb.OpCreate, time.Second)
	m.Latencies.Stored(0, time.Second)
	m.Latencies.Stored(99, time.Second)
	m.Syncs.Of(StatusGroup)(group.SyncOwnJoin, 100*time.Millisecond)
	out := scrape(t, m)
	for _, line := range []string{
		`pmxcfs_changes_total{class="other",operation="create"} 3`,
		`pmxcfs_node_changes_total{node="local"} 3`,
		`pmxcfs_database_version 14`,
		`pmxcfs_tree_entries 13`,
		`pmxcfs_tree_entries_limit 262144`,
		`pmxcfs_tree_bytes 900`,
		`pmxcfs_database_transactions_total{result="committed"} 4`,
		`pmxcfs_database_transaction_duration_seconds_count 4`,
		`pmxcfs_database_transaction_rows_sum 12`,
		`pmxcfs_database_syncs_total{result="done"} 1`,
		`pmxcfs_database_sync_duration_seconds_count 1`,
		`pmxcfs_fuse_request_duration_seconds_count{operation="write"} 2`,
		`pmxcfs_fuse_request_errors_total{errno="ENOSPC",operation="write"} 1`,
		`pmxcfs_fuse_request_errors_total{errno="other",operation="rename"} 1`,
		`pmxcfs_fuse_oldest_request_age_seconds 2`,
		`pmxcfs_ipc_request_duration_seconds_count{operation="get_config"} 1`,
		`pmxcfs_ipc_request_errors_total{errno="ECHRNG",operation="unknown"} 1`,
		`pmxcfs_ipc_clients{access="read_only"} 7`,
		`pmxcfs_ipc_requests_total{operation="log"} 8`,
		`pmxcfs_fuse_requests_total{operation="read"} 9`,
		`pmxcfs_change_commit_duration_seconds_count{operation="create"} 1`,
		`pmxcfs_change_delivery_duration_seconds_sum{operation="create"} 1`,
		`pmxcfs_group_sync_duration_seconds_count{group="kvstore",reason="own_join"} 1`,
		`pmxcfs_sync_entries_total{direction="sent",reason="member_joined"} 3`,
		`pmxcfs_sync_bytes_total{direction="sent",reason="member_joined"} 300`,
		`pmxcfs_sync_entries_total{direction="received",reason="own_join"} 4`,
		`pmxcfs_sync_bytes_total{direction="received",reason="own_join"} 400`,
		`pmxcfs_sync_bytes_total{direction="received",reason="member_joined"} 0`,
		`pmxcfs_group_mode{group="dcdb",mode="synced"} 1`,
		`pmxcfs_group_mode{group="dcdb",mode="start_sync"} 0`,
		`pmxcfs_group_members{group="dcdb",state="joined"} 3`,
		`pmxcfs_group_members{group="dcdb",state="synced"} 2`,
		`pmxcfs_group_messages_total{direction="sent",group="dcdb",type="sync_start"} 11`,
		`pmxcfs_group_message_bytes_total{direction="received",group="kvstore",type="unknown"} 12`,
		`pmxcfs_group_verifications_total{group="dcdb",result="different"} 1`,
		`pmxcfs_group_last_verification_timestamp_seconds{group="dcdb"} 1.7e+09`,
		`pmxcfs_quorate 0`,
		`pmxcfs_ready 0`,
		`pmxcfs_not_ready{reason="not_quorate"} 1`,
		`pmxcfs_not_ready{reason="not_synced"} 0`,
		`pmxcfs_corosync_config_version{copy="running"} 3`,
		`pmxcfs_corosync_config_refused 0`,
		`pmxcfs_peer_database_version{node="b"} 77`,
		`pmxcfs_rrd_samples_total{result="dropped"} 4`,
		`pmxcfs_clusterlog_entries_total{origin="remote"} 2`,
		`pmxcfs_build_info{goversion="`,
	} {
		if !strings.Contains(out, "\n"+line) {
			t.Errorf("it lacks %s", line)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestNativeHistogramsAreGivenToWhoAsksForThem(t *testing.T) {
	m, _, _ := newNode(t, 1)
	for i := range 1000 {
		m.IPC.Took(ipc.OpLog, time.Duration(i)*time.Microsecond)
	}
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var h *dto.Histogram
	for _, f := range families {
		if f.GetName() != "pmxcfs_ipc_request_duration_seconds" {
			continue
		}
		for _, x := range f.Metric {
			if x.Label[0].GetValue() == "log" {
				h = x.Histogram
			}
		}
	}
	if h.GetSampleCount() != 1000 || len(h.GetBucket()) != 15 || len(h.GetPositiveDelta()) < 10 {
		t.Errorf("%v", h)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	m.Handler().ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/vnd.google.protobuf") {
		t.Error(got)
	}
}

// What is told of durations is what Prometheus' own histogram tells, but for what is shorter than a
// microsecond, which is all in the bucket around zero.
func TestHistogramsTellWhatPrometheusTells(t *testing.T) {
	reg := prometheus.NewRegistry()
	var bounds []float64
	empty := tally.New(tally.Times).Snapshot()
	for _, b := range empty.Classic() {
		bounds = append(bounds, b.Upper)
	}
	const threshold = 1.0 / (1 << 20)
	theirs := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "theirs", Buckets: bounds, NativeHistogramBucketFactor: 1.2, NativeHistogramZeroThreshold: threshold,
	})
	reg.MustRegister(theirs)
	ours := newHistograms(reg, "ours", "", "label").times("x")
	r := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		d := time.Duration(r.Int64N(int64(1000*time.Second)) >> r.IntN(40))
		ours.Took(d)
		theirs.Observe(d.Seconds())
	}
	families := gathered(t, reg)
	got, want := families["pmxcfs_ours"].Metric[0].Histogram, families["theirs"].Metric[0].Histogram
	if got.GetSampleCount() != want.GetSampleCount() || math.Abs(got.GetSampleSum()/want.GetSampleSum()-1) > 1e-9 {
		t.Errorf("%d, in all %v; want %d and %v", got.GetSampleCount(), got.GetSampleSum(), want.GetSampleCount(), want.GetSampleSum())
	}
	if len(got.Bucket) != len(want.Bucket) {
		t.Fatalf("%d classic buckets, want %d", len(got.Bucket), len(want.Bucket))
	}
	for i, b := range want.Bucket {
		if got.Bucket[i].GetUpperBound() != b.GetUpperBound() || got.Bucket[i].GetCumulativeCount() != b.GetCumulativeCount() {
			t.Errorf("%v, want %v", got.Bucket[i], b)
		}
	}
	if got.GetSchema() != want.GetSchema() || got.GetZeroThreshold() != threshold || got.GetZeroCount() != want.GetZeroCount() {
		t.Errorf("schema %d, %d up to %v; want %d, %d", got.GetSchema(), got.GetZeroCount(), got.GetZeroThreshold(), want.GetSchema(), want.GetZeroCount())
	}
	if got, want := native(got), native(want); !maps.Equal(got, want) {
		t.Errorf("native buckets %v, want %v", got, want)
	}
}

// native returns the counts of native buckets by their numbers.
func native(h *dto.Histogram) map[int32]int64 {
	list := make(map[int32]int64)
	bucket, count, i := int32(0), int64(0), 0
	for _, span := range h.PositiveSpan {
		bucket += span.GetOffset()
		for range span.GetLength() {
			if count += h.PositiveDelta[i]; count > 0 {
				list[bucket] = count
			}
			bucket++
			i++
		}
	}
	return list
}

// gate stops the first who comes to it once it is closed.
type gate struct {
	closed          atomic.Bool
	arrived, opened chan struct{}
}

func (g *gate) pass() {
	if g.closed.CompareAndSwap(true, false) {
		close(g.arrived)
		<-g.opened
	}
}

type (
	gatedDatabase struct {
		sqlite.Observer
		*gate
	}
	gatedChanges struct {
		dcdb.Observer
		*gate
	}
)

func (g gatedDatabase) Committed(rows, bytes int, took time.Duration) {
	g.Observer.Committed(rows, bytes, took)
	g.pass()
}

func (g gatedChanges) Applied(op *memdb.Op, changes []memdb.Change, foreign bool) {
	g.Observer.Applied(op, changes, foreign)
	g.pass()
}

// A writer is stopped with all the locks that it has while a transaction is finished, or while a
// change is made: a scrape that took one of them would not end. (That the tree's figures take
// none is tested in memdb.)
func TestScrapeTakesNoLockOfAWriter(t *testing.T) {
	for _, where := range []string{"commit", "change"} {
		t.Run(where, func(t *testing.T) {
			m := New(Config{Version: "1.2.3"})
			stop := &gate{arrived: make(chan struct{}), opened: make(chan struct{})}
			var database sqlite.Observer = m.Database
			var changes dcdb.Observer = m.Changes
			if where == "commit" {
				database = gatedDatabase{database, stop}
			} else {
				changes = gatedChanges{changes, stop}
			}
			store, _ := newNodeOf(t, m, 100, database, changes)
			stop.closed.Store(true)
			written := make(chan error, 1)
			go func() {
				_, err := store.Do(nil, &memdb.Op{Kind: memdb.OpCreate, Path: "new"})
				written <- err
			}()
			<-stop.arrived
			scraped := make(chan string, 1)
			go func() { scraped <- scrape(t, m) }()
			select {
			case out := <-scraped:
				if !strings.Contains(out, "pmxcfs_tree_entries 10") {
					t.Error(out)
				}
			case <-time.After(testutil.Patience):
				t.Error("the scrape waits for a writer")
			}
			close(stop.opened)
			if err := <-written; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestScrapesBesideWriters(t *testing.T) {
	m, store, _ := newNode(t, 100)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				op := &memdb.Op{Kind: memdb.OpWrite, Path: fmt.Sprint("f", 1+w), Data: []byte(fmt.Sprint(i)), Truncate: true}
				if _, err := store.Do(nil, op); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		if out := scrape(t, m); !strings.Contains(out, "pmxcfs_tree_entries 100\n") {
			t.Fatal(out)
		}
	}
}

// Every observation is there at the next scrape, whoever made it and however many there are.
func TestNothingThatWasObservedIsMissing(t *testing.T) {
	m := New(Config{})
	const each = 1000
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for i := range each {
				m.IPC.Took(ipc.OpLog, time.Duration(i)*time.Microsecond)
			}
		})
	}
	stop := make(chan struct{})
	var scraper sync.WaitGroup
	scraper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				scrape(t, m)
			}
		}
	})
	wg.Wait()
	close(stop)
	scraper.Wait()
	if want := fmt.Sprintf("pmxcfs_ipc_request_duration_seconds_count{operation=\"log\"} %d\n", 20*each); !strings.Contains(scrape(t, m), want) {
		t.Errorf("no %q in %s", want, scrape(t, m))
	}
}

// Names that are no UTF-8 may become the same label: all nodes are told nevertheless.
func TestPeersWithNamesThatAreNoText(t *testing.T) {
	m, _, _ := newNode(t, 1)
	out := scrape(t, m)
	for _, line := range []string{
		"pmxcfs_peer_database_version{node=\"b\"} 77\n",
		"pmxcfs_peer_database_version{node=\"c\uFFFD\"} 78\n",
		"pmxcfs_peer_database_version{node=\"c\uFFFD (2)\"} 79\n",
		"pmxcfs_peer_database_version_age_seconds{node=\"c\uFFFD (2)\"} 0\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("no %s in %s", line, out)
		}
	}
}

// BenchmarkScrape is what a scrape costs, with a tree that is full: the goal is 5 ms.
func BenchmarkScrape(b *testing.B) {
	for _, entries := range []int{10, 131072} {
		b.Run(fmt.Sprint(entries, "entries"), func(b *testing.B) {
			m, _, _ := newNode(b, entries)
			for op := range fuse.Operation(fuse.Operations) {
				for i := range 1000 {
					m.FUSE.Failed(op, syscall.Errno(1+i%30))
				}
			}
			h := m.Handler()
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				n, _ := io.Copy(io.Discard, w.Body)
				size = int(n)
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

func TestAScraperThatHangsUpIsNotLogged(t *testing.T) {
	var out strings.Builder
	l := scrapeLog{slog.New(slog.NewTextHandler(&out, nil))}
	const doing = "error encoding and sending metric family:"
	l.Println(doing, context.Canceled)
	l.Println(doing, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)})
	if out.Len() > 0 {
		t.Errorf("logged:\n%s", out.String())
	}
	l.Println(doing, http.ErrHandlerTimeout)
	if !strings.Contains(out.String(), doing+" "+http.ErrHandlerTimeout.Error()) {
		t.Errorf("another fault is not logged: %q", out.String())
	}
}
