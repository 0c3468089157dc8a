package join

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// world is a cluster of one node, node1, and a host that joins it, node2, below a
// directory each. Starting the services on node2 makes it see node1's tree, if its
// configuration is node1's. Real corosyncs are in cmd/pvecm/test/cluster.
type world struct {
	t    *testing.T
	a, b *host.Host

	mu       sync.Mutex
	programs []string
	fail     func(line string) error // for a program on node2
	dead     bool                    // node2's corosync doesn't get through
	cut      io.Closer               // ends the dialogue
}

const clusterKey = 256

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	lookup := func(name string) []netip.Addr {
		if a, err := netip.ParseAddr(name); err == nil {
			return []netip.Addr{a}
		}
		return []netip.Addr{netip.MustParseAddr(map[string]string{"node1": "127.0.0.1", "node2": "10.99.0.2"}[name])}
	}
	make := func(name string) *host.Host {
		h := &host.Host{Root: t.TempDir(), Name: name, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Lookup: lookup}
		for _, dir := range []string{"/etc/pve/priv/lock", "/etc/pve/nodes/" + name, "/etc/corosync", "/var/lock", "/var/lib/pve-cluster", "/root/.ssh"} {
			if err := h.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("nodes/"+name, h.Path("/etc/pve/local")); err != nil {
			t.Fatal(err)
		}
		return h
	}
	w.a, w.b = make("node1"), make("node2")
	w.b.Interfaces = func() ([]host.Interface, error) {
		return []host.Interface{{Name: "eth0", Up: true, Prefix: netip.MustParsePrefix("10.99.0.2/24")}}, nil
	}
	w.b.Exec = w.exec
	f, err := conf.Create(conf.NewCluster{Name: "lab", Node: "node1", ID: 1, Votes: 1, TokenCoefficient: 125, Links: links(t, "10.99.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	w.write(w.a, host.ClusterConf, f.Text())
	w.write(w.a, host.AuthKey, bytes.Repeat([]byte{1}, clusterKey))
	w.write(w.b, host.CorosyncConf, []byte("totem {\n\tversion: 2\n\tcluster_name: debian\n\tcrypto_cipher: none\n\tcrypto_hash: none\n}\nquorum {\n\tprovider: corosync_votequorum\n}\nnodelist {\n\tnode {\n\t\tname: node1\n\t\tnodeid: 1\n\t\tring0_addr: 127.0.0.1\n\t}\n}\n"))
	w.write(w.b, "/etc/pve/.vmlist", []byte(`{"version":1,"ids":{}}`))
	w.members(false)
	if err := sqlite.Create(w.b.Path(host.Database), []*memdb.Entry{{Inode: memdb.RootInode, Parent: memdb.RootInode, Version: 1, Type: memdb.TypeDir}}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) write(h *host.Host, path string, text []byte) {
	w.t.Helper()
	if err := h.WriteFile(path, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// members has node1's daemon say whether node2 is online.
func (w *world) members(online bool) {
	list := map[string]host.Member{"node1": {ID: 1, Online: 1, IP: "10.99.0.1"}}
	if f, err := cluster.Read(w.a); err == nil && f.Node("node2") != nil {
		n := host.Member{ID: 2, IP: "10.99.0.2"}
		if online {
			n.Online = 1
		}
		list["node2"] = n
	}
	text, err := json.Marshal(map[string]any{"nodename": "node1", "cluster": map[string]any{"name": "lab", "version": 1, "nodes": len(list), "quorate": 1}, "nodelist": list})
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(w.a, "/etc/pve/.members", text)
}

// testServices make a node's directory, as keys.Directories does.
var testServices = cluster.Services{NodeFiles: func(h *host.Host, node string) error {
	return h.Mkdir("/etc/pve/nodes/"+node, 0o755)
}}

// exec answers the programs that node2 starts.
func (w *world) exec(ctx context.Context, c host.Command) error {
	line := strings.Join(c.Args, " ")
	w.mu.Lock()
	fail := w.fail
	w.programs = append(w.programs, line)
	w.mu.Unlock()
	failed := func(err error) error { return &host.CommandError{Args: c.Args, Status: 1, Err: err} }
	if fail != nil {
		if err := fail(line); err != nil {
			return failed(err)
		}
	}
	switch {
	case strings.Contains(line, "join-serve"):
		in, out := io.Pipe()
		w.mu.Lock()
		w.cut = in
		w.mu.Unlock()
		go func() { io.Copy(out, c.Stdin); out.Close() }()
		s := &Server{Host: w.a, Version: "test", Services: testServices}
		return s.Serve(ctx, in, c.Stdout)
	case line == "systemctl is-active --quiet corosync":
		return failed(errors.New("exit status 3"))
	case line == "systemctl stop pve-cluster":
		return w.separate()
	case line == "systemctl start corosync pve-cluster":
		return w.unite()
	}
	return nil
}

// unite gives node2 the tree of node1.
func (w *world) unite() error {
	mine, err := w.b.ReadFile(host.CorosyncConf)
	theirs, err2 := w.a.ReadFile(host.ClusterConf)
	if err != nil || err2 != nil || w.dead || !bytes.Equal(mine, theirs) {
		return errors.Join(err, err2)
	}
	if err := os.Rename(w.b.Path("/etc/pve"), w.b.Path("/etc/pve.own")); err != nil {
		return err
	}
	w.members(true)
	return os.Symlink(w.a.Path("/etc/pve"), w.b.Path("/etc/pve"))
}

// separate takes it away again.
func (w *world) separate() error {
	if _, err := os.Lstat(w.b.Path("/etc/pve.own")); err != nil {
		return nil
	}
	w.members(false)
	return errors.Join(os.Remove(w.b.Path("/etc/pve")), os.Rename(w.b.Path("/etc/pve.own"), w.b.Path("/etc/pve")))
}

func (w *world) options() Options {
	return Options{Peer: "node1", Via: "ssh", Timeout: 300 * time.Millisecond, Request: Request{Name: "node2", Fallback: "10.99.0.2"}, Force: []string{"unreachable-member"}}
}

// state is what both hosts are, but for config_version.
func (w *world) state() string {
	var b strings.Builder
	f, err := cluster.Read(w.a)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range f.Nodes() {
		fmt.Fprintf(&b, "%s votes %s\n", conf.NodeName(n), n.Get("quorum_votes"))
	}
	for _, path := range []string{host.CorosyncConf, host.AuthKey} {
		text, err := w.b.ReadFile(path)
		fmt.Fprintf(&b, "%s %q %v\n", path, text, err == nil)
	}
	contents, err := sqlite.Read(w.b.Path(host.Database))
	fmt.Fprintf(&b, "database %v\n", err == nil && len(contents.Entries) == 1)
	for _, path := range []string{journalFile, savedDir} {
		fmt.Fprintf(&b, "%s %v\n", path, w.b.Exists(path))
	}
	return b.String()
}

// unlocked checks that no lock is left.
func (w *world) unlocked() {
	w.t.Helper()
	if left, _ := filepath.Glob(w.a.Path("/etc/pve/priv/lock/*")); len(left) > 0 {
		w.t.Errorf("locks are left: %v", left)
	}
}

func unpacked(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAJoinOverTheDialogue(t *testing.T) {
	w := newWorld(t)
	finished := false
	s := Services{Finish: func(context.Context, *host.Host) error { finished = true; return nil }}
	r, done, err := Add(context.Background(), w.b, s, w.options())
	if err != nil || done || !finished {
		t.Fatalf("%v, done %v, finished %v, %v", err, done, finished, r.Problems)
	}
	f, err := cluster.Read(w.a)
	if err != nil {
		t.Fatal(err)
	}
	if n := f.Node("node2"); n == nil || n.Get("quorum_votes") != "1" || n.Get("nodeid") != "2" {
		t.Errorf("corosync.conf is\n%s", f.Text())
	}
	key, _ := w.b.ReadFile(host.AuthKey)
	if info, err := os.Stat(w.b.Path(host.AuthKey)); err != nil || len(key) != clusterKey || info.Mode() != 0o400 {
		t.Errorf("the key has %d bytes and mode %v", len(key), info.Mode())
	}
	backups, _ := filepath.Glob(w.b.Path(backupDir + "/*"))
	if len(backups) != 1 || !strings.HasSuffix(backups[0], ".sql.gz") {
		t.Fatalf("backups: %v", backups)
	}
	if text := unpacked(t, backups[0]); !strings.HasPrefix(text, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE tree") || !strings.HasSuffix(text, "COMMIT;\n") {
		t.Errorf("the backup is %.200s", text)
	}
	if w.b.Exists(journalFile) || w.b.Exists(savedDir) || w.b.Exists(host.Database) {
		t.Error("something is left of the join, or of the old tree")
	}
	w.unlocked()
	recorded, err := os.ReadFile("testdata/join-ssh.cmds")
	if err != nil {
		t.Fatal(err)
	}
	// The web services are not there; whether corosync runs is a question of ours.
	services := func(list []string) []string {
		return slices.DeleteFunc(list, func(l string) bool {
			return !strings.HasPrefix(l, "systemctl ") || strings.Contains(l, "pveproxy") || strings.Contains(l, "is-active")
		})
	}
	if got, want := services(slices.Clone(w.programs)), services(strings.Split(string(recorded), "\n")); !slices.Equal(got, want) {
		t.Errorf("the services: %q, want %q", got, want)
	}
	// Once more is nothing to do.
	if _, done, err := Add(context.Background(), w.b, s, w.options()); err != nil || !done {
		t.Errorf("again: done %v, %v", done, err)
	}
}

// Whatever fails, both sides are what they were before.
func TestAJoinThatFailsIsTakenBackOnBothSides(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"stopping fails": func(w *world) { w.failOnce("systemctl stop pve-cluster") },
		"starting fails": func(w *world) { w.failOnce("systemctl start corosync pve-cluster") },
		"no member":      func(w *world) { w.dead = true },
		"the connection ends at the stop": func(w *world) {
			w.fail = func(line string) error {
				if line == "systemctl stop pve-cluster" && w.cut != nil {
					w.cut.Close()
					w.cut = nil
					return errors.New("cut")
				}
				return nil
			}
		},
		"the connection ends, then nothing comes of it": func(w *world) {
			w.dead = true
			w.fail = func(line string) error {
				if line == "systemctl start corosync pve-cluster" && w.cut != nil {
					w.cut.Close()
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			before := w.state()
			spoil(w)
			_, _, err := Add(context.Background(), w.b, Services{}, w.options())
			if code := plan.CodeOf(err); err == nil || code != plan.Failed && code != plan.Timeout {
				t.Fatalf("status %d: %v", code, err)
			}
			if !slices.Contains(w.programs, "systemctl stop pve-cluster") {
				t.Fatal("it didn't get as far as that")
			}
			if after := w.state(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s\n%v", before, after, err)
			}
			w.unlocked()
		})
	}
}

func (w *world) failOnce(line string) {
	failed := false
	w.fail = func(l string) error {
		if l == line && !failed {
			failed = true
			return errors.New("exit status 1")
		}
		return nil
	}
}

// webPeer is an API at node1 that enters and removes nodes as the stock tool does.
func (w *world) webPeer() func(context.Context, *host.Host, *Options) (Peer, string, error) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		answer := func(data any, err error) {
			if err != nil {
				out.WriteHeader(http.StatusInternalServerError)
				json.NewEncoder(out).Encode(map[string]any{"data": nil, "message": err.Error()})
				return
			}
			json.NewEncoder(out).Encode(map[string]any{"data": data})
		}
		name, isNode := strings.CutPrefix(r.URL.Path, "/api2/json/cluster/config/nodes/")
		switch {
		case r.URL.Path == "/api2/json/access/ticket":
			answer(map[string]string{"ticket": "PVE:root@pam:1::x", "CSRFPreventionToken": "1:y"}, nil)
		case r.Header.Get("CSRFPreventionToken") != "1:y":
			out.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/api2/json/cluster/config/apiversion":
			answer(1, nil)
		case r.URL.Path == "/api2/json/cluster/config/join":
			f, err := cluster.Read(w.a)
			var nodes []map[string]string
			for _, n := range f.Nodes() {
				keys := map[string]string{}
				for _, k := range n.Keys() {
					keys[k] = n.Get(k)
				}
				nodes = append(nodes, keys)
			}
			answer(map[string]any{"nodelist": nodes, "totem": map[string]string{"cluster_name": "lab"}}, err)
		case isNode && r.Method == http.MethodPost:
			r.ParseForm()
			a, err := cluster.AddNode(r.Context(), w.a, testServices, conf.NewNode{Name: name, Fallback: r.PostForm.Get("new_node_ip"), APIVersion: 1, Force: r.PostForm.Get("force") != ""})
			if err != nil {
				answer(nil, err)
				return
			}
			var key []rune
			for _, b := range a.AuthKey {
				key = append(key, rune(b))
			}
			answer(map[string]any{"corosync_authkey": string(key), "corosync_conf": string(a.Conf), "warnings": []string{}}, nil)
		case isNode && r.Method == http.MethodDelete:
			_, err := cluster.DelNode(r.Context(), w.a, cluster.Services{}, cluster.DelOptions{Node: name})
			answer(nil, err)
		default:
			out.WriteHeader(http.StatusNotFound)
		}
	}))
	w.t.Cleanup(server.Close)
	return func(_ context.Context, _ *host.Host, _ *Options) (Peer, string, error) {
		a := newAPI("127.0.0.1", keys.FingerprintOf(server.Certificate().Raw), Credentials{Password: "secret"}, nil)
		a.base = server.URL
		return a, "api", nil
	}
}

func TestAJoinOverTheAPI(t *testing.T) {
	w := newWorld(t)
	s := Services{Connect: w.webPeer()}
	if _, _, err := Add(context.Background(), w.b, s, w.options()); err != nil {
		t.Fatal(err)
	}
	if f, _ := cluster.Read(w.a); f.Node("node2") == nil || f.Node("node2").Get("quorum_votes") != "1" {
		t.Errorf("the cluster has\n%s", f.Text())
	}
	if w.b.Exists(journalFile) {
		t.Error("the note is still there")
	}
}

func TestAJoinOverTheAPIThatFailsIsTakenBack(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"stopping fails": func(w *world) { w.failOnce("systemctl stop pve-cluster") },
		"no member":      func(w *world) { w.dead = true },
	} {
		w := newWorld(t)
		before := w.state()
		spoil(w)
		if _, _, err := Add(context.Background(), w.b, Services{Connect: w.webPeer()}, w.options()); err == nil || plan.CodeOf(err) == plan.NotUndone {
			t.Errorf("%s: %v", name, err)
		}
		if after := w.state(); after != before {
			t.Errorf("%s: before:\n%s\nafter:\n%s", name, before, after)
		}
	}
}

// A peer that refuses a node has another one of that name: it stays.
func TestARefusalRemovesNobody(t *testing.T) {
	w := newWorld(t)
	if _, err := cluster.AddNode(context.Background(), w.a, cluster.Services{}, conf.NewNode{Name: "node2", Fallback: "10.99.0.22", APIVersion: 1}); err != nil {
		t.Fatal(err)
	}
	before := w.state()
	o := w.options()
	o.Force = append(o.Force, "node-exists") // past the check of what the peer tells
	_, _, err := Add(context.Background(), w.b, Services{Connect: w.webPeer()}, o)
	if plan.CodeOf(err) != plan.Refused {
		t.Errorf("status %d: %v", plan.CodeOf(err), err)
	}
	if after := w.state(); err == nil || after != before {
		t.Errorf("%v, before:\n%s\nafter:\n%s", err, before, after)
	}
}

// A peer that is cut off from all others can't take an entry back before it has quorum.
func TestAnEntryIsTakenBackWhenQuorumReturns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.state()
	ctx, s, r := t.Context(), &Server{Host: w.a}, Request{Name: "node2", Fallback: "10.99.0.2"}
	n, err := s.newNode(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Enter(ctx, w.a, cluster.Services{}, n); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	w.a.Writable = func() bool { return asked.Add(1) > 3 }
	if err := s.takeBack(ctx, entry{request: &r}); err != nil {
		t.Fatal(err)
	}
	if after := w.state(); after != before || asked.Load() <= 3 {
		t.Errorf("asked %d times; before:\n%s\nafter:\n%s", asked.Load(), before, after)
	}
	w.unlocked()
}

// A killed process leaves its journal and whatever it had done. Resuming completes it,
// aborting takes it back.
func TestAKilledJoinIsResumedOrAborted(t *testing.T) {
	for _, phase := range []Phase{Entered, Switched, Joined} {
		for _, resume := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/resume=%v", phase, resume), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				before := w.state()
				w.killAt(phase)
				o := w.options()
				if _, _, err := Add(context.Background(), w.b, Services{}, o); !slices.Equal(plan.Kinds(err), []string{"unfinished"}) {
					t.Fatalf("a plain add: %v", err)
				}
				if resume {
					if err := Resume(context.Background(), w.b, Services{}, o); err != nil {
						t.Fatal(err)
					}
					if f, _ := cluster.Read(w.a); f.Node("node2") == nil || f.Node("node2").Get("quorum_votes") != "1" {
						t.Errorf("the cluster has\n%s", f.Text())
					}
					if w.b.Exists(journalFile) {
						t.Error("the note is still there")
					}
					return
				}
				if err := Abort(context.Background(), w.b, Services{}, o); err != nil {
					t.Fatal(err)
				}
				if after := w.state(); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
				w.unlocked()
			})
		}
	}
}

