package status

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/dfsmtest"
	"pmxcfs/memdb"
	"pmxcfs/status/clusterlog"
)

// simApp is a store in a simulated process.
type simApp struct {
	dfsm.Application
	store *Store
}

func (a simApp) Quorum(quorate bool) { a.store.SetQuorate(quorate) }

// simulation is a cluster of stores.
type simulation struct {
	*dfsmtest.Cluster
	t     *testing.T
	hosts []*dfsmtest.Host
}

// newSimulation starts the daemons of n hosts in one ring.
func newSimulation(t *testing.T, n int) *simulation {
	t.Helper()
	sim := &simulation{t: t}
	sim.Cluster = dfsmtest.NewCluster(dfsmtest.Config{Hosts: n, Version: GroupVersion, NewApp: func(p *dfsmtest.Process) dfsmtest.App {
		id := int(p.Self().Node)
		store := mustNew(Config{
			Tree: memdb.New(), NodeName: fmt.Sprintf("node%d", id), Address: address(id), PID: p.Self().PID,
			Now: func() time.Time { return time.Unix(int64(sim.Now()), 0) },
		})
		store.SetCluster(labCluster(id, n, 1))
		store.SetGroup(p)
		return simApp{store.App(), store}
	}})
	for i := range n {
		h := sim.Host(corosync.NodeID(i + 1))
		h.Up = true
		sim.hosts = append(sim.hosts, h)
	}
	sim.Rearrange([][]*dfsmtest.Host{sim.hosts}, dfsmtest.CutSafe, nil)
	for _, h := range sim.hosts {
		sim.Start(h)
	}
	sim.settle()
	return sim
}

func (sim *simulation) settle() {
	sim.t.Helper()
	if !sim.Settle(10_000) {
		sim.t.Fatal("the group does not come to rest")
	}
	sim.Advance(1)
}

// store is the store of a host, from 1.
func (sim *simulation) store(host int) *Store {
	return sim.hosts[host-1].Process().App.(simApp).store
}

// set and log do what a client on a host asks for, and put the message on its way.
func (sim *simulation) set(host int, key, value string) {
	sim.t.Helper()
	if err := sim.store(host).Set(key, []byte(value)); err != nil {
		sim.t.Fatal(err)
	}
	sim.hosts[host-1].Process().Dispatch(0)
}

func (sim *simulation) log(host int, text string) {
	sim.store(host).Log(clusterlog.Message{Priority: 6, Ident: "root", Tag: "test", Text: text})
	sim.hosts[host-1].Process().Dispatch(0)
}

func (sim *simulation) rings(parts ...[]int) {
	var hosts [][]*dfsmtest.Host
	for _, part := range parts {
		var ring []*dfsmtest.Host
		for _, n := range part {
			ring = append(ring, sim.hosts[n-1])
		}
		hosts = append(hosts, ring)
	}
	sim.Rearrange(hosts, dfsmtest.CutSafe, nil)
	sim.settle()
}

func (sim *simulation) restart(host int) {
	h := sim.hosts[host-1]
	sim.Kill(h)
	sim.settle()
	sim.Start(h)
	sim.settle()
}

// wantValue checks what a host shows as a node's value; "" is none.
func (sim *simulation) wantValue(host, node int, key, want string) {
	sim.t.Helper()
	got, ok := sim.store(host).Get(key, fmt.Sprintf("node%d", node))
	if string(got) != want || ok != (want != "") {
		sim.t.Errorf("node %d shows %q, %v as node %d's %s, want %q", host, got, ok, node, key, want)
	}
}

// lines are the log's texts, newest first by time, node and number.
func lines(s *Store) (texts []string) {
	for _, e := range s.journal.log.Entries() {
		texts = append(texts, fmt.Sprintf("%s/%d/%d: %s", e.Node(), e.Time(), e.UID(), e.Text()))
	}
	return texts
}

// wantLines checks that all hosts have the same log, and how often a text is in it.
func (sim *simulation) wantLines(text string, count int) {
	sim.t.Helper()
	first := lines(sim.store(1))
	for i := range sim.hosts {
		if got := lines(sim.store(i + 1)); !slices.Equal(got, first) {
			sim.t.Errorf("node %d has the log\n%q\nnode 1\n%q", i+1, got, first)
		}
	}
	n := 0
	for _, e := range sim.store(1).journal.log.Entries() {
		if string(e.Text()) == text {
			n++
		}
	}
	if n != count {
		sim.t.Errorf("%q is %d times in the log, want %d", text, n, count)
	}
}

func memberOf(t *testing.T, s *Store, name string) map[string]any {
	t.Helper()
	list, _ := decode(t, s.Members())["nodelist"].(map[string]any)
	m, _ := list[name].(map[string]any)
	return m
}

