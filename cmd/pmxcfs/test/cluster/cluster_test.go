package cluster

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
	"pmxcfs/contrib/lab/labtest"
)

// TestThreeNodes has one cluster for everything that leaves it as it was: three
// nodes that agree.
func TestThreeNodes(t *testing.T) {
	c := labtest.New(t, 3)
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
		{"AllNodesCrashAtOnceAndNothingIsLost", allCrash},
		{"FrozenCorosyncHoldsUpNeitherStopNorStart", frozenCorosync},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(c.In(t)) }) {
			c.In(t)
			t.Fatal("the cluster is not as the next test needs it")
		}
		c.In(t)
	}
	c.WantSameDatabases()
}

func everyOperation(c *cluster) {
	for i, w := range c.Nodes {
		dir := fmt.Sprintf("ops%d", i)
		p := func(name string) string { return filepath.Join(dir, name) }
		w.Mkdir(dir)
		w.Write(p("a"), "")
		c.Everywhere(p("a"), "")
		w.Write(p("a"), "one\n")
		c.Everywhere(p("a"), "one\n")
		w.Write(p("a"), "another\n")
		c.Everywhere(p("a"), "another\n")
		// Appending goes on where another node's file ends.
		for _, n := range c.Nodes {
			f, err := os.OpenFile(n.Path(p("a")), os.O_APPEND|os.O_WRONLY, 0)
			n.Must(err)
			_, err = fmt.Fprintf(f, "%s\n", n)
			n.Must(errors.Join(err, f.Close()))
			for _, o := range c.Nodes { // before the next one appends
				o.Eventually("the line is there", func() error {
					b, err := os.ReadFile(o.Path(p("a")))
					if err == nil && !strings.HasSuffix(string(b), "\n"+n.String()+"\n") {
						err = fmt.Errorf("%q", b)
					}
					return err
				})
			}
		}
		lines := "another\n"
		for _, n := range c.Nodes {
			lines += n.String() + "\n"
		}
		c.Everywhere(p("a"), lines)
		w.Must(os.Truncate(w.Path(p("a")), 3))
		c.Everywhere(p("a"), "ano")
		w.Must(os.Truncate(w.Path(p("a")), 5))
		c.Everywhere(p("a"), "ano\x00\x00")
		f, err := os.OpenFile(w.Path(p("a")), os.O_WRONLY, 0)
		w.Must(err)
		_, err = f.WriteAt([]byte("X"), 7)
		w.Must(errors.Join(err, f.Close()))
		c.Everywhere(p("a"), "ano\x00\x00\x00\x00X")
		w.Must(os.Rename(w.Path(p("a")), w.Path(p("b"))))
		c.Everywhere(p("b"), "ano\x00\x00\x00\x00X")
		w.Write(p("c"), "over")
		w.Must(os.Rename(w.Path(p("c")), w.Path(p("b"))))
		c.Everywhere(p("b"), "over")
		w.Mkdir(p("d/e"))
		w.Must(os.Rename(w.Path(p("d/e")), w.Path(p("f"))))
		w.Must(os.Remove(w.Path(p("d"))))
		w.Must(os.Chtimes(w.Path(p("b")), time.Time{}, time.Unix(1234567890, 0)))
		w.Write(p("end"), "end")
		c.Everywhere(p("end"), "end")
		var inode uint64
		for _, n := range c.Nodes {
			for _, gone := range []string{"a", "c", "d"} {
				n.WantNone(p(gone))
			}
			st, err := os.Stat(n.Path(p("b")))
			n.Must(err)
			if !st.ModTime().Equal(time.Unix(1234567890, 0)) || st.Mode() != 0o640 {
				c.T.Errorf("%s: %v %v", n, st.ModTime(), st.Mode())
			}
			if ino := st.Sys().(*syscall.Stat_t).Ino; inode == 0 {
				inode = ino
			} else if ino != inode {
				c.T.Errorf("%s: inode %d, elsewhere %d", n, ino, inode)
			}
			list, err := os.ReadDir(n.Path(dir))
			if err != nil || len(list) != 3 {
				c.T.Errorf("%s: %v, %v", n, list, err)
			}
		}
		// What fails here fails for the reason that the writer is told.
		if err := os.Mkdir(w.Path(p("f")), 0o755); !errors.Is(err, syscall.EEXIST) {
			c.T.Errorf("mkdir of what exists: %v", err)
		}
		if err := os.Remove(w.Path(dir)); !errors.Is(err, syscall.ENOTEMPTY) {
			c.T.Errorf("rmdir of a full directory: %v", err)
		}
		if err := os.Rename(w.Path(p("none")), w.Path(p("x"))); !errors.Is(err, syscall.ENOENT) {
			c.T.Errorf("rename of nothing: %v", err)
		}
		w.Must(os.RemoveAll(w.Path(dir)))
		for _, n := range c.Nodes {
			n.WantNone(dir)
		}
	}
}

