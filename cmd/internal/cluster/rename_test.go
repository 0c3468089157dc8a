package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// renameWorld is node2 of a cluster of two, below a directory, with all that has its name.
type renameWorld struct {
	*host.Host
	t    *testing.T
	err  bytes.Buffer
	name string   // the kernel's
	did  []string // programs that ran
}

func newRenameWorld(t *testing.T) *renameWorld {
	t.Helper()
	w := &renameWorld{t: t, name: "node2"}
	w.Host = &host.Host{Root: t.TempDir(), Name: "node2", Stdout: io.Discard, Stderr: &w.err, Writable: func() bool { return true }}
	w.Lookup = func(string) []netip.Addr { return nil }
	w.Interfaces = func() ([]host.Interface, error) {
		return []host.Interface{{Name: "eth0", Up: true, Prefix: netip.MustParsePrefix("10.99.0.2/24")}}, nil
	}
	w.Exec = func(_ context.Context, c host.Command) error {
		w.did = append(w.did, strings.Join(c.Args, " "))
		return nil
	}
	for path, text := range map[string]string{
		"/etc/pve/.members":                                 `{"nodename":"node2","cluster":{"name":"lab","version":2,"nodes":2,"quorate":1},"nodelist":{"node1":{"id":1,"online":1,"ip":"10.99.0.1"},"node2":{"id":2,"online":1,"ip":"10.99.0.2"}}}`,
		"/etc/pve/nodes/node2/qemu-server/100.conf":         "memory: 512\n",
		"/etc/pve/nodes/node2/lxc/200.conf":                 "memory: 512\n",
		"/etc/pve/nodes/node2/priv/x":                       "x",
		"/etc/pve/nodes/node1/lxc/300.conf":                 "hostname: node2\n",
		"/etc/pve/storage.cfg":                              "dir: node2\n\tpath /x\n\tnodes node1,node2\n\nnfs: b\n\tserver node2\n\tnodes node2\n",
		"/etc/pve/replication.cfg":                          "local: 300-0\n\ttarget node2\n\tsource node1\n",
		"/etc/hosts":                                        "127.0.0.1 localhost\n10.99.0.2 node2.lab.example node2 # node2\n10.99.0.1 node1\n",
		"/etc/hostname":                                     "node2\n",
		"/var/lib/rrdcached/db/pve2-node/node2":             "old",
		"/var/lib/rrdcached/db/pve-node-9.0/node2":          "load",
		"/var/lib/rrdcached/db/pve-storage-9.0/node2/local": "sizes",
		"/var/lib/rrdcached/db/pve-storage-9.0/node1/local": "sizes",
		"/var/lib/rrdcached/db/pve-vm-9.0/100":              "guest",
		"/var/lib/pve-cluster/config.db":                    "",
		"/var/lock/x":                                       "",
	} {
		w.put(path, text)
	}
	if err := os.MkdirAll(w.Path("/etc/pve/priv/lock"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nodes/node2", w.Path("/etc/pve/local")); err != nil {
		t.Fatal(err)
	}
	first, err := conf.Create(conf.NewCluster{Name: "lab", Node: "node1", ID: 1, Votes: 1, TokenCoefficient: 125, Links: map[int]conf.Link{0: {Address: "10.99.0.1"}}})
	if err != nil {
		t.Fatal(err)
	}
	both, err := first.AddNode(conf.NewNode{Name: "node2", Fallback: "10.99.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	w.put(host.ClusterConf, string(both.Text()))
	return w
}

func (w *renameWorld) put(path, text string) {
	w.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(w.Path(path)), 0o755), os.WriteFile(w.Path(path), []byte(text), 0o644)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *renameWorld) want(path, text string) {
	w.t.Helper()
	if got, err := w.ReadFile(path); err != nil || string(got) != text {
		w.t.Errorf("%s is %q (%v), want %q", path, got, err, text)
	}
}

func (w *renameWorld) services() Services {
	return Services{SetHostname: func(name string) error { w.name = name; return nil }}
}

var toBeta = RenameOptions{Old: "node2", New: "beta", Timeout: time.Second}

// files are all of the host.
func (w *renameWorld) files() (list []string) {
	_ = filepath.WalkDir(w.Root, func(path string, d fs.DirEntry, _ error) error {
		text, _ := os.ReadFile(path)
		list = append(list, strings.TrimPrefix(path, w.Root)+" "+string(text))
		return nil
	})
	return list
}

// isBeta checks that the node has its new name, and nothing has the old one.
func (w *renameWorld) isBeta() {
	w.t.Helper()
	f, err := Read(w.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	if n := f.Node("beta"); n == nil || n.Get("nodeid") != "2" || f.Node("node2") != nil {
		w.t.Errorf("corosync.conf:\n%s", f.Text())
	}
	if v, _ := f.ConfigVersion(); v != 3 {
		w.t.Errorf("corosync.conf has version %d", v)
	}
	w.want("/etc/pve/nodes/beta/qemu-server/100.conf", "memory: 512\n")
	w.want("/etc/pve/nodes/beta/lxc/200.conf", "memory: 512\n")
	w.want("/etc/pve/nodes/beta/priv/x", "x")
	w.want("/etc/pve/nodes/node1/lxc/300.conf", "hostname: node2\n")
	w.want("/etc/pve/storage.cfg", "dir: node2\n\tpath /x\n\tnodes node1,beta\n\nnfs: b\n\tserver node2\n\tnodes beta\n")
	w.want("/etc/pve/replication.cfg", "local: 300-0\n\ttarget beta\n\tsource node1\n")
	w.want("/etc/hosts", "127.0.0.1 localhost\n10.99.0.2 beta.lab.example beta # node2\n10.99.0.1 node1\n")
	w.want("/etc/hostname", "beta\n")
	w.want(rrdDir+"/pve2-node/beta", "old")
	w.want(rrdDir+"/pve-node-9.0/beta", "load")
	w.want(rrdDir+"/pve-storage-9.0/beta/local", "sizes")
	for _, path := range []string{nodeDir("node2"), rrdDir + "/pve-node-9.0/node2", rrdDir + "/pve-storage-9.0/node2", renameJournal} {
		if w.Exists(path) {
			w.t.Errorf("%s is left", path)
		}
	}
	if w.name != "beta" || w.Name != "beta" {
		w.t.Errorf("the host's name is %s", w.name)
	}
	if left, _ := filepath.Glob(w.Path("/etc/pve/priv/lock/*")); len(left) > 0 {
		w.t.Errorf("locks are left: %q", left)
	}
}

func TestRenameChangesEverythingThatHasTheName(t *testing.T) {
	w := newRenameWorld(t)
	dry := toBeta
	dry.DryRun = true
	before := w.files()
	r, _, err := Rename(t.Context(), w.Host, w.services(), dry)
	if err != nil || len(r.Steps) < 5 {
		t.Fatalf("%v: %q", err, r.Steps)
	}
	if !slices.Equal(w.files(), before) {
		t.Error("a dry run changed something")
	}
	if _, _, err := Rename(t.Context(), w.Host, w.services(), toBeta); err != nil {
		t.Fatal(err)
	}
	w.isBeta()
	for _, want := range []string{"systemctl stop pve-cluster", "systemctl start pve-cluster"} {
		if !slices.Contains(w.did, want) {
			t.Errorf("%s: %q", want, w.did)
		}
	}
	if !slices.ContainsFunc(w.did, func(line string) bool {
		return strings.HasSuffix(line, "root@10.99.0.1 -- pvecm node-renamed node2 beta")
	}) {
		t.Errorf("node1 is not told: %q", w.did)
	}
	if _, done, err := Rename(t.Context(), w.Host, w.services(), toBeta); !done || err != nil {
		t.Errorf("again: %v, %v", done, err)
	}
}

// Wherever it is interrupted, the same command completes it.
func TestARenamingThatIsInterruptedIsCompleted(t *testing.T) {
	interrupted := errors.New("interrupted")
	for n := 0; ; n++ {
		w := newRenameWorld(t)
		x := &renaming{h: w.Host, s: w.services(), o: toBeta, r: &plan.Report{}}
		steps, at := 0, ""
		x.step = func(name string) error {
			if steps++; steps > n {
				at = name
				return interrupted
			}
			return nil
		}
		_, _, err := x.rename(t.Context())
		if err == nil {
			if n < 8 {
				t.Fatalf("there are %d steps only", n)
			}
			return
		}
		if !errors.Is(err, interrupted) || plan.CodeOf(err) != plan.NotUndone {
			t.Fatalf("before step %s: %v", at, err)
		}
		// The next process finds the host by the name that it has then.
		w.Name = w.name
		other := RenameOptions{Old: "node2", New: "gamma", Timeout: time.Second}
		if _, _, err := Rename(t.Context(), w.Host, w.services(), other); plan.CodeOf(err) != plan.Refused {
			t.Errorf("another name meanwhile, before step %s: %v", at, err)
		}
		if _, _, err := Rename(t.Context(), w.Host, w.services(), toBeta); err != nil {
			t.Fatalf("completed from before step %s: %v", at, err)
		}
		w.isBeta()
	}
}

// It is killed in the middle of moving files, and the daemon of the old name has begun its
// directory anew.
func TestARenamingWithHalfOfTheFilesMovedIsCompleted(t *testing.T) {
	w := newRenameWorld(t)
	x := &renaming{h: w.Host, Old: "node2", New: "beta", Begun: time.Now()}
	if err := x.note(renameTree); err != nil {
		t.Fatal(err)
	}
	w.put(nodeDir("beta")+"/qemu-server/100.conf", "memory: 512\n")
	w.put(nodeDir("beta")+"/priv/x", "older")
	if err := os.Remove(w.Path(nodeDir("node2") + "/qemu-server/100.conf")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Rename(t.Context(), w.Host, w.services(), toBeta); err != nil {
		t.Fatal(err)
	}
	w.isBeta()
}

func TestRenameIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(w *renameWorld)
		kind string
	}{
		"a virtual machine runs": {func(w *renameWorld) {
			w.put("/run/qemu-server/100.pid", "4711\n")
			w.put("/proc/4711/cmdline", "/usr/bin/kvm\x00-id\x00100\x00-name\x00x\x00")
		}, "guests-running"},
		"a container runs": {func(w *renameWorld) {
			w.put("/proc/net/unix", "0000000000000000: 00000002 00000000 00010000 0001 01 4242 @/var/lib/lxc/200/command\n")
		}, "guests-running"},
		"taken by a node":    {func(w *renameWorld) { w.conf("name: node1", "name: BETA") }, conf.KindNodeExists},
		"a directory":        {func(w *renameWorld) { w.put(nodeDir("beta")+"/x", "") }, "leftovers"},
		"no address":         {func(w *renameWorld) { w.put("/etc/hosts", "127.0.1.1 node2\n") }, "no-address"},
		"another's address":  {func(w *renameWorld) { w.put("/etc/hosts", "10.99.0.77 beta\n") }, "foreign-address"},
		"a link by name":     {func(w *renameWorld) { w.conf("ring0_addr: 10.99.0.2", "ring0_addr: node2.lab.example") }, "link-name"},
		"high availability":  {func(w *renameWorld) { w.put("/etc/pve/ha/resources.cfg", "vm: 100\n") }, "ha"},
		"a node without ssh": {func(w *renameWorld) { w.Exec = func(context.Context, host.Command) error { return errors.New("no") } }, "ssh"},
		"no quorum":          {func(w *renameWorld) { w.Writable = func() bool { return false } }, "no-quorum"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRenameWorld(t)
			test.set(w)
			before := w.files()
			_, _, err := Rename(t.Context(), w.Host, w.services(), toBeta)
			if !slices.Contains(plan.Kinds(err), test.kind) {
				t.Errorf("%v, want %s", err, test.kind)
			}
			if !slices.Equal(w.files(), before) {
				t.Error("something was changed")
			}
		})
	}
	w := newRenameWorld(t)
	w.put("/run/qemu-server/100.pid", "4711\n") // of one that was killed
	if list := runningGuests(w.Host); len(list) > 0 {
		t.Errorf("guests that don't run: %q", list)
	}
}

// conf changes a word of corosync.conf.
func (w *renameWorld) conf(from, to string) {
	text, err := w.ReadFile(host.ClusterConf)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(host.ClusterConf, strings.Replace(string(text), from, to, 1))
}

func TestAHostOutsideOfAClusterGetsAnotherName(t *testing.T) {
	w := newRenameWorld(t)
	if err := os.Remove(w.Path(host.ClusterConf)); err != nil {
		t.Fatal(err)
	}
	members, _ := json.Marshal(map[string]any{"nodename": "node2", "nodelist": map[string]any{}})
	w.put("/etc/pve/.members", string(members))
	if _, _, err := Rename(t.Context(), w.Host, w.services(), toBeta); err != nil {
		t.Fatal(err)
	}
	w.want("/etc/pve/nodes/beta/qemu-server/100.conf", "memory: 512\n")
	w.want("/etc/hostname", "beta\n")
}

func TestRenameInHosts(t *testing.T) {
	for _, c := range []struct{ in, both, only string }{
		{"10.0.0.1 a\n", "10.0.0.1 z a\n", "10.0.0.1 z\n"},
		{"10.0.0.1 a.lan a\n", "10.0.0.1 z.lan a.lan z a\n", "10.0.0.1 z.lan z\n"},
		{"10.0.0.1\tA # the a\n", "10.0.0.1 z A # the a\n", "10.0.0.1 z # the a\n"},
		{"10.0.0.1 ab a-b x\n# 10.0.0.1 a\n", "10.0.0.1 ab a-b x\n# 10.0.0.1 a\n", "10.0.0.1 ab a-b x\n# 10.0.0.1 a\n"},
		{"10.0.0.1 z a", "10.0.0.1 z a\n", "10.0.0.1 z\n"},
		{"a a\n", "a z a\n", "a z\n"},
	} {
		both := renameInHosts(c.in, "a", "z", true)
		if both != c.both {
			t.Errorf("%q becomes %q, want %q", c.in, both, c.both)
		}
		if again := renameInHosts(both, "a", "z", true); again != both {
			t.Errorf("%q, again, becomes %q", both, again)
		}
		if only := renameInHosts(both, "a", "z", false); only != c.only {
			t.Errorf("%q becomes %q, want %q", both, only, c.only)
		}
	}
}