func TestValuesEntriesAndAddressesReachAllNodes(t *testing.T) {
	sim := newSimulation(t, 4)
	sim.set(2, "ceph", "a")
	sim.set(2, "ceph", "b")
	sim.set(3, "gone", "x")
	sim.set(3, "gone", "")
	sim.set(4, "rrd/pve-storage-9.0/node4/local", "100:200:50\x00")
	sim.log(3, "hello")
	sim.settle()
	for host := 1; host <= 4; host++ {
		sim.wantValue(host, 2, "ceph", "b")
		sim.wantValue(host, 3, "gone", "")
		if got, want := string(sim.store(host).RRD()), "pve-storage-9.0/node4/local:100:200:50\n"; got != want {
			t.Errorf("node %d's .rrd is %q, want %q", host, got, want)
		}
		kv := decode(t, sim.store(host).Version())["kvstore"].(map[string]any)
		if n := kv["node2"].(map[string]any); n["ceph"] != 1.0 {
			t.Errorf("node %d has kvstore %v", host, kv)
		}
		for node := 1; node <= 4; node++ {
			if m := memberOf(t, sim.store(host), fmt.Sprintf("node%d", node)); m["ip"] != address(node) || m["online"] != 1.0 {
				t.Errorf("node %d shows node %d as %v", host, node, m)
			}
		}
	}
	sim.wantLines("hello", 1)
	sim.wantLines("starting cluster log", 4)
}

func TestANodesValuesSurviveOthersRestartsAndItsOwn(t *testing.T) {
	sim := newSimulation(t, 3)
	sim.set(1, "a", "1")
	sim.set(3, "c", "3")
	sim.log(3, "before")
	sim.settle()
	sim.restart(2)
	sim.wantValue(2, 1, "a", "1")
	sim.wantValue(2, 3, "c", "3")
	sim.restart(3)
	sim.wantValue(1, 3, "c", "3") // as its own daemon does not say otherwise
	sim.wantValue(3, 3, "c", "")
	sim.wantValue(3, 1, "a", "1")
	sim.wantLines("before", 1)
	sim.log(3, "after")
	sim.settle()
	sim.wantLines("after", 1)
}

func TestBothSidesOfAPartitionMerge(t *testing.T) {
	sim := newSimulation(t, 3)
	sim.set(3, "k", "old")
	sim.settle()
	sim.rings([]int{1, 2}, []int{3})
	for _, c := range []struct {
		host, node int
		online     float64
	}{{1, 3, 0}, {1, 2, 1}, {3, 1, 0}, {3, 3, 1}} {
		if m := memberOf(t, sim.store(c.host), fmt.Sprintf("node%d", c.node)); m["online"] != c.online {
			t.Errorf("node %d shows node %d as %v", c.host, c.node, m)
		}
	}
	sim.set(1, "k", "majority")
	sim.set(3, "k", "minority")
	sim.log(2, "many")
	sim.log(3, "few")
	sim.settle()
	sim.wantValue(1, 3, "k", "old")
	sim.wantValue(3, 1, "k", "")
	sim.rings([]int{1, 2, 3})
	for host := 1; host <= 3; host++ {
		sim.wantValue(host, 1, "k", "majority")
		sim.wantValue(host, 3, "k", "minority")
	}
	sim.wantLines("many", 1)
	sim.wantLines("few", 1)
}

func TestANodeThatLeavesTheClusterInfoIsForgotten(t *testing.T) {
	sim := newSimulation(t, 3)
	sim.set(3, "k", "x")
	sim.settle()
	for host := 1; host <= 2; host++ {
		sim.store(host).SetCluster(labCluster(host, 2, 2))
	}
	sim.set(3, "k", "y")
	sim.set(3, nodeIPKey, "10.1.1.1\x00")
	sim.set(3, "rrd/pve-storage-9.0/node3/local", "1:2:3\x00")
	sim.set(1, "k", "z")
	sim.settle()
	for host := 1; host <= 2; host++ {
		s := sim.store(host)
		sim.wantValue(host, 3, "k", "")
		sim.wantValue(host, 1, "k", "z")
		if memberOf(t, s, "node3") != nil || bytes.Contains(s.Version(), []byte("node3")) || len(s.RRD()) > 0 {
			t.Errorf("node %d still shows node 3:\n%s%s%s", host, s.Members(), s.Version(), s.RRD())
		}
		s.SetCluster(labCluster(host, 3, 3))
		sim.wantValue(host, 3, "k", "")
		if m := memberOf(t, s, "node3"); m["ip"] != nil {
			t.Errorf("node %d knows the address of a node that has just come: %v", host, m)
		}
	}
	sim.rings([]int{1, 2}, []int{3})
	sim.rings([]int{1, 2, 3})
	for host := 1; host <= 2; host++ {
		sim.wantValue(host, 3, "k", "y")
		if m := memberOf(t, sim.store(host), "node3"); m["ip"] != "10.1.1.1" {
			t.Errorf("node %d shows node 3 as %v", host, m)
		}
	}
}