func mebibyte(c *cluster) {
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	c.Node(2).Write("large", string(data))
	c.Everywhere("large", string(data))
	f, err := os.Create(c.Node(3).Path("large-in-pieces"))
	c.Node(3).Must(err)
	for at := 0; at < len(data); at += 64 << 10 {
		_, err := f.Write(data[at : at+64<<10])
		c.Node(3).Must(err)
	}
	_, err = f.WriteAt([]byte("x"), 1<<20)
	if !errors.Is(err, syscall.EFBIG) {
		c.T.Errorf("past 1 MiB: %v", err)
	}
	c.Node(3).Must(f.Close())
	c.Everywhere("large-in-pieces", string(data))
}

func specialFiles(c *cluster) {
	for _, n := range c.Nodes {
		m, err := n.Members()
		n.Must(err)
		if m.NodeName != n.String() || m.Cluster == nil || m.Cluster.Name != "lab" || m.Cluster.Nodes != 3 || m.Cluster.Quorate != 1 {
			c.T.Errorf("%s: .members: %+v", n, m)
		}
		n.Eventually(".members has all addresses", func() error {
			m, err := n.Members()
			for i := 1; i <= 3; i++ {
				if x := m.NodeList[lab.Name(i)]; err == nil && (x.ID != i || x.Online != 1 || x.IP != lab.Address(i)) {
					err = fmt.Errorf("%+v", m)
				}
			}
			return err
		})
		for _, p := range []string{".version", ".vmlist", ".clusterlog"} {
			b, err := os.ReadFile(n.Path(p))
			if err != nil || !json.Valid(b) {
				c.T.Errorf("%s: %s: %q, %v", n, p, b, err)
			}
		}
		n.Eventually("the cluster log has all nodes' starts", func() error {
			b, err := os.ReadFile(n.Path(".clusterlog"))
			for i := 1; i <= 3; i++ {
				if !strings.Contains(string(b), fmt.Sprintf("\"node\": %q", lab.Name(i))) {
					err = fmt.Errorf("%s", b)
				}
			}
			return err
		})
		if target, err := os.Readlink(n.Path("local")); err != nil || target != "nodes/"+n.String() {
			c.T.Errorf("%s: local: %q, %v", n, target, err)
		}
	}
}

// race has all nodes do the same at once and returns how often it went well.
// Whoever loses must be told want.
func race(c *cluster, want error, do func(n *node) error) (winner *node, wins int) {
	c.T.Helper()
	errs := make([]error, len(c.Nodes))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
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
			winner = c.Nodes[i]
			wins++
		case !errors.Is(err, want):
			c.T.Errorf("%s: %v, want %v", c.Nodes[i], err, want)
		}
	}
	return winner, wins
}

