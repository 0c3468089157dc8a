package clustertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/memdb/sqlite"
)

const (
	// patience is how long a test waits for what should be there soon: long
	// enough for a busy machine.
	patience = 40 * time.Second
	// stopTime is how long a daemon may take to end; systemd gives it that.
	stopTime = 10 * time.Second
)

// cluster is some hosts with a daemon on each.
type cluster struct {
	t     testing.TB
	lab   *lab.Lab
	nodes []*node // node1 first
}

// node is a host with its daemon.
type node struct {
	t    testing.TB
	host *lab.Host
	proc *lab.Process // nil: none
	// dying are daemons that were killed and had not ended.
	dying []*lab.Process
}

// newCluster brings up n hosts with corosync and daemons that have found each
// other.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := newHosts(t, lab.New(t, n))
	for _, n := range c.nodes {
		n.start()
	}
	c.wantTogether(c.nodes...)
	return c
}

// newHosts is a cluster whose daemons don't run yet. At the end of the test
// those that do are killed.
func newHosts(t testing.TB, l *lab.Lab) *cluster {
	c := &cluster{t: t, lab: l}
	for _, h := range l.Hosts() {
		n := &node{t: t, host: h}
		c.nodes = append(c.nodes, n)
		t.Cleanup(n.clean)
	}
	return c
}

func (c *cluster) node(i int) *node { return c.nodes[i-1] }

// clean ends the daemon, and judges what no test expects.
func (n *node) clean() {
	if n.running() {
		n.kill()
	}
	n.bury()
	log := n.log()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if i := strings.Index(log, bad); i >= 0 {
			n.t.Errorf("%s: the daemon's log:\n%s", n, log[max(0, i-100):min(len(log), i+4000)])
		}
	}
	if n.t.Failed() {
		n.t.Logf("%s: the daemon's log:\n%s", n, log[max(0, len(log)-20000):])
	}
}

func (n *node) String() string { return n.host.Name() }

// in returns the node for use in a subtest.
func (c *cluster) in(t testing.TB) *cluster {
	sub := &cluster{t: t, lab: c.lab}
	for _, n := range c.nodes {
		n.t = t
		sub.nodes = append(sub.nodes, n)
	}
	return sub
}

func (n *node) log() string {
	b, err := os.ReadFile(filepath.Join(n.host.Dir(), "pmxcfs.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Error(err)
	}
	return string(b)
}

func (n *node) running() bool { return n.proc != nil && n.proc.Running() }

// launch starts the daemon and doesn't wait for anything.
func (n *node) launch(args ...string) {
	n.t.Helper()
	if n.running() {
		n.t.Fatalf("%s: the daemon is running already", n)
	}
	p, err := n.host.Start(lab.Spec{
		Args: append([]string{os.Getenv(programEnv), "-f"}, args...),
		Env:  []string{"GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.proc = p
}

// start starts the daemon and returns when it is up.
func (n *node) start(args ...string) {
	n.t.Helper()
	n.launch(args...)
	want := fmt.Sprintf("%d\n", n.proc.HostPid())
	n.eventually("the daemon is up", func() error {
		if !n.running() {
			n.t.Fatalf("%s: the daemon ended at its start: %v", n, n.proc.Wait())
		}
		if b, err := os.ReadFile(n.host.Path("/run/pve-cluster.pid")); err != nil || string(b) != want {
			return fmt.Errorf("pid file: %q, %v", b, err)
		}
		_, err := os.ReadFile(n.path(".version"))
		return err
	})
}

// stop ends the daemon in good order.
func (n *node) stop() {
	n.t.Helper()
	if err := n.proc.Stop(syscall.SIGTERM, stopTime); err != nil {
		n.t.Fatalf("%s: %v", n, err)
	}
	if err := n.proc.Wait(); err != nil {
		n.t.Fatalf("%s: the daemon ended with %v", n, err)
	}
	if mounts := n.mounts(); len(mounts) > 0 {
		n.t.Errorf("%s: left mounted: %q", n, mounts)
	}
}

// killTime is how long a killed daemon may take to end before it counts as
// stuck.
const killTime = 2 * time.Second

// kill ends it without. A thread of a killed daemon may be stuck in the kernel,
// telling it to forget a name in a directory where a caller waits for this very
// daemon; the next daemon's start is to end that.
func (n *node) kill() {
	n.t.Helper()
	if err := n.proc.Signal(syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	timer := time.NewTimer(killTime)
	defer timer.Stop()
	select {
	case <-n.proc.Done():
	case <-timer.C:
		n.t.Logf("%s: the killed daemon can't end: the next one has to help", n)
		n.dying = append(n.dying, n.proc)
	}
	n.proc = nil
}

// bury makes sure that no daemon is left that is stuck like that.
func (n *node) bury() {
	for _, p := range n.dying {
		if !p.Running() {
			continue
		}
		for _, dev := range n.devices() {
			_ = os.WriteFile("/sys/fs/fuse/connections/"+dev+"/abort", []byte("1"), 0)
		}
		select {
		case <-p.Done():
		case <-time.After(patience):
			n.t.Errorf("%s: a killed daemon does not end", n)
		}
	}
}

// devices lists the minor device numbers of the mounts: their FUSE connections.
func (n *node) devices() (list []string) {
	for _, line := range n.mounts() {
		if _, minor, ok := strings.Cut(strings.Fields(line)[2], ":"); ok {
			list = append(list, minor)
		}
	}
	return list
}

// mounts lists what is mounted on the host's /etc/pve.
func (n *node) mounts() (list []string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.host.Pid()))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/etc/pve" {
			list = append(list, line)
		}
	}
	return list
}

// path is where a path of the tree is.
func (n *node) path(p string) string { return n.host.Path("/etc/pve/" + p) }

// eventually waits until cond has nothing to object to.
func (n *node) eventually(what string, cond func() error) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: it never comes true that %s: %v", n, what, err)
		}
	}
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", n, err)
	}
}

