package inspect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/health"
	"pmxcfs/status/inspect"
)

var now = time.Unix(1_800_000_000, 0)

// fixture is a service over real parts, with what comes from corosync made up.
type fixture struct {
	*inspect.Client
	tree   *memdb.Tree
	status *status.Store
	recent *inspect.Recent
	peers  *tellers
	conf   string // the host's corosync.conf
}

// tellers are peers that tell what they are told to.
type tellers struct {
	told    []inspect.PeerState
	result  *inspect.Comparison
	err     error
	asked   map[uint32]string
	waiting chan struct{} // closed once a comparison waits for its end; nil means it does not wait
}

func (p *tellers) Peers() []inspect.PeerState { return p.told }
func (p *tellers) Compare(ctx context.Context, names map[uint32]string) (*inspect.Comparison, error) {
	p.asked = names
	if p.waiting != nil {
		close(p.waiting)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.result, p.err
}

func member(node uint32) dfsm.Member {
	return dfsm.Member{Node: corosync.NodeID(node), PID: 100 + node}
}

const confText = "totem {\n  config_version: 4\n}\n"

func newFixture(t *testing.T, cluster bool) *fixture {
	f := &fixture{tree: memdb.New(), recent: &inspect.Recent{}, peers: &tellers{}, conf: filepath.Join(t.TempDir(), "corosync.conf")}
	f.apply(t, memdb.Op{Kind: memdb.OpMkdir, Path: "priv"}, memdb.Op{Kind: memdb.OpMkdir, Path: "priv/lock"},
		memdb.Op{Kind: memdb.OpMkdir, Path: "priv/lock/old"},
		memdb.Op{Kind: memdb.OpCreate, Path: "corosync.conf"}, memdb.Op{Kind: memdb.OpWrite, Path: "corosync.conf", Data: []byte(confText)})
	if err := os.WriteFile(f.conf, []byte(confText), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.status, err = status.New(status.Config{Tree: f.tree, NodeName: "n1", Start: now, Now: func() time.Time { return now }, PID: 7}); err != nil {
		t.Fatal(err)
	}
	cfg := inspect.Config{
		Version: "1.0", Node: "n1", Address: "10.0.0.1", Started: now, MountPoint: "/etc/pve",
		Database: filepath.Join(t.TempDir(), "config.db"), HostConf: f.conf,
		Tree: f.tree, Status: f.status, Commits: &sqlite.Stats{}, Recent: f.recent,
		NotReady: func() []health.Reason { return []health.Reason{{Code: health.NotQuorate, Text: "no quorum"}} },
		Now:      func() time.Time { return now.Add(memdb.LockTimeout + time.Minute) },
	}
	if cluster {
		f.status.SetCluster(status.ClusterInfo{Name: "lab", Version: 4, Self: 1, Nodes: []status.ClusterNode{
			{ID: 1, Name: "n1", Ring0Addr: "10.0.0.1"}, {ID: 2, Name: "n2", Ring0Addr: "10.0.0.2"}, {ID: 3, Ring0Addr: "10.0.0.3"}}})
		g := group.Status{Connected: true, Mode: dfsm.ModeSynced, Self: member(1), Members: []dfsm.Member{member(1), member(2)}, Synced: 2}
		cfg.Cluster = &inspect.ClusterSources{
			Store: func() dcdb.ClusterStatus {
				return dcdb.ClusterStatus{Group: g, Quorate: true, Database: errors.New("disk full")}
			},
			Values: func() group.Status { return group.Status{LastError: errors.New("corosync is away")} },
			Peers:  f.peers,
		}
	}
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: inspect.New(cfg).Handler()}}
	server.Start()
	t.Cleanup(server.Close)
	f.Client = inspect.NewClient(socket)
	return f
}