func raceForVMID(c *cluster) {
	for _, n := range c.Nodes {
		n.Mkdir("nodes/" + n.String() + "/qemu-server")
		n.Mkdir("nodes/" + n.String() + "/lxc")
	}
	for vmid := 100; vmid < 120; vmid++ {
		kinds := []string{"qemu-server", "lxc"}
		winner, wins := race(c, syscall.EEXIST, func(n *node) error {
			f, err := os.OpenFile(n.Path(fmt.Sprintf("nodes/%s/%s/%d.conf", n, kinds[n.Host.ID()%2], vmid)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
			if err == nil {
				err = f.Close()
			}
			return err
		})
		if wins != 1 {
			c.T.Fatalf("VMID %d: %d nodes have made it", vmid, wins)
		}
		text := fmt.Sprintf("\"%d\": { \"node\": %q", vmid, winner.String())
		for _, n := range c.Nodes {
			n.Eventually("the VM list has "+text, func() error {
				b, err := os.ReadFile(n.Path(".vmlist"))
				if err == nil && !strings.Contains(string(b), text) {
					err = fmt.Errorf("%s", b)
				}
				return err
			})
		}
	}
	for _, p := range []string{"qemu-server", "lxc"} {
		for _, n := range c.Nodes {
			n.Must(os.RemoveAll(c.Node(1).Path("nodes/" + n.String() + "/" + p)))
		}
	}
}

func raceForLock(c *cluster) {
	c.Node(1).Mkdir("priv/lock")
	c.Node(1).Mkdir("nodes")
	for _, n := range c.Nodes {
		n.WantDir("priv/lock")
	}
	for i := range 20 {
		name := fmt.Sprintf("priv/lock/race-%d", i)
		winner, wins := race(c, syscall.EEXIST, func(n *node) error { return os.Mkdir(n.Path(name), 0o755) })
		if wins != 1 {
			c.T.Fatalf("%s: %d nodes hold it", name, wins)
		}
		winner.Must(os.Remove(winner.Path(name)))
	}
}

func allWriteAtOnce(c *cluster) {
	const writers, files = 4, 10
	c.Node(1).Mkdir("busy")
	for _, n := range c.Nodes {
		n.WantDir("busy")
	}
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		for w := range writers {
			wg.Go(func() {
				for i := range files {
					name := fmt.Sprintf("busy/%s-%d-%d", n, w, i)
					err := os.WriteFile(n.Path(name+".tmp"), []byte(name), 0o640)
					if err == nil {
						err = os.Rename(n.Path(name+".tmp"), n.Path(name))
					}
					if err == nil {
						// All nodes fight for this one.
						err = os.WriteFile(n.Path("busy/common"), []byte(name), 0o640)
					}
					if err != nil {
						n.T.Errorf("%s: %v", n, err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, n := range c.Nodes {
		for _, o := range c.Nodes {
			for w := range writers {
				for i := range files {
					name := fmt.Sprintf("busy/%s-%d-%d", o, w, i)
					n.WantFile(name, name)
				}
			}
		}
	}
	b, err := os.ReadFile(c.Node(1).Path("busy/common"))
	c.Node(1).Must(err)
	c.Everywhere("busy/common", string(b))
	c.Node(2).Must(os.RemoveAll(c.Node(2).Path("busy")))
}

// replaceConf changes the tree's corosync.conf as administrators are told to.
func replaceConf(n *node, text string) {
	n.T.Helper()
	n.Write("corosync.conf.new", text)
	n.Must(os.Rename(n.Path("corosync.conf.new"), n.Path("corosync.conf")))
}

func corosyncConf(c *cluster) {
	conf := c.Lab.Conf()
	for i, n := range []*node{c.Node(2), c.Node(1)} {
		conf.Version = i + 2
		replaceConf(n, conf.String())
		for _, o := range c.Nodes {
			o.WantFile("corosync.conf", conf.String())
			o.Eventually("the host's copy is the new one", func() error {
				b, err := os.ReadFile(o.Host.Path("/etc/corosync/corosync.conf"))
				if err == nil && string(b) != conf.String() {
					err = fmt.Errorf("%q", b)
				}
				return err
			})
			st, err := os.Stat(o.Host.Path("/etc/corosync/corosync.conf"))
			if err != nil || st.Mode() != 0o644 || st.Sys().(*syscall.Stat_t).Uid != 0 {
				c.T.Errorf("%s: %v, %v", o, st, err)
			}
			// Corosync has been told, everywhere.
			o.Eventually("the running version is the new one", func() error {
				m, err := o.Members()
				if err == nil && m.Cluster.Version != conf.Version {
					err = fmt.Errorf("version %d", m.Cluster.Version)
				}
				return err
			})
			if text := fmt.Sprintf("wrote new corosync config '/etc/corosync/corosync.conf' (version = %d)", conf.Version); !strings.Contains(o.Log(), text) {
				c.T.Errorf("%s: the log doesn't say %q", o, text)
			}
		}
	}
}

func partition(c *cluster) {
	c.Node(1).Write("shared", "before")
	c.Everywhere("shared", "before")
	for _, minority := range []int{3, 1} {
		lone := c.Node(minority)
		var rest []*node
		for _, n := range c.Nodes {
			if n != lone {
				rest = append(rest, n)
			}
		}
		if err := c.Lab.Split([]int{minority}); err != nil {
			c.T.Fatal(err)
		}
		lone.WantReadOnly("shared")
		c.WantTogether(rest...)
		content := fmt.Sprintf("while %d was away", minority)
		rest[0].Write("shared", content)
		rest[1].Mkdir(fmt.Sprintf("away-%d", minority))
		rest[1].Write(fmt.Sprintf("away-%d/file", minority), content)
		rest[0].WantFile("shared", content)
		if err := c.Lab.Heal(); err != nil {
			c.T.Fatal(err)
		}
		c.WantTogether(c.Nodes...)
		c.Everywhere("shared", content)
		c.Everywhere(fmt.Sprintf("away-%d/file", minority), content)
		lone.Must(os.RemoveAll(lone.Path(fmt.Sprintf("away-%d", minority))))
		for _, n := range c.Nodes {
			if st, err := os.Stat(n.Path("shared")); err != nil || st.Mode() != 0o640 {
				c.T.Errorf("%s: mode after the merge %v, %v", n, st.Mode(), err)
			}
		}
	}
}

func killedNode(c *cluster) {
	n := c.Node(2)
	n.Kill()
	c.WantTogether(c.Node(1), c.Node(3))
	c.Node(1).Write("shared", "after a kill")
	n.Start() // over the dead mount
	if m := n.Mounts(); len(m) != 1 {
		c.T.Errorf("%s: mounts: %q", n, m)
	}
	c.WantTogether(c.Nodes...)
	c.Everywhere("shared", "after a kill")
}

func corosyncRestart(c *cluster) {
	n := c.Node(2)
	for _, end := range []func() error{n.Host.StopCorosync, n.Host.KillCorosync} {
		n.Must(end())
		n.WantReadOnly("shared")
		c.WantTogether(c.Node(1), c.Node(3))
		content := fmt.Sprint("while corosync was away ", time.Now().UnixNano())
		c.Node(3).Write("shared", content)
		n.Must(n.Host.StartCorosync())
		c.WantTogether(c.Nodes...)
		c.Everywhere("shared", content)
	}
}

func daemonFirst(c *cluster) {
	n := c.Node(3)
	n.Stop()
	n.Must(n.Host.StopCorosync())
	c.Node(1).Write("shared", "before corosync")
	n.Start()
	n.WantReadOnly("shared")
	n.Must(n.Host.StartCorosync())
	c.WantTogether(c.Nodes...)
	c.Everywhere("shared", "before corosync")
}

func emptyDatabase(c *cluster) {
	n := c.Node(1)
	n.Stop()
	n.RemoveDatabase()
	c.Node(2).Write("shared", "for an empty one")
	n.Start()
	c.WantTogether(c.Nodes...)
	c.Everywhere("shared", "for an empty one")
}

func aheadAlone(c *cluster) {
	n := c.Node(3)
	n.Stop()
	n.Start("-l")
	for i := range 50 {
		n.Write("shared", fmt.Sprint("alone ", i))
	}
	n.Mkdir("alone")
	n.Stop()
	n.Start()
	c.WantTogether(c.Nodes...)
	c.Everywhere("shared", "alone 49")
	for _, o := range c.Nodes {
		if st, err := os.Stat(o.Path("alone")); err != nil || !st.IsDir() {
			c.T.Errorf("%s: %v", o, err)
		}
	}
}

func frozenCorosync(c *cluster) {
	n := c.Node(2)
	corosync := n.Host.Corosync()
	n.Must(corosync.Signal(syscall.SIGSTOP))
	// Somebody waits for a change that can't be delivered.
	waiting := make(chan error, 1)
	go func() { waiting <- os.Mkdir(n.Path("never"), 0o755) }()
	n.Eventually("the change is under way", func() error {
		select {
		case err := <-waiting:
			n.T.Fatalf("%s: a change without corosync: %v", n, err)
		default:
		}
		return n.InRequest()
	})
	begin := time.Now()
	n.Stop()
	c.T.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
	if err := <-waiting; err == nil {
		c.T.Error("the change counts as made")
	}
	n.Start() // nor starting
	n.Must(corosync.Signal(syscall.SIGCONT))
	c.WantTogether(c.Nodes...)
}

// TestFirstStartTakesTheHostsCorosyncConf checks what a host makes of its
// corosync.conf when it has no database.
func TestFirstStartTakesTheHostsCorosyncConf(t *testing.T) {
	l := lab.NewWith(t, lab.Options{Hosts: 1, NoCorosync: true})
	c := labtest.Hosts(t, l)
	n := c.Node(1)
	n.Start()
	n.WantFile("corosync.conf", l.Conf().String())
	if m, err := n.Members(); err != nil || m.NodeName != "node1" {
		t.Errorf(".members: %+v, %v", m, err)
	}
	if err := os.Mkdir(n.Path("x"), 0o755); !errors.Is(err, syscall.EACCES) {
		t.Errorf("mkdir without corosync: %v", err)
	}
	// The tree's is put back where the host's is missing.
	n.Must(os.Remove(n.Host.Path("/etc/corosync/corosync.conf")))
	n.Stop()
	n.Start()
	n.Eventually("the host has a copy", func() error {
		b, err := os.ReadFile(n.Host.Path("/etc/corosync/corosync.conf"))
		if err == nil && string(b) != l.Conf().String() {
			err = fmt.Errorf("%q", b)
		}
		return err
	})
	n.Stop()

	// The package's example makes no cluster.
	n.RemoveDatabase()
	example, err := os.ReadFile("../../../../corosync/conf/testdata/debian-example.conf")
	n.Must(err)
	n.Must(os.WriteFile(n.Host.Path("/etc/corosync/corosync.conf"), example, 0o644))
	n.Start()
	n.Mkdir("writable")
	if _, err := os.Stat(n.Path("corosync.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the example was imported: %v", err)
	}
	n.Stop()
}