func (n *node) write(p, content string) {
	n.t.Helper()
	n.must(os.WriteFile(n.path(p), []byte(content), 0o640))
}

func (n *node) mkdir(p string) {
	n.t.Helper()
	n.must(os.MkdirAll(n.path(p), 0o755))
}

// wantFile waits until the node shows a file with that content.
func (n *node) wantFile(p, content string) {
	n.t.Helper()
	n.eventually(p+" is there", func() error {
		b, err := os.ReadFile(n.path(p))
		if err == nil && string(b) != content {
			err = fmt.Errorf("it holds %s, want %s", brief(string(b)), brief(content))
		}
		return err
	})
}

// wantNone waits until the node shows no such file.
func (n *node) wantNone(p string) {
	n.t.Helper()
	n.eventually(p+" is gone", func() error {
		switch _, err := os.Stat(n.path(p)); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		return errors.New("it is there")
	})
}

func brief(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q… (%d bytes)", s[:60], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// everywhere waits until all nodes show a file with that content.
func (c *cluster) everywhere(p, content string) {
	c.t.Helper()
	for _, n := range c.nodes {
		n.wantFile(p, content)
	}
}

// members is what .members says.
type members struct {
	NodeName string
	Version  int
	Cluster  *struct {
		Name                    string
		Version, Nodes, Quorate int
	}
	NodeList map[string]struct {
		ID, Online int
		IP         string
	}
}

func (n *node) members() (m members, err error) {
	b, err := os.ReadFile(n.path(".members"))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// online gives the ids of the nodes that .members shows so, and whether this
// one is quorate.
func (n *node) online() (ids []int, quorate bool, err error) {
	m, err := n.members()
	if err != nil || m.Cluster == nil {
		return nil, false, err
	}
	for _, x := range m.NodeList {
		if x.Online == 1 {
			ids = append(ids, x.ID)
		}
	}
	slices.Sort(ids)
	return ids, m.Cluster.Quorate == 1, nil
}

// writable waits until the node takes changes.
func (n *node) writable() {
	n.t.Helper()
	n.eventually("it takes changes", func() error {
		name := n.path("probe-of-" + n.host.Name())
		err := os.Mkdir(name, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Remove(name)
		}
		return err
	})
}

// wantTogether waits until these nodes, and no others, are members beside each
// other and show each other's changes.
func (c *cluster) wantTogether(nodes ...*node) {
	c.t.Helper()
	var ids []int
	for _, n := range nodes {
		ids = append(ids, n.host.ID())
	}
	slices.Sort(ids)
	for _, n := range nodes {
		n.eventually(fmt.Sprintf("nodes %v are online", ids), func() error {
			got, quorate, err := n.online()
			if err == nil && (!slices.Equal(got, ids) || !quorate) {
				err = fmt.Errorf("online %v, quorate %v", got, quorate)
			}
			return err
		})
	}
	for _, n := range nodes {
		n.writable()
		p := "together-" + n.host.Name()
		content := fmt.Sprint(time.Now().UnixNano())
		n.write(p, content)
		for _, o := range nodes {
			o.wantFile(p, content)
		}
		n.must(os.Remove(n.path(p)))
		for _, o := range nodes {
			o.wantNone(p)
		}
	}
}

// wantReadOnly waits until the node has no quorum, and checks what that means.
func (n *node) wantReadOnly(file string) {
	n.t.Helper()
	n.eventually("it has lost quorum", func() error {
		st, err := os.Stat(n.path(file))
		if err == nil && st.Mode().Perm() != 0o440 {
			err = fmt.Errorf("%s has mode %v", file, st.Mode())
		}
		return err
	})
	before, err := os.ReadFile(n.path(file))
	n.must(err)
	for what, f := range map[string]func() error{
		"write":  func() error { return os.WriteFile(n.path(file), []byte("refused"), 0o640) },
		"create": func() error { return os.WriteFile(n.path("refused"), nil, 0o640) },
		"mkdir":  func() error { return os.Mkdir(n.path("refused.d"), 0o755) },
		"rename": func() error { return os.Rename(n.path(file), n.path("refused")) },
		"unlink": func() error { return os.Remove(n.path(file)) },
		"utimes": func() error { return os.Chtimes(n.path(file), time.Time{}, time.Unix(5, 0)) },
	} {
		if err := f(); !errors.Is(err, syscall.EACCES) {
			n.t.Errorf("%s without quorum: %s: %v, want EACCES", n, what, err)
		}
	}
	if after, err := os.ReadFile(n.path(file)); err != nil || !bytes.Equal(before, after) {
		n.t.Errorf("%s: reading without quorum: %v", n, err)
	}
	for p, want := range map[string]fs.FileMode{"nodes": 0o555 | fs.ModeDir, "priv": 0o500 | fs.ModeDir, "": 0o755 | fs.ModeDir, ".version": 0o440} {
		if st, err := os.Stat(n.path(p)); err != nil || st.Mode() != want {
			n.t.Errorf("%s: mode of %q without quorum: %v, %v; want %v", n, p, st.Mode(), err, want)
		}
	}
}

// wantSameDatabases stops all daemons and compares the rows of what they leave.
func (c *cluster) wantSameDatabases() {
	c.t.Helper()
	var first []string
	for i, n := range c.nodes {
		if n.running() {
			n.stop()
		}
		rows := n.rows()
		if i == 0 {
			first = rows
			continue
		}
		for j := range max(len(first), len(rows)) {
			a, b := "none", "none"
			if j < len(first) {
				a = first[j]
			}
			if j < len(rows) {
				b = rows[j]
			}
			if a != b {
				c.t.Errorf("the databases differ:\n%s: %s\n%s: %s", c.node(1), a, n, b)
				break
			}
		}
	}
	if len(first) < 2 { // the root, corosync.conf
		c.t.Errorf("only %d rows", len(first))
	}
}

// rows describes the rows of the node's database.
func (n *node) rows() (rows []string) {
	n.t.Helper()
	contents, err := sqlite.Read(filepath.Join(n.host.Dir(), "pve-cluster", "config.db"))
	n.must(err)
	if len(contents.Problems) > 0 {
		n.t.Errorf("%s: the database has problems: %v", n, contents.Problems)
	}
	for _, e := range contents.Entries {
		rows = append(rows, fmt.Sprintf("%d parent %d version %d writer %d mtime %d %v %q %d bytes digest %x",
			e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, e.Size(), e.Digest()))
	}
	return rows
}

// inRequest objects unless the kernel waits for an answer of the daemon's. Where
// the kernel doesn't tell, it has no objection.
func (n *node) inRequest() error {
	devices := n.devices()
	if len(devices) != 1 {
		return fmt.Errorf("mounts: %q", devices)
	}
	b, err := os.ReadFile("/sys/fs/fuse/connections/" + devices[0] + "/waiting")
	if err == nil && string(b) == "0\n" {
		err = errors.New("nothing waits")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