func (f *fixture) apply(t *testing.T, ops ...memdb.Op) {
	t.Helper()
	for _, op := range ops {
		op.Writer, op.MTime, op.Now = 2, uint32(now.Unix()), now
		if _, err := f.tree.Apply(&op); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStatusOfACluster(t *testing.T) {
	f := newFixture(t, true)
	f.peers.told = []inspect.PeerState{{Member: member(2), Node: "n2", Peer: inspect.Peer{Software: "2.0", Version: 4, Lag: 3}}}
	f.recent.Add(inspect.Problem{First: now, Level: "error", Domain: "dcdb", Text: "of today"})
	f.recent.Add(inspect.Problem{First: now.Add(-48 * time.Hour), Level: "error", Domain: "dcdb", Text: "long ago"})
	s, err := f.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Mode != inspect.ModeCluster || s.Node.ID != 1 || s.Ready || len(s.NotReady) != 1 || s.Daemon.PID != os.Getpid() {
		t.Errorf("%+v", s)
	}
	c := s.Cluster
	if !c.Known || c.Name != "lab" || c.Version != 4 || !c.Quorate || len(c.Groups) != 2 || len(c.Members) != 3 {
		t.Fatalf("%+v", c)
	}
	if g := c.Groups[0]; g.Name != dcdb.GroupName || g.Mode != "synced" || g.Members != 2 || g.Error != "" || g.MemberList[1] != "2/102" {
		t.Errorf("%+v", g)
	}
	if g := c.Groups[1]; g.Name != status.GroupName || g.Mode != "start" || g.Error != "corosync is away" {
		t.Errorf("%+v", g)
	}
	m := c.Members // by name: 10.0.0.3 n1 n2
	if m[0].Name != "10.0.0.3" || m[0].InDatabase || m[0].Peer != nil || m[0].Self {
		t.Errorf("%+v", m[0])
	}
	if !m[1].Self || !m[1].InDatabase || m[2].Peer == nil || m[2].Peer.Software != "2.0" || m[2].Peer.Lag != 3 {
		t.Errorf("%+v", m)
	}
	if s.Database.Error != "disk full" || s.Database.Version != f.tree.Root().Version || s.Database.Entries != 5 {
		t.Errorf("%+v", s.Database)
	}
	if *s.Conf != (inspect.Conf{Tree: 4, Host: 4, Running: 4, Same: true}) {
		t.Errorf("%+v", s.Conf)
	}
	if len(s.Locks) != 1 || s.Locks[0].Name != "old" || s.Locks[0].Holder != "n2" || !s.Locks[0].Expired || !s.Locks[0].Since.Equal(now) {
		t.Errorf("%+v", s.Locks)
	}
	if len(s.Errors) != 1 || s.Errors[0].Text != "of today" {
		t.Errorf("%+v", s.Errors)
	}
	if all, err := f.Errors(t.Context()); err != nil || len(all.Errors) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := os.Remove(f.conf); err != nil {
		t.Fatal(err)
	}
	if s, err = f.Status(t.Context()); err != nil || s.Conf.Same || s.Conf.Host != 0 {
		t.Errorf("%+v, %v", s.Conf, err)
	}
}

func TestStatusAlone(t *testing.T) {
	f := newFixture(t, false)
	s, err := f.Status(t.Context())
	if err != nil || s.Mode != inspect.ModeLocal || s.Cluster != nil || s.Conf != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := f.Compare(t.Context()); !errors.Is(err, inspect.ErrNoCluster) {
		t.Errorf("compare: %v", err)
	}
}

func TestLogHasMoreThanAScreenful(t *testing.T) {
	f := newFixture(t, false)
	for i := range 120 {
		f.status.Log(clusterlog.Message{Priority: 5, Ident: fmt.Sprintf("user%d", i%2), Tag: "test", Text: fmt.Sprintf("line %d", i)})
	}
	for _, tt := range []struct {
		max  int
		user string
		want int
	}{{0, "", 121}, {7, "", 7}, {0, "user1", 60}} {
		l, err := f.Log(t.Context(), tt.max, tt.user)
		if err != nil || len(l.Entries) != tt.want {
			t.Errorf("max %d of %q: %d entries, %v", tt.max, tt.user, len(l.Entries), err)
		} else if tt.user == "" && (l.Entries[0].Text != "line 119" || l.Entries[0].Node != "n1" || l.Entries[0].Priority != 5) {
			t.Errorf("%+v", l.Entries[0])
		}
	}
	if _, err := f.Raw(t.Context(), "/v1/none"); err == nil {
		t.Error("there is a document that is none")
	}
	if body, err := f.Raw(t.Context(), inspect.PathStatus); err != nil || !json.Valid(body) {
		t.Errorf("%s, %v", body, err)
	}
}

func TestCompareNamesThoseWhoTakeNoPart(t *testing.T) {
	f := newFixture(t, true)
	f.peers.result = &inspect.Comparison{Equal: true, Nodes: []inspect.ComparedNode{{Name: "n1", ID: 1, State: inspect.NodeCompared}}}
	c, err := f.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range c.Nodes {
		got = append(got, n.Name+": "+n.State)
	}
	if want := "10.0.0.3: offline, n1: compared, n2: does not take part"; strings.Join(got, ", ") != want || c.Complete {
		t.Errorf("%q, complete %v", got, c.Complete)
	}
	if f.peers.asked[2] != "n2" {
		t.Errorf("names %v", f.peers.asked)
	}
	f.peers.err = inspect.ErrBusy
	if _, err := f.Compare(t.Context()); !errors.Is(err, inspect.ErrBusy) {
		t.Errorf("busy: %v", err)
	}
}

func TestCompareEndsWithItsClient(t *testing.T) {
	f := newFixture(t, true)
	f.peers.waiting = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-f.peers.waiting; cancel() }()
	if _, err := f.Compare(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, inspect.ErrNoAnswer) {
		t.Errorf("%v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	_, err := inspect.NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, inspect.ErrNoAnswer) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestRecentIsBoundedAndCounts(t *testing.T) {
	var r inspect.Recent
	r.Add(inspect.Problem{First: now, Domain: "a", Text: "again and again"})
	for i := range 1000 {
		r.Add(inspect.Problem{First: now.Add(time.Duration(i) * time.Second), Domain: "a", Text: fmt.Sprintf("number %d", i)})
		r.Add(inspect.Problem{First: now.Add(time.Duration(i) * time.Second), Domain: "a", Text: "again and again"})
	}
	r.Add(inspect.Problem{First: now, Domain: "b", Text: strings.Repeat("ä", 5000)})
	list := r.Problems()
	if len(list) != 64 || len(list[0].Text) > 1100 || list[1].Count != 1001 || !list[1].First.Equal(now) || list[2].Text != "number 999" {
		t.Errorf("%d: %+v", len(list), list[:3])
	}
	if _, err := json.Marshal(list); err != nil {
		t.Error(err)
	}
}