var simSeed = flag.Uint64("sim.seed", 0, "run only the random history with this seed")

func TestRandomHistoriesEndAlike(t *testing.T) {
	if *simSeed != 0 {
		randomHistory(t, *simSeed)
		return
	}
	count := 150
	if testing.Short() {
		count = 20
	}
	base := uint64(time.Now().UnixNano()) % 1e12
	for seed := base; seed < base+uint64(count) && !t.Failed(); seed++ {
		randomHistory(t, seed)
	}
	if t.Failed() {
		t.Logf("one of the seeds from %d on; run with -sim.seed", base)
	}
}

// randomHistory has clients, daemons and the network do anything, then heals all
// and checks that every node shows what each daemon has set last, and every entry
// that was logged.
func randomHistory(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0x6b76))
	sim := newSimulation(t, 2+rnd.IntN(4))
	n := len(sim.hosts)
	pick := func(n int) int { return rnd.IntN(n) }
	keys := []string{"a", "b", "c"}
	cut := []dfsmtest.Cut{dfsmtest.CutSafe, dfsmtest.CutAgreed}[rnd.IntN(2)]
	var authors []*Store // of each entry
	for range 60 + rnd.IntN(120) {
		i := rnd.IntN(n)
		h := sim.hosts[i]
		switch p := h.Process(); rnd.IntN(24) {
		case 0, 1:
			parts := make([][]*dfsmtest.Host, 2)
			for _, h := range sim.hosts {
				side := rnd.IntN(2)
				parts[side] = append(parts[side], h)
			}
			sim.Rearrange(slices.DeleteFunc(parts, func(p []*dfsmtest.Host) bool { return len(p) == 0 }), cut, pick)
		case 2:
			sim.Rearrange([][]*dfsmtest.Host{sim.hosts}, cut, pick)
		case 3:
			if p != nil && rnd.IntN(2) == 0 {
				sim.Kill(h)
			} else if p == nil {
				sim.Advance(1)
				sim.Start(h)
			}
		case 4, 5, 6:
			if p != nil {
				sim.set(i+1, keys[rnd.IntN(len(keys))], fmt.Sprint(rnd.Uint64()))
			}
		case 7:
			if p != nil {
				authors = append(authors, sim.store(i+1))
				sim.log(i+1, fmt.Sprintf("entry %d", len(authors)))
			}
		case 8:
			sim.Advance(1)
		default:
			if p != nil {
				for range rnd.IntN(4) {
					p.Multicast(rnd.IntN(2) == 0)
				}
				p.Dispatch(rnd.IntN(8))
			}
		}
	}
	for _, h := range sim.hosts {
		if h.Process() == nil {
			sim.Advance(1)
			sim.Start(h)
		}
	}
	sim.Rearrange([][]*dfsmtest.Host{sim.hosts}, cut, nil)
	sim.settle()

	for i, h := range sim.hosts {
		if m := h.Process().Machine.Mode(); m != dfsm.ModeSynced {
			t.Errorf("seed %d: node %d ends in mode %v", seed, i+1, m)
		}
		own := sim.store(i + 1)
		for host := 1; host <= n; host++ {
			for _, key := range keys {
				want, ok := own.Get(key, "")
				if !ok {
					continue // not set since it started; others show what it set before
				}
				if got, _ := sim.store(host).Get(key, own.node); !bytes.Equal(got, want) {
					t.Errorf("seed %d: node %d shows %q as node %d's %s, which is %q", seed, host, got, i+1, key, want)
				}
			}
			if m := memberOf(t, sim.store(host), own.node); m["online"] != 1.0 || m["ip"] != address(i+1) {
				t.Errorf("seed %d: node %d shows node %d as %v", seed, host, i+1, m)
			}
		}
	}
	have := map[string]int{}
	for _, e := range sim.store(1).journal.log.Entries() {
		have[string(e.Text())]++
	}
	running := map[*Store]bool{}
	for i := range sim.hosts {
		running[sim.store(i+1)] = true
	}
	for i, author := range authors {
		// An entry may die with its author.
		if text := fmt.Sprintf("entry %d", i+1); have[text] > 1 || have[text] == 0 && running[author] {
			t.Errorf("seed %d: %q is %d times in the log %v", seed, text, have[text], slices.Sorted(maps.Keys(have)))
		}
	}
	for host := 2; host <= n; host++ {
		if a, b := lines(sim.store(1)), lines(sim.store(host)); !slices.Equal(a, b) {
			t.Errorf("seed %d: node %d's log %q, node 1's %q", seed, host, b, a)
		}
	}
}
