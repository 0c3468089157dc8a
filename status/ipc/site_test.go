package ipc

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/memdb"
	"pmxcfs/status"
)

const testGID = 33

// site is the tree and the store of node one, in a cluster with node two.
type site struct {
	tree  *memdb.Tree
	store *status.Store
	group group
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{tree: memdb.New()}
	s.mkdir(t, "priv")
	for _, node := range []string{"nodes/one", "nodes/two"} {
		s.mkdir(t, node+"/qemu-server")
		s.mkdir(t, node+"/lxc")
		s.mkdir(t, node+"/priv")
	}
	var err error
	s.store, err = status.New(status.Config{Tree: s.tree, NodeName: "one", PID: 42, Start: time.Unix(1700000000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	s.store.SetCluster(status.ClusterInfo{Name: "lab", Version: 1, Self: 1, Nodes: []status.ClusterNode{{ID: 1, Name: "one"}, {ID: 2, Name: "two"}}})
	s.store.SetGroup(&s.group)
	return s
}

// group is the process group as the store sees it: it keeps what is posted.
type group struct {
	mu      sync.Mutex
	posted  map[uint16]int // by subtype
	waiting int
	hold    chan struct{} // if not nil, Post waits for it
}

const (
	postedValue uint16 = 1
	postedLog   uint16 = 3
)

func (g *group) Post(subtype uint16, payload []byte) {
	g.mu.Lock()
	if g.posted == nil {
		g.posted = map[uint16]int{}
	}
	g.posted[subtype]++
	hold := g.hold
	g.waiting++
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
}

// count returns how many messages have been posted.
func (g *group) count() (values, logged int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.posted[postedValue], g.posted[postedLog]
}

// held returns how many posts wait.
func (g *group) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// deliver applies a message of node two.
func (s *site) deliver(t testing.TB, subtype uint16, payload []byte) {
	t.Helper()
	done := s.store.App().Apply([]dfsm.Message{{From: corosync.Member{Node: 2, PID: 9}, Subtype: subtype, Payload: payload}})
	if done.Err != nil || done.Results != nil {
		t.Fatalf("%+v", done)
	}
}

func (s *site) apply(t testing.TB, op memdb.Op) {
	t.Helper()
	if _, err := s.tree.Apply(&op); err != nil {
		t.Fatal(err)
	}
}

// mkdir makes a directory and those above it.
func (s *site) mkdir(t testing.TB, path string) {
	t.Helper()
	if _, ok := s.tree.Lookup(path); ok || path == "" {
		return
	}
	above, _ := memdb.Split(path)
	s.mkdir(t, above)
	s.apply(t, memdb.Op{Kind: memdb.OpMkdir, Path: path})
}

// write makes content a file's whole content.
func (s *site) write(t testing.TB, path, content string) {
	t.Helper()
	if _, ok := s.tree.Lookup(path); !ok {
		above, _ := memdb.Split(path)
		s.mkdir(t, above)
		s.apply(t, memdb.Op{Kind: memdb.OpCreate, Path: path})
	}
	s.apply(t, memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(content), Truncate: true})
}

func (s *site) remove(t testing.TB, path string) {
	t.Helper()
	s.apply(t, memdb.Op{Kind: memdb.OpDelete, Path: path})
}

// confOf is the path of a guest of node one.
func confOf(vmid uint32) string { return fmt.Sprintf("nodes/one/qemu-server/%d.conf", vmid) }

func (s *site) set(t testing.TB, key, value string) {
	t.Helper()
	if err := s.store.Set(key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// entry is a line of .clusterlog.
type entry struct {
	Pri                  uint8
	PID                  uint32
	Node, User, Tag, Msg string
}

// log returns the cluster log, the newest entry first.
func (s *site) log(t testing.TB) []entry {
	t.Helper()
	var log struct{ Data []entry }
	if err := json.Unmarshal(s.store.ClusterLog(0, ""), &log); err != nil {
		t.Fatal(err)
	}
	return log.Data
}

func (s *site) config() Config {
	return Config{GID: testGID, Tree: s.tree, Store: s.store, Logger: slog.New(slog.DiscardHandler)}
}

// direct returns a client without libqb between.
func (s *site) direct(t testing.TB, access Access) *client {
	t.Helper()
	service, err := newService(s.config())
	if err != nil {
		t.Fatal(err)
	}
	c := &client{service: service, access: access}
	c.peer.PID = 4321
	return c
}

// name256 is a name in its field.
func name256(s string) []byte { return append([]byte(s), make([]byte, nameLen-len(s))...) }

func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		case int:
			b = append(b, byte(p))
		case uint32:
			b = append(b, byte(p), byte(p>>8), byte(p>>16), byte(p>>24))
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return b
}

const (
	ok0    = syscall.Errno(0)
	einval = syscall.EINVAL
	enoent = syscall.ENOENT
	eperm  = syscall.EPERM
)
