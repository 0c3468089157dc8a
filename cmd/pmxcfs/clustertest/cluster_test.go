package clustertest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
)

// TestThreeNodes has one cluster for everything that leaves it as it was: three
// nodes that agree.
func TestThreeNodes(t *testing.T) {
	c := newCluster(t, 3)
	for _, s := range []struct {
		name string
		run  func(c *cluster)
	}{
		{"EveryOperationReachesAllNodes", everyOperation},
		{"AMebibyteReachesAllNodes", mebibyte},
		{"SpecialFilesTellOfTheCluster", specialFiles},
		{"ServiceSpreadsValuesAndLogs", service},
		{"OneNodeWinsTheRaceForAVMID", raceForVMID},
		{"OneNodeWinsTheRaceForALock", raceForLock},
		{"AllNodesWriteAtOnce", allWriteAtOnce},
		{"ChangedCorosyncConfReachesAllHosts", corosyncConf},
		{"MinorityIsReadOnlyAndCatchesUp", partition},
		{"KilledNodeCatchesUp", killedNode},
		{"CorosyncRestartIsSurvived", corosyncRestart},
		{"DaemonBeforeCorosync", daemonFirst},
		{"EmptyDatabaseIsFilled", emptyDatabase},
		{"DatabaseThatIsAheadIsTakenOver", aheadAlone},
		{"FrozenCorosyncHoldsUpNeitherStopNorStart", frozenCorosync},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(c.in(t)) }) {
			c.in(t)
			t.Fatal("the cluster is not as the next test needs it")
		}
		c.in(t)
	}
	c.wantSameDatabases()
}

func everyOperation(c *cluster) {
	for i, w := range c.nodes {
		dir := fmt.Sprintf("ops%d", i)
		p := func(name string) string { return filepath.Join(dir, name) }
		w.mkdir(dir)
		w.write(p("a"), "")
		c.everywhere(p("a"), "")
		w.write(p("a"), "one\n")
		c.everywhere(p("a"), "one\n")
		w.write(p("a"), "another\n")
		c.everywhere(p("a"), "another\n")
		// Appending goes on where another node's file ends.
		for _, n := range c.nodes {
			f, err := os.OpenFile(n.path(p("a")), os.O_APPEND|os.O_WRONLY, 0)
			n.must(err)
			_, err = fmt.Fprintf(f, "%s\n", n)
			n.must(errors.Join(err, f.Close()))
			for _, o := range c.nodes { // before the next one appends
				o.eventually("the line is there", func() error {
					b, err := os.ReadFile(o.path(p("a")))
					if err == nil && !strings.HasSuffix(string(b), "\n"+n.String()+"\n") {
						err = fmt.Errorf("%q", b)
					}
					return err
				})
			}
		}
		c.everywhere(p("a"), "another\nnode1\nnode2\nnode3\n")
		w.must(os.Truncate(w.path(p("a")), 3))
		c.everywhere(p("a"), "ano")
		w.must(os.Truncate(w.path(p("a")), 5))
		c.everywhere(p("a"), "ano\x00\x00")
		f, err := os.OpenFile(w.path(p("a")), os.O_WRONLY, 0)
		w.must(err)
		_, err = f.WriteAt([]byte("X"), 7)
		w.must(errors.Join(err, f.Close()))
		c.everywhere(p("a"), "ano\x00\x00\x00\x00X")
		w.must(os.Rename(w.path(p("a")), w.path(p("b"))))
		c.everywhere(p("b"), "ano\x00\x00\x00\x00X")
		w.write(p("c"), "over")
		w.must(os.Rename(w.path(p("c")), w.path(p("b"))))
		c.everywhere(p("b"), "over")
		w.mkdir(p("d/e"))
		w.must(os.Rename(w.path(p("d/e")), w.path(p("f"))))
		w.must(os.Remove(w.path(p("d"))))
		w.must(os.Chtimes(w.path(p("b")), time.Time{}, time.Unix(1234567890, 0)))
		w.write(p("end"), "end")
		c.everywhere(p("end"), "end")
		var inode uint64
		for _, n := range c.nodes {
			for _, gone := range []string{"a", "c", "d"} {
				n.wantNone(p(gone))
			}
			st, err := os.Stat(n.path(p("b")))
			n.must(err)
			if !st.ModTime().Equal(time.Unix(1234567890, 0)) || st.Mode() != 0o640 {
				c.t.Errorf("%s: %v %v", n, st.ModTime(), st.Mode())
			}
			if ino := st.Sys().(*syscall.Stat_t).Ino; inode == 0 {
				inode = ino
			} else if ino != inode {
				c.t.Errorf("%s: inode %d, elsewhere %d", n, ino, inode)
			}
			list, err := os.ReadDir(n.path(dir))
			if err != nil || len(list) != 3 {
				c.t.Errorf("%s: %v, %v", n, list, err)
			}
		}
		// What fails here fails for the reason that the writer is told.
		if err := os.Mkdir(w.path(p("f")), 0o755); !errors.Is(err, syscall.EEXIST) {
			c.t.Errorf("mkdir of what exists: %v", err)
		}
		if err := os.Remove(w.path(dir)); !errors.Is(err, syscall.ENOTEMPTY) {
			c.t.Errorf("rmdir of a full directory: %v", err)
		}
		if err := os.Rename(w.path(p("none")), w.path(p("x"))); !errors.Is(err, syscall.ENOENT) {
			c.t.Errorf("rename of nothing: %v", err)
		}
		w.must(os.RemoveAll(w.path(dir)))
		for _, n := range c.nodes {
			n.wantNone(dir)
		}
	}
}