// killAt leaves both hosts as a process that is killed in a phase does.
func (w *world) killAt(phase Phase) {
	w.t.Helper()
	o := w.options()
	x := &join{h: w.b, o: &o, journal: &Journal{Peer: o.Peer, Via: "dialogue", Request: o.Request, Begun: time.Now()}}
	ctx := context.Background()
	var err error
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	must(x.prepare())
	x.peer, _, err = x.connect(ctx)
	must(err)
	must(x.journal.note(w.b, Entered))
	answer, err := x.peer.Enter(ctx, o.Request)
	must(err)
	if phase != Entered {
		x.journal.Version, err = judge(answer, o.Request)
		must(err)
		must(x.journal.note(w.b, Switched))
		must(w.b.WriteFile(host.AuthKey, answer.AuthKey, 0o400))
		if phase == Joined {
			must(x.switchOver(ctx, answer))
			must(x.journal.note(w.b, Joined))
		}
	}
	must(x.peer.Close())
}

func TestEverythingIsCheckedBeforeAnythingIsDone(t *testing.T) {
	w := newWorld(t)
	w.write(w.b, host.AuthKey, []byte("old"))
	w.write(w.b, host.ClusterConf, []byte("totem {\n  version: 2\n  cluster_name: other\n}\n"))
	w.write(w.b, "/etc/pve/.vmlist", []byte(`{"version":1,"ids":{"100":{"node":"node2","type":"qemu","version":1}}}`))
	before := w.state()
	o := w.options()
	o.Request.Fallback, o.Request.Links = "", links(t, "10.99.0.99", "nosuchhost")
	w.b.Lookup = func(name string) []netip.Addr {
		if a, err := netip.ParseAddr(name); err == nil {
			return []netip.Addr{a}
		} else if name == "node2" {
			return []netip.Addr{netip.MustParseAddr("10.99.0.2")}
		}
		return nil
	}
	r, _, err := Add(context.Background(), w.b, Services{}, o)
	want := []string{"authkey", "cluster-exists", "guests", "link-address", "link-address"}
	var kinds []string
	for _, p := range r.Problems {
		if !p.Warning {
			kinds = append(kinds, p.Kind)
		}
	}
	for _, k := range want {
		if !slices.Contains(kinds, k) {
			t.Errorf("%s is missing in %v (%v)", k, kinds, err)
		}
	}
	if plan.CodeOf(err) != plan.Refused || w.state() != before {
		t.Errorf("status %d, or something was changed", plan.CodeOf(err))
	}
}

