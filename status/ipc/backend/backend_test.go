package backend

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/dfsm"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/status"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/ipc"
)

// site is a tree and a store behind a running service.
type site struct {
	tree   *memdb.Tree
	store  *status.Store
	app    dfsm.Application
	client *qbclient.Client
}

func apply(t testing.TB, tree *memdb.Tree, ops ...memdb.Op) {
	t.Helper()
	for i := range ops {
		if _, err := tree.Apply(&ops[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func mkdir(path string) memdb.Op { return memdb.Op{Kind: memdb.OpMkdir, Path: path} }

func write(t testing.TB, tree *memdb.Tree, path, content string) {
	t.Helper()
	if _, ok := tree.Lookup(path); !ok {
		apply(t, tree, memdb.Op{Kind: memdb.OpCreate, Path: path})
	}
	apply(t, tree, memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(content), Truncate: true})
}

func newTree(t testing.TB) *memdb.Tree {
	tree := memdb.New()
	apply(t, tree, mkdir("priv"), mkdir("nodes"))
	for _, node := range []string{"nodes/one", "nodes/two"} {
		apply(t, tree, mkdir(node), mkdir(node+"/qemu-server"), mkdir(node+"/lxc"), mkdir(node+"/priv"))
	}
	return tree
}

// newSite starts the service under a name of its own. This process has full access as
// a client, so it needs root.
func newSite(t testing.TB) *site {
	t.Helper()
	if os.Geteuid() != 0 || os.Getegid() != 0 {
		t.Skip("needs root: full access is uid 0 with gid 0")
	}
	s := &site{tree: newTree(t)}
	var err error
	s.store, err = status.New(status.Config{Tree: s.tree, NodeName: "one", PID: 42, Start: time.Unix(1700000000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	s.store.SetCluster(status.ClusterInfo{Name: "lab", Version: 1, Self: 1, Nodes: []status.ClusterNode{{ID: 1, Name: "one"}, {ID: 2, Name: "two"}}})
	s.app = s.store.App()
	cfg := ipc.Config{Name: qbtest.Name(), GID: 33, Logger: slog.New(slog.DiscardHandler)}
	Configure(&cfg, s.tree, s.store)
	service, err := ipc.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Stop)
	if s.client, err = qbclient.Dial(cfg.Name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

func (s *site) ask(t testing.TB, op int32, data string) (string, syscall.Errno) {
	t.Helper()
	out, err := s.client.SendRecv(op, []byte(data), 20*time.Second)
	var re *qbclient.ResponseError
	if errors.As(err, &re) {
		return "", re.Errno
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// want asks and compares.
func (s *site) want(t testing.TB, op int32, data, answer string, errno syscall.Errno) {
	t.Helper()
	if got, e := s.ask(t, op, data); got != answer || e != errno {
		t.Errorf("op %d, %.40q: %q, %v, want %q, %v", op, data, got, e, answer, errno)
	}
}

func name256(s string) string { return s + strings.Repeat("\x00", 256-len(s)) }

func le32(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }

// update is the payload of another node's update.
func update(key, value string) []byte { return []byte(name256(key) + value) }

func (s *site) deliver(t testing.TB, subtype uint16, payload []byte) {
	t.Helper()
	done := s.app.Apply([]dfsm.Message{{From: corosync.Member{Node: 2, PID: 9}, Subtype: subtype, Payload: payload}})
	if done.Err != nil || done.Results != nil {
		t.Fatalf("%+v", done)
	}
}

func TestClientsSeeWhatTheSpecialFilesShow(t *testing.T) {
	testutil.NoLeaks(t)
	s := newSite(t)
	write(t, s.tree, "nodes/two/lxc/101.conf", "")
	s.want(t, ipc.OpVersion, "", string(s.store.Version()), 0)
	s.want(t, ipc.OpClusterInfo, "", string(s.store.Members()), 0)
	s.want(t, ipc.OpGuestList, "", string(s.store.VMList()), 0)
	s.want(t, ipc.OpGetLog, le32(0)+le32(0)+le32(0)+le32(0)+"\x00", string(s.store.ClusterLog(0, "")), 0)
	s.want(t, ipc.OpRRDDump, "", "\x00", 0)
	if !strings.Contains(string(s.store.VMList()), `"101"`) || !strings.Contains(string(s.store.Members()), `"two"`) {
		t.Error("the answers say nothing")
	}
}

func TestClientsSetAndGetValues(t *testing.T) {
	testutil.NoLeaks(t)
	s := newSite(t)
	get := func(key, node string) string { return name256(key) + name256(node) }
	s.want(t, ipc.OpGetStatus, get("k", ""), "", syscall.ENOENT)
	s.want(t, ipc.OpSetStatus, name256("k")+"value", "", 0)
	s.want(t, ipc.OpGetStatus, get("k", ""), "value", 0)
	s.want(t, ipc.OpGetStatus, get("k", "one"), "value", 0)
	s.want(t, ipc.OpGetStatus, get("k", "two"), "", syscall.ENOENT)
	s.deliver(t, 1, update("k", "theirs"))
	s.want(t, ipc.OpGetStatus, get("k", "two"), "theirs", 0)
	s.want(t, ipc.OpSetStatus, name256("k"), "", 0)
	s.want(t, ipc.OpGetStatus, get("k", ""), "", syscall.ENOENT)

	full := strings.Repeat("v", status.MaxValue)
	s.want(t, ipc.OpSetStatus, name256("big")+full, "", 0)
	s.want(t, ipc.OpGetStatus, get("big", "one"), full, 0)
	s.want(t, ipc.OpSetStatus, name256("big")+full+"v", "", syscall.EFBIG)

	s.want(t, ipc.OpSetStatus, name256("nodeip")+"10.0.0.1\x00", "", 0)
	s.want(t, ipc.OpSetStatus, name256("nodeip")+"10.0.0.2", "", syscall.ENOMEM)
	s.want(t, ipc.OpGetStatus, get("nodeip", ""), "", syscall.ENOENT)
	if members, _ := s.ask(t, ipc.OpClusterInfo, ""); !strings.Contains(members, `"ip": "10.0.0.1"`) {
		t.Errorf("members are %s", members)
	}
	s.want(t, ipc.OpSetStatus, name256("rrd/k")+"1:2\x00", "", 0)
	s.want(t, ipc.OpSetStatus, name256("rrd/k")+"1\n2\x00", "", syscall.ENOMEM)
	s.want(t, ipc.OpSetStatus, name256("rrd/")+"1\x00", "", syscall.EINVAL)
	s.want(t, ipc.OpRRDDump, "", "k:1:2\n\x00", 0)
	for i := range 5000 {
		if _, errno := s.ask(t, ipc.OpSetStatus, name256(fmt.Sprint(i))+"v"); errno != 0 {
			if errno != syscall.ENOSPC || i < 4000 {
				t.Errorf("key %d: %v", i, errno)
			}
			return
		}
	}
	t.Error("there is no end of keys")
}

func TestClientsLog(t *testing.T) {
	testutil.NoLeaks(t)
	s := newSite(t)
	s.want(t, ipc.OpLog, "\x03\x09\x05root@pam\x00test\x00a \"text\"\x00", "", 0)
	other, err := clusterlog.New(clusterlog.Config{Node: "two", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.deliver(t, 3, other.Add(clusterlog.Message{Ident: "root", Tag: "x", Text: "theirs"}))
	list := func(max uint32, user string) (entries []map[string]any) {
		t.Helper()
		out, errno := s.ask(t, ipc.OpGetLog, le32(max)+le32(0)+le32(0)+le32(0)+user+"\x00")
		var log struct{ Data []map[string]any }
		if err := json.Unmarshal([]byte(out), &log); err != nil || errno != 0 {
			t.Fatalf("%v, %v in %s", errno, err, out)
		}
		return log.Data
	}
	if all := list(0, ""); len(all) != 3 || all[0]["msg"] != "theirs" || all[0]["node"] != "two" {
		t.Errorf("the log is %v", all)
	}
	if n := len(list(2, "")); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
	users := list(0, "root@pam")
	want := map[string]any{"pri": 3.0, "user": "root@pam", "tag": "test", "msg": `a "text"`, "node": "one", "uid": 2.0, "pid": float64(os.Getpid())}
	if len(users) != 1 {
		t.Fatalf("the user's entries are %v", users)
	}
	delete(users[0], "time")
	if !reflect.DeepEqual(users[0], want) {
		t.Errorf("the user's entry is %v, want %v", users[0], want)
	}
}

func TestClientsReadFilesOfTheTree(t *testing.T) {
	testutil.NoLeaks(t)
	s := newSite(t)
	write(t, s.tree, "storage.cfg", "dir: local")
	write(t, s.tree, "empty", "")
	write(t, s.tree, "priv/token.cfg", "root@pam!one 1111\nuser@pve!two 2222\n")
	largest := strings.Repeat("x", 1<<20-24)
	write(t, s.tree, "large", largest)
	write(t, s.tree, "larger", largest+"x")
	for _, c := range []struct {
		path, content string
		errno         syscall.Errno
	}{
		{"storage.cfg\x00", "dir: local", 0},
		{"//./storage.cfg", "dir: local", 0},
		{"empty\x00", "", 0},
		{"priv/token.cfg\x00", "root@pam!one 1111\nuser@pve!two 2222\n", 0},
		{"large\x00", largest, 0},
		{"larger\x00", "", syscall.EMSGSIZE},
		{"nodes\x00", "", syscall.ENOENT},
		{"absent\x00", "", syscall.ENOENT},
		{"storage.cfg/x\x00", "", syscall.ENOENT},
		{"/\x00", "", syscall.ENOENT},
	} {
		s.want(t, ipc.OpGetConfig, c.path, c.content, c.errno)
	}
	s.want(t, ipc.OpVerifyToken, "user@pve!two 2222\x00", "", 0)
	s.want(t, ipc.OpVerifyToken, "user@pve!two 2223\x00", "", syscall.ENOENT)
	write(t, s.tree, "priv/token.cfg", "user@pve!two 2223\n")
	s.want(t, ipc.OpVerifyToken, "user@pve!two 2223\x00", "", 0)
	apply(t, s.tree, memdb.Op{Kind: memdb.OpDelete, Path: "priv/token.cfg"})
	s.want(t, ipc.OpVerifyToken, "user@pve!two 2223\x00", "", syscall.ENOENT)
}

func TestClientsReadGuestsProperties(t *testing.T) {
	testutil.NoLeaks(t)
	s := newSite(t)
	write(t, s.tree, "nodes/one/qemu-server/100.conf", "name: web\ncores: 4\n[snap]\nname: old\n")
	write(t, s.tree, "nodes/two/lxc/101.conf", "hostname: db\nlock: backup\n")
	write(t, s.tree, "nodes/two/lxc/102.conf", "")
	ask := func(op int32, data string) map[string]map[string]string {
		t.Helper()
		out, errno := s.ask(t, op, data)
		var got map[string]map[string]string
		if err := json.Unmarshal([]byte(out), &got); err != nil || errno != 0 {
			t.Fatalf("%v, %v in %q", errno, err, out)
		}
		return got
	}
	type m = map[string]map[string]string
	expect := func(got, want m) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	expect(ask(ipc.OpGuestProperty, le32(0)+"lock\x00"), m{"101": {"lock": "backup"}})
	expect(ask(ipc.OpGuestProperties, le32(0)+"\x02name\x00hostname\x00"), m{"100": {"name": "web"}, "101": {"hostname": "db"}})
	expect(ask(ipc.OpGuestProperty, le32(100)+"cores\x00"), m{"100": {"cores": "4"}})
	expect(ask(ipc.OpGuestProperty, le32(102)+"cores\x00"), m{})
	s.want(t, ipc.OpGuestProperty, le32(103)+"cores\x00", "", syscall.ENOENT)
	// A guest that moves keeps its properties, and has them once.
	apply(t, s.tree, memdb.Op{Kind: memdb.OpRename, Path: "nodes/one/qemu-server/100.conf", To: "nodes/two/qemu-server/100.conf"})
	expect(ask(ipc.OpGuestProperty, le32(0)+"name\x00"), m{"100": {"name": "web"}})
	apply(t, s.tree, memdb.Op{Kind: memdb.OpDelete, Path: "nodes/two/qemu-server/100.conf"})
	expect(ask(ipc.OpGuestProperty, le32(0)+"name\x00"), m{})
}

func TestAGuestThatMovesWhileAllAreReadIsNotMissing(t *testing.T) {
	tree := newTree(t)
	write(t, tree, "nodes/one/qemu-server/100.conf", "name: web\n")
	c := configs{tree}
	list, _ := tree.Guests()
	apply(t, tree, memdb.Op{Kind: memdb.OpRename, Path: "nodes/one/qemu-server/100.conf", To: "nodes/two/qemu-server/100.conf"})
	if conf, ok := c.conf(list[0]); !ok || string(conf) != "name: web\n" {
		t.Errorf("moved: %q, %v", conf, ok)
	}
	apply(t, tree, memdb.Op{Kind: memdb.OpDelete, Path: "nodes/two/qemu-server/100.conf"})
	if conf, ok := c.conf(list[0]); ok {
		t.Errorf("deleted: %q", conf)
	}
}

func TestAGuestsConfigurationIsTheSameSliceUntilItChanges(t *testing.T) {
	tree := newTree(t)
	write(t, tree, "nodes/one/lxc/100.conf", "a: 1\n")
	c := configs{tree}
	first, _ := c.Guest(100)
	if again := c.AppendGuests(nil)[0]; &again.Conf[0] != &first.Conf[0] {
		t.Error("another slice without a change")
	}
	write(t, tree, "nodes/one/lxc/100.conf", "a: 2\n")
	if string(first.Conf) != "a: 1\n" {
		t.Errorf("what was given away has become %q", first.Conf)
	}
}

func BenchmarkGuests1000(b *testing.B) {
	tree := newTree(b)
	for i := range 1000 {
		write(b, tree, fmt.Sprintf("nodes/one/qemu-server/%d.conf", 100+i), "name: web\n")
	}
	c := configs{tree}
	b.ReportAllocs()
	for b.Loop() {
		if len(c.AppendGuests(nil)) != 1000 {
			b.Fatal("guests are missing")
		}
	}
}