func mebibyte(c *cluster) {
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	c.node(2).write("large", string(data))
	c.everywhere("large", string(data))
	f, err := os.Create(c.node(3).path("large-in-pieces"))
	c.node(3).must(err)
	for at := 0; at < len(data); at += 64 << 10 {
		_, err := f.Write(data[at : at+64<<10])
		c.node(3).must(err)
	}
	_, err = f.WriteAt([]byte("x"), 1<<20)
	if !errors.Is(err, syscall.EFBIG) {
		c.t.Errorf("past 1 MiB: %v", err)
	}
	c.node(3).must(f.Close())
	c.everywhere("large-in-pieces", string(data))
}

func specialFiles(c *cluster) {
	for _, n := range c.nodes {
		m, err := n.members()
		n.must(err)
		if m.NodeName != n.String() || m.Cluster == nil || m.Cluster.Name != "lab" || m.Cluster.Nodes != 3 || m.Cluster.Quorate != 1 {
			c.t.Errorf("%s: .members: %+v", n, m)
		}
		n.eventually(".members has all addresses", func() error {
			m, err := n.members()
			for i := 1; i <= 3; i++ {
				if x := m.NodeList[lab.Name(i)]; err == nil && (x.ID != i || x.Online != 1 || x.IP != lab.Address(i)) {
					err = fmt.Errorf("%+v", m)
				}
			}
			return err
		})
		for _, p := range []string{".version", ".vmlist", ".clusterlog"} {
			b, err := os.ReadFile(n.path(p))
			if err != nil || !json.Valid(b) {
				c.t.Errorf("%s: %s: %q, %v", n, p, b, err)
			}
		}
		n.eventually("the cluster log has all nodes' starts", func() error {
			b, err := os.ReadFile(n.path(".clusterlog"))
			for i := 1; i <= 3; i++ {
				if !strings.Contains(string(b), fmt.Sprintf("\"node\": %q", lab.Name(i))) {
					err = fmt.Errorf("%s", b)
				}
			}
			return err
		})
		if target, err := os.Readlink(n.path("local")); err != nil || target != "nodes/"+n.String() {
			c.t.Errorf("%s: local: %q, %v", n, target, err)
		}
	}
}

