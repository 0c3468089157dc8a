package status

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/rrd"
)

// What the daemon connects the store with.
var (
	_ dcdb.Observer = (*Store)(nil)
	_ Poster        = (*group.Group)(nil)
	_ RRDWriter     = (*rrd.Writer)(nil)
)

// runNode runs a node's daemon until the function it returns is called.
func runNode(t *testing.T, b *grouptest.Bus, node, nodes int) (s *Store, stop func()) {
	t.Helper()
	s = mustNew(Config{Tree: memdb.New(), NodeName: fmt.Sprintf("node%d", node), Address: address(node)})
	g, err := group.New(group.Config{
		Version: GroupVersion, App: s.App(), Ready: s.Ready,
		Connect: b.Connector(corosync.NodeID(node)),
		Backoff: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetGroup(g)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	s.SetCluster(labCluster(node, nodes, 1)) // not before Run: Ready holds it back until now
	return s, stop
}

func TestStoresBehindTheGroupsDriver(t *testing.T) {
	const nodes, each = 3, 100
	b := new(grouptest.Bus)
	var stores [nodes + 1]*Store
	var stops [nodes + 1]func()
	for node := 1; node <= nodes; node++ {
		stores[node], stops[node] = runNode(t, b, node, nodes)
	}
	allOnline := func() bool {
		for _, s := range stores[1:] {
			for node := 1; node <= nodes; node++ {
				if m := memberOf(t, s, fmt.Sprintf("node%d", node)); m["online"] != 1.0 || m["ip"] != address(node) {
					return false
				}
			}
		}
		return true
	}
	testutil.WaitFor(t, "all members with their addresses", allOnline)

	// Clients of all nodes at once, while node 3's daemon starts anew.
	var wg sync.WaitGroup
	for node := 1; node <= 2; node++ {
		for client := range 3 {
			wg.Go(func() {
				for i := range each {
					if err := stores[node].Set(fmt.Sprintf("key%d", client), fmt.Append(nil, i)); err != nil {
						t.Error(err)
					}
					stores[node].Log(clusterlog.Message{Ident: "root", Tag: "test", Text: fmt.Sprintf("%d/%d/%d", node, client, i)})
					stores[node].Version()
				}
			})
		}
	}
	stops[3]()
	stores[3], stops[3] = runNode(t, b, 3, nodes)
	wg.Wait()
	testutil.WaitFor(t, "all members again", allOnline)
	for host := 1; host <= nodes; host++ {
		for node := 1; node <= 2; node++ {
			for client := range 3 {
				key, name := fmt.Sprintf("key%d", client), stores[node].node
				testutil.WaitFor(t, fmt.Sprintf("node %d shows the last %s of %s", host, key, name), func() bool {
					v, _ := stores[host].Get(key, name)
					return string(v) == fmt.Sprint(each-1)
				})
			}
		}
		testutil.WaitFor(t, fmt.Sprintf("node %d has all entries", host), func() bool {
			n := 0
			for _, e := range stores[host].journal.log.Entries() {
				if string(e.Tag()) == "test" {
					n++
				}
			}
			return n == 2*3*each
		})
	}
	stops[3]()
	testutil.WaitFor(t, "node 3 is offline", func() bool { return memberOf(t, stores[1], "node3")["online"] == 0.0 })
}

func TestTheGroupIsNotJoinedBeforeTheClusterIsKnown(t *testing.T) {
	b := new(grouptest.Bus)
	s := mustNew(Config{Tree: memdb.New(), NodeName: "node1"})
	asked := make(chan struct{}, 100)
	g, err := group.New(group.Config{
		App: s.App(),
		Ready: func() error {
			err := s.Ready()
			select {
			case asked <- struct{}{}:
			default:
			}
			return err
		},
		Connect: b.Connector(1),
		Backoff: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	for range 3 {
		<-asked
	}
	if g.Status().Joins != 0 {
		t.Error("joined without cluster info")
	}
	s.SetCluster(labCluster(1, 1, 1))
	testutil.WaitFor(t, "joined", func() bool { return g.Status().Mode == dfsm.ModeSynced })
	if got := g.Status().Self.Node; got != corosync.NodeID(1) {
		t.Errorf("joined as node %d", got)
	}
}
