package dcdb

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/overcpg"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

const (
	labHosts   = 3
	labWriters = 4 // on each host
	patience   = 60 * time.Second
)

// TestNodesOverCorosyncStayAlike has three hosts with a real corosync and real
// files write at the same time, each into its own and into common places. One is
// killed in the midst of it, and comes back.
func TestNodesOverCorosyncStayAlike(t *testing.T) {
	if lab.Inside() {
		host, err := strconv.Atoi(os.Getenv("HOST_NUMBER"))
		if err != nil {
			t.Fatal(err)
		}
		labNode(t, host, os.Getenv("DATABASE"))
		return
	}
	dir := t.TempDir()
	l := lab.New(t, labHosts)
	db := func(i int) string { return filepath.Join(dir, fmt.Sprintf("node%d.db", i+1)) }
	agents := make([]*lab.Agent, labHosts)
	for i := range agents {
		agents[i] = startNode(t, l.Host(i+1), db(i))
	}
	for _, a := range agents {
		a.Want(t, "SYNCED")
	}
	last := agents[labHosts-1]
	for range 20 {
		last.Want(t, "MADE ")
	}
	// A SIGKILL ends it: Stop's error only says so.
	if err := last.Process.Stop(syscall.SIGKILL, patience); err != nil {
		t.Fatal(err)
	}
	killed := last
	killed.Rest()
	for range 20 {
		agents[0].Want(t, "MADE ")
	}
	last = startNode(t, l.Host(labHosts), db(labHosts-1))
	agents[labHosts-1] = last
	last.Want(t, "SYNCED")
	for range 20 {
		last.Want(t, "MADE ")
	}
	for _, a := range agents {
		a.Say(t, "stop")
	}
	for _, a := range agents {
		a.Want(t, "DONE")
	}
	var results []string
	for _, a := range agents {
		a.Say(t, "end")
	}
	for _, a := range agents {
		results = append(results, a.Want(t, "RESULT "))
	}
	for i, a := range agents {
		a.Rest()
		if err := a.Process.Wait(); err != nil {
			t.Errorf("host %d: %v\n%s", i+1, err, strings.Join(a.Seen(), "\n"))
		}
		if results[i] != results[0] {
			t.Errorf("host %d ends with %q, host 1 with %q", i+1, results[i], results[0])
		}
	}
	var first string
	for i := range agents {
		rows, err := sqlite.ReadRows(db(i))
		if err != nil {
			t.Fatal(err)
		}
		all := fmt.Sprintf("%q", rows)
		if first == "" {
			first = all
		}
		if all != first {
			t.Errorf("the file of host %d is not that of host 1", i+1)
		}
	}
	c, err := sqlite.Read(db(0))
	if err != nil {
		t.Fatal(err)
	}
	tree := build(t, c.Entries)
	made := 0
	for _, a := range append(agents, killed) {
		for _, line := range a.Seen() {
			if path, ok := strings.CutPrefix(line, "MADE "); ok {
				made++
				if e, ok := tree.Lookup(path); !ok || string(e.Data()) != path {
					t.Errorf("%s was acknowledged, and is lost", path)
				}
			}
		}
	}
	t.Logf("%d files made, %s", made, results[0])
}

// startNode starts this test on a host, with a database there.
func startNode(t *testing.T, h *lab.Host, db string) *lab.Agent {
	t.Helper()
	return h.StartAgent(t, t.Name(), fmt.Sprint("HOST_NUMBER=", h.ID()), "DATABASE="+db)
}

// openCluster opens a database and starts the store over corosync.
func openCluster(t testing.TB, path string) (c *Cluster, stop func()) {
	t.Helper()
	db, entries, _, err := sqlite.Open(sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	c, err = NewCluster(ClusterConfig{
		Config:  Config{Tree: build(t, entries), DB: db, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))},
		Connect: overcpg.Connect(GroupName),
		Timeout: patience,
		Backoff: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetQuorate(true)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	return c, sync.OnceFunc(func() {
		cancel()
		<-ended
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func clusterSynced(t testing.TB, c *Cluster, members int) {
	t.Helper()
	testutil.Eventually(t, "synced", func() error {
		if s := c.Status().Group; s.Mode != dfsm.ModeSynced || len(s.Members) != members {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// labNode is the part of one host.
func labNode(t *testing.T, host int, path string) {
	in := bufio.NewScanner(os.Stdin)
	c, stop := openCluster(t, path)
	defer stop()
	clusterSynced(t, c, labHosts)
	fmt.Println("SYNCED")
	told := make(chan struct{})
	var wg sync.WaitGroup
	for w := range labWriters {
		wg.Go(func() { labWriter(t, c, fmt.Sprintf("n%d-%d-%d", host, os.Getpid(), w), told) })
	}
	in.Scan()
	close(told)
	wg.Wait()
	fmt.Println("DONE")
	in.Scan()
	mark := create(fmt.Sprintf("end%d", host))
	if _, err := c.Do(nil, &mark); err != nil {
		t.Fatal(err)
	}
	testutil.WaitFor(t, "through", func() bool {
		for i := range labHosts {
			if !has(c.Tree(), fmt.Sprintf("end%d", i+1)) {
				return false
			}
		}
		return true
	})
	fmt.Printf("RESULT version %d, %x\n", c.Tree().Root().Version, c.Tree().Checksum())
}

// labWriter makes files until it is told to stop: its own, and ones that all
// writers of all hosts fight for.
func labWriter(t *testing.T, c *Cluster, name string, told <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-told:
			return
		default:
		}
		path := fmt.Sprintf("%s-%d", name, n)
		must := func(op memdb.Op) bool {
			_, err := c.Do(nil, &op)
			if err != nil {
				t.Errorf("%v %s: %v", op.Kind, op.Path, err)
			}
			return err == nil
		}
		if !must(create(path)) || !must(memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(path)}) {
			return
		}
		fmt.Println("MADE " + path)
		common := fmt.Sprint("common", n%3)
		for _, op := range []memdb.Op{
			mkdir(common), create(common + "/f"), {Kind: memdb.OpWrite, Path: common + "/f", Data: []byte(path), Truncate: true},
			{Kind: memdb.OpRename, Path: common + "/f", To: "moved"}, {Kind: memdb.OpDelete, Path: common},
		} {
			c.Do(nil, &op) // one of all succeeds
		}
	}
}