// race has all nodes do the same at once and returns how often it went well.
// Whoever loses must be told want.
func (c *cluster) race(want error, do func(n *node) error) (winner *node, wins int) {
	c.t.Helper()
	errs := make([]error, len(c.nodes))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() {
			<-begin
			errs[i] = do(n)
		})
	}
	close(begin)
	wg.Wait()
	for i, err := range errs {
		switch {
		case err == nil:
			winner = c.nodes[i]
			wins++
		case !errors.Is(err, want):
			c.t.Errorf("%s: %v, want %v", c.nodes[i], err, want)
		}
	}
	return winner, wins
}

func raceForVMID(c *cluster) {
	for _, n := range c.nodes {
		n.mkdir("nodes/" + n.String() + "/qemu-server")
		n.mkdir("nodes/" + n.String() + "/lxc")
	}
	for vmid := 100; vmid < 120; vmid++ {
		kinds := []string{"qemu-server", "lxc", "qemu-server"}
		winner, wins := c.race(syscall.EEXIST, func(n *node) error {
			f, err := os.OpenFile(n.path(fmt.Sprintf("nodes/%s/%s/%d.conf", n, kinds[n.host.ID()-1], vmid)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
			if err == nil {
				err = f.Close()
			}
			return err
		})
		if wins != 1 {
			c.t.Fatalf("VMID %d: %d nodes have made it", vmid, wins)
		}
		text := fmt.Sprintf("\"%d\": { \"node\": %q", vmid, winner.String())
		for _, n := range c.nodes {
			n.eventually("the VM list has "+text, func() error {
				b, err := os.ReadFile(n.path(".vmlist"))
				if err == nil && !strings.Contains(string(b), text) {
					err = fmt.Errorf("%s", b)
				}
				return err
			})
		}
	}
	for _, p := range []string{"qemu-server", "lxc"} {
		for _, n := range c.nodes {
			n.must(os.RemoveAll(c.node(1).path("nodes/" + n.String() + "/" + p)))
		}
	}
}

func raceForLock(c *cluster) {
	c.node(1).mkdir("priv/lock")
	c.node(1).mkdir("nodes")
	for _, n := range c.nodes {
		n.eventually("priv/lock is there", func() error { _, err := os.Stat(n.path("priv/lock")); return err })
	}
	for i := range 20 {
		name := fmt.Sprintf("priv/lock/race-%d", i)
		winner, wins := c.race(syscall.EEXIST, func(n *node) error { return os.Mkdir(n.path(name), 0o755) })
		if wins != 1 {
			c.t.Fatalf("%s: %d nodes hold it", name, wins)
		}
		winner.must(os.Remove(winner.path(name)))
	}
}

func allWriteAtOnce(c *cluster) {
	const writers, files = 4, 10
	c.node(1).mkdir("busy")
	for _, n := range c.nodes {
		n.eventually("busy is there", func() error { _, err := os.Stat(n.path("busy")); return err })
	}
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		for w := range writers {
			wg.Go(func() {
				for i := range files {
					name := fmt.Sprintf("busy/%s-%d-%d", n, w, i)
					err := os.WriteFile(n.path(name+".tmp"), []byte(name), 0o640)
					if err == nil {
						err = os.Rename(n.path(name+".tmp"), n.path(name))
					}
					if err == nil {
						// All nodes fight for this one.
						err = os.WriteFile(n.path("busy/common"), []byte(name), 0o640)
					}
					if err != nil {
						n.t.Errorf("%s: %v", n, err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, n := range c.nodes {
		for _, o := range c.nodes {
			for w := range writers {
				for i := range files {
					name := fmt.Sprintf("busy/%s-%d-%d", o, w, i)
					n.wantFile(name, name)
				}
			}
		}
	}
	b, err := os.ReadFile(c.node(1).path("busy/common"))
	c.node(1).must(err)
	c.everywhere("busy/common", string(b))
	c.node(2).must(os.RemoveAll(c.node(2).path("busy")))
}

func corosyncConf(c *cluster) {
	conf := c.lab.Conf()
	for i, n := range []*node{c.node(2), c.node(1)} {
		conf.Version = i + 2
		n.write("corosync.conf.new", conf.String())
		n.must(os.Rename(n.path("corosync.conf.new"), n.path("corosync.conf")))
		for _, o := range c.nodes {
			o.wantFile("corosync.conf", conf.String())
			o.eventually("the host's copy is the new one", func() error {
				b, err := os.ReadFile(o.host.Path("/etc/corosync/corosync.conf"))
				if err == nil && string(b) != conf.String() {
					err = fmt.Errorf("%q", b)
				}
				return err
			})
			st, err := os.Stat(o.host.Path("/etc/corosync/corosync.conf"))
			if err != nil || st.Mode() != 0o644 || st.Sys().(*syscall.Stat_t).Uid != 0 {
				c.t.Errorf("%s: %v, %v", o, st, err)
			}
			// Corosync has been told, everywhere.
			o.eventually("the running version is the new one", func() error {
				m, err := o.members()
				if err == nil && m.Cluster.Version != conf.Version {
					err = fmt.Errorf("version %d", m.Cluster.Version)
				}
				return err
			})
			if text := fmt.Sprintf("wrote new corosync config '/etc/corosync/corosync.conf' (version = %d)", conf.Version); !strings.Contains(o.log(), text) {
				c.t.Errorf("%s: the log doesn't say %q", o, text)
			}
		}
	}
}

func partition(c *cluster) {
	c.node(1).write("shared", "before")
	c.everywhere("shared", "before")
	for _, minority := range []int{3, 1} {
		lone := c.node(minority)
		var rest []*node
		for _, n := range c.nodes {
			if n != lone {
				rest = append(rest, n)
			}
		}
		if err := c.lab.Split([]int{minority}); err != nil {
			c.t.Fatal(err)
		}
		lone.wantReadOnly("shared")
		c.wantTogether(rest...)
		content := fmt.Sprintf("while %d was away", minority)
		rest[0].write("shared", content)
		rest[1].mkdir(fmt.Sprintf("away-%d", minority))
		rest[1].write(fmt.Sprintf("away-%d/file", minority), content)
		rest[0].wantFile("shared", content)
		if err := c.lab.Heal(); err != nil {
			c.t.Fatal(err)
		}
		c.wantTogether(c.nodes...)
		c.everywhere("shared", content)
		c.everywhere(fmt.Sprintf("away-%d/file", minority), content)
		lone.must(os.RemoveAll(lone.path(fmt.Sprintf("away-%d", minority))))
		for _, n := range c.nodes {
			if st, err := os.Stat(n.path("shared")); err != nil || st.Mode() != 0o640 {
				c.t.Errorf("%s: mode after the merge %v, %v", n, st.Mode(), err)
			}
		}
	}
}

func killedNode(c *cluster) {
	n := c.node(2)
	n.kill()
	c.wantTogether(c.node(1), c.node(3))
	c.node(1).write("shared", "after a kill")
	n.start() // over the dead mount
	if m := n.mounts(); len(m) != 1 {
		c.t.Errorf("%s: mounts: %q", n, m)
	}
	c.wantTogether(c.nodes...)
	c.everywhere("shared", "after a kill")
}

func corosyncRestart(c *cluster) {
	n := c.node(2)
	for _, end := range []func() error{n.host.StopCorosync, n.host.KillCorosync} {
		n.must(end())
		n.wantReadOnly("shared")
		c.wantTogether(c.node(1), c.node(3))
		content := fmt.Sprint("while corosync was away ", time.Now().UnixNano())
		c.node(3).write("shared", content)
		n.must(n.host.StartCorosync())
		c.wantTogether(c.nodes...)
		c.everywhere("shared", content)
	}
}

func daemonFirst(c *cluster) {
	n := c.node(3)
	n.stop()
	n.must(n.host.StopCorosync())
	c.node(1).write("shared", "before corosync")
	n.start()
	n.wantReadOnly("shared")
	n.must(n.host.StartCorosync())
	c.wantTogether(c.nodes...)
	c.everywhere("shared", "before corosync")
}

func (n *node) removeDatabase() {
	n.t.Helper()
	dir := filepath.Join(n.host.Dir(), "pve-cluster")
	files, err := os.ReadDir(dir)
	n.must(err)
	for _, f := range files {
		n.must(os.Remove(filepath.Join(dir, f.Name())))
	}
}

func emptyDatabase(c *cluster) {
	n := c.node(1)
	n.stop()
	n.removeDatabase()
	c.node(2).write("shared", "for an empty one")
	n.start()
	c.wantTogether(c.nodes...)
	c.everywhere("shared", "for an empty one")
}

func aheadAlone(c *cluster) {
	n := c.node(3)
	n.stop()
	n.start("-l")
	for i := range 50 {
		n.write("shared", fmt.Sprint("alone ", i))
	}
	n.mkdir("alone")
	n.stop()
	n.start()
	c.wantTogether(c.nodes...)
	c.everywhere("shared", "alone 49")
	for _, o := range c.nodes {
		if st, err := os.Stat(o.path("alone")); err != nil || !st.IsDir() {
			c.t.Errorf("%s: %v", o, err)
		}
	}
}

func frozenCorosync(c *cluster) {
	n := c.node(2)
	corosync := n.host.Corosync()
	n.must(corosync.Signal(syscall.SIGSTOP))
	// Somebody waits for a change that can't be delivered.
	waiting := make(chan error, 1)
	go func() { waiting <- os.Mkdir(n.path("never"), 0o755) }()
	n.eventually("the change is under way", func() error {
		select {
		case err := <-waiting:
			n.t.Fatalf("%s: a change without corosync: %v", n, err)
		default:
		}
		return n.inRequest()
	})
	begin := time.Now()
	n.stop()
	c.t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
	if err := <-waiting; err == nil {
		c.t.Error("the change counts as made")
	}
	n.start() // nor starting
	n.must(corosync.Signal(syscall.SIGCONT))
	c.wantTogether(c.nodes...)
}

// TestFirstStartTakesTheHostsCorosyncConf checks what a host makes of its
// corosync.conf when it has no database.
func TestFirstStartTakesTheHostsCorosyncConf(t *testing.T) {
	l := lab.NewWith(t, lab.Options{Hosts: 1, NoCorosync: true})
	c := newHosts(t, l)
	n := c.node(1)
	n.start()
	n.wantFile("corosync.conf", l.Conf().String())
	if m, err := n.members(); err != nil || m.NodeName != "node1" {
		t.Errorf(".members: %+v, %v", m, err)
	}
	if err := os.Mkdir(n.path("x"), 0o755); !errors.Is(err, syscall.EACCES) {
		t.Errorf("mkdir without corosync: %v", err)
	}
	// The tree's is put back where the host's is missing.
	n.must(os.Remove(n.host.Path("/etc/corosync/corosync.conf")))
	n.stop()
	n.start()
	n.eventually("the host has a copy", func() error {
		b, err := os.ReadFile(n.host.Path("/etc/corosync/corosync.conf"))
		if err == nil && string(b) != l.Conf().String() {
			err = fmt.Errorf("%q", b)
		}
		return err
	})
	n.stop()

	// The package's example makes no cluster.
	n.removeDatabase()
	example := "totem {\n\tversion: 2\n\tcluster_name: debian\n}\nnodelist {\n\tnode {\n\t\tname: node1\n\t\tnodeid: 1\n\t\tring0_addr: 127.0.0.1\n\t}\n}\n"
	n.must(os.WriteFile(n.host.Path("/etc/corosync/corosync.conf"), []byte(example), 0o644))
	n.start()
	n.mkdir("writable")
	if _, err := os.Stat(n.path("corosync.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the example was imported: %v", err)
	}
	n.stop()
}