func TestWhatThePeersFactsSpeakAgainst(t *testing.T) {
	now := time.Now()
	members := []Member{{Name: "node1", ID: 1, Online: true, Addresses: map[int]string{0: "10.0.0.1", 1: "10.1.0.1"}}}
	for _, c := range []struct {
		name  string
		facts Facts
		r     Request
		kinds []string
	}{
		{"nothing", Facts{Quorate: true, own: true, Time: now, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, nil},
		{"clock", Facts{Quorate: true, own: true, Time: now.Add(5 * time.Minute), Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"clock"}},
		{"clock, a little", Facts{Quorate: true, own: true, Time: now.Add(-20 * time.Second), Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"clock!"}},
		{"no quorum", Facts{own: true, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"peer-no-quorum"}},
		{"device", Facts{Quorate: true, own: true, Device: true, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"qdevice-present"}},
		{"name in another case", Facts{Quorate: true, own: true, Members: members}, Request{Name: "NODE1", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"node-exists"}},
		{"name", Facts{Quorate: true, Members: append(members, Member{Name: "node2", ID: 2, Online: true})}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"node-exists"}},
		{"id", Facts{Quorate: true, own: true, Members: members}, Request{Name: "node2", ID: 1, Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"id-taken"}},
		{"address", Facts{Quorate: true, own: true, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.1", "10.1.0.2")}, []string{"duplicate-address"}},
		{"no links", Facts{Quorate: true, own: true, Members: members}, Request{Name: "node2", Fallback: "10.0.0.2"}, []string{"one-address-many-links"}},
		{"a link too few", Facts{Quorate: true, own: true, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2")}, []string{"link-missing"}},
		{"a link too many", Facts{Quorate: true, own: true, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2", "10.2.0.2")}, []string{"link-unknown"}},
		{"one stock node", Facts{Quorate: true, Members: members}, Request{Name: "node2", Links: links(t, "10.0.0.2", "10.1.0.2")}, []string{"peer-quorum!"}},
	} {
		r := plan.Report{}
		checkFacts(&host.Host{Root: t.TempDir()}, &r, &c.facts, c.r, now)
		var kinds []string
		for _, p := range r.Problems {
			if p.Warning {
				p.Kind += "!"
			}
			kinds = append(kinds, p.Kind)
		}
		if !slices.Equal(kinds, c.kinds) {
			t.Errorf("%s: %v, want %v", c.name, kinds, c.kinds)
		}
	}
}

// The cluster's side checks for itself, whatever the other side says.
func TestThePeerRefusesWhatCannotBe(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	p, _, err := connect(context.Background(), w.b, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, c := range []struct {
		r    Request
		kind string
	}{
		{Request{Name: "node1", Fallback: "10.99.0.2"}, "node-exists"},
		{Request{Name: "Node1", Fallback: "10.99.0.2"}, "node-exists"},
		{Request{Name: "node2", Fallback: "10.99.0.1"}, "duplicate-address"},
		{Request{Name: "node2", ID: 1, Fallback: "10.99.0.2"}, "id-taken"},
		{Request{Name: "node2", Links: links(t, "10.99.0.2", "10.98.0.2")}, "link-unknown"},
	} {
		if _, err := p.Enter(context.Background(), c.r); !slices.Equal(plan.Kinds(err), []string{c.kind}) {
			t.Errorf("%+v: %v, want %s", c.r, err, c.kind)
		}
	}
	if answer, err := p.Enter(context.Background(), o.Request); err != nil || len(answer.AuthKey) != clusterKey {
		t.Fatalf("%v", err)
	}
	if answer, err := p.Enter(context.Background(), o.Request); err != nil || answer == nil {
		t.Fatalf("once more: %v", err)
	}
	if f, _ := cluster.Read(w.a); f.Node("node2").Get("quorum_votes") != "0" {
		t.Errorf("it has votes before it is there:\n%s", f.Text())
	}
	if err := p.Confirm(context.Background(), o.Request); err == nil {
		t.Error("a node that isn't online was confirmed")
	}
}

func TestPasswordsAreTypedUnseen(t *testing.T) {
	for in, want := range map[string]string{"abc\r": "abc", "ab\x7fc\n": "ac", "a\tb\x04": "ab", "\x08x\r": "x"} {
		var out bytes.Buffer
		a := NewAsker(strings.NewReader(in), &out)
		got, err := readPassword(a.read, &out)
		if err != nil || got != want || strings.ContainsAny(out.String(), "abcx") {
			t.Errorf("%q is %q, shown %q (%v)", in, got, out.String(), err)
		}
	}
	a := NewAsker(strings.NewReader("secret\nno\n"), io.Discard)
	if p, err := a.Password("? "); err != nil || p != "secret" {
		t.Errorf("%q, %v", p, err)
	}
	if a.Yes("? ") {
		t.Error("no is yes")
	}
	if _, err := a.Password("? "); err == nil {
		t.Error("the end of the input is a password")
	}
	if _, err := readPassword(NewAsker(strings.NewReader("ab\x03"), io.Discard).read, io.Discard); !errors.Is(err, errInterrupted) {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestOnlyTheNewestBackupsStay(t *testing.T) {
	dir := t.TempDir()
	for n := range 12 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("config-%d.sql.gz", 999999990+n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(dir, 10); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(dir + "/*")
	if len(left) != 10 || slices.Contains(left, dir+"/config-999999991.sql.gz") || !slices.Contains(left, dir+"/config-1000000001.sql.gz") {
		t.Errorf("%v", left)
	}
}

func FuzzDialogue(f *testing.F) {
	f.Add([]byte("{\"op\":\"hello\",\"version\":1}\n{\"op\":\"check\",\"request\":{\"name\":\"node2\",\"new_node_ip\":\"10.99.0.2\"}}\n"))
	f.Add([]byte("{\"op\":\"check\",\"hold\":true,\"request\":{\"name\":\"node2\",\"new_node_ip\":\"10.99.0.2\"}}\n{\"op\":\"enter\",\"request\":{\"name\":\"node2\"}}\n{\"op\":\"ping\"}\n"))
	f.Add([]byte("{\"op\":\"abort\",\"request\":{\"name\":\"node1\"}}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		w := newWorld(t)
		before, _ := w.a.ReadFile(host.ClusterConf)
		nodes := func(text []byte) string {
			f, err := conf.Read(text)
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, n := range f.Nodes() {
				list = append(list, conf.NodeName(n))
			}
			return strings.Join(list, " ")
		}
		s := &Server{Host: w.a}
		var out bytes.Buffer
		s.Serve(context.Background(), bytes.NewReader(in), &out)
		after, _ := w.a.ReadFile(host.ClusterConf)
		if nodes(before) != nodes(after) {
			t.Fatalf("without a confirmation the cluster has %s now", nodes(after))
		}
		w.unlocked()
	})
}

// Programs of one cluster should be of one version: of different first numbers the join warns.
func TestVersionsAreCompared(t *testing.T) {
	for _, c := range []struct {
		name                   string
		here, there            string // pvecm
		corosyncHere, thereToo string
		own                    bool
		want                   []string
	}{
		{"the same", "1.2", "1.9", "3.1.7", "3.1.9", true, nil},
		{"another pvecm", "1.2", "2.0", "3.1.7", "3.1.7", true, []string{"pvecm is of version 1.2 here and of version 2.0 on peer"}},
		{"another corosync", "1.2", "1.2", "3.1.7", "2.4.5", true, []string{"corosync is of version 3.1.7 here and of version 2.4.5 on peer"}},
		{"both", "1.2", "2.0", "3.1.7", "4.0", true, []string{"pvecm is of", "corosync is of"}},
		{"the stock tool's version means nothing here", "1.2", "9.1.6", "3.1.7", "3.1.9", false, nil},
		{"a stock peer with another corosync", "1.2", "9.1.6", "3.1.7", "2.4", false, []string{"corosync is of"}},
		{"unknown ones", "development", "2.0", "", "3.1", true, nil},
	} {
		r := &plan.Report{}
		checkVersions(r, &Facts{Version: c.there, Corosync: c.thereToo, own: c.own}, Options{Version: c.here, Corosync: c.corosyncHere, Peer: "peer"})
		if err := r.Err(); err != nil {
			t.Errorf("%s: it stops: %v", c.name, err)
		}
		got := r.Warnings()
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
			continue
		}
		for i, want := range c.want {
			if got[i].Kind != "versions" || !strings.Contains(got[i].Text, want) {
				t.Errorf("%s: %q, want %q", c.name, got[i], want)
			}
		}
	}
	for out, want := range map[string]string{
		"Corosync Cluster Engine, version '3.1.7'\nCopyright (c) 2006-2021 Red Hat, Inc.\n": "3.1.7",
		"": "", "something else": "",
	} {
		if got := CorosyncVersion(out); got != want {
			t.Errorf("%q is version %q, want %q", out, got, want)
		}
	}
}
