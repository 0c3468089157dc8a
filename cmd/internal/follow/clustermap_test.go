package follow

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/corosync/cmap"
)

// nodeMap is a map as corosync makes it; change says what is different.
func nodeMap(change map[string]string) map[string]string {
	m := map[string]string{
		"totem.cluster_name":            "lab",
		"totem.config_version":          "4",
		"nodelist.local_node_pos":       "1",
		"nodelist.node.0.nodeid":        "3",
		"nodelist.node.0.name":          "node3",
		"nodelist.node.0.ring0_addr":    "10.99.0.3",
		"nodelist.node.0.quorum_votes":  "1",
		"nodelist.node.1.nodeid":        "1",
		"nodelist.node.1.name":          "node1",
		"nodelist.node.1.ring0_addr":    "10.99.0.1",
		"nodelist.node.1.quorum_votes":  "2",
		"nodelist.node.10.nodeid":       "2",
		"nodelist.node.10.ring0_addr":   "10.99.0.2",
		"nodelist.node.10.ring1_addr":   "10.98.0.2",
		"nodelist.node.10.something.at": "all",
	}
	for k, v := range change {
		m[k] = v
		if v == "" {
			delete(m, k)
		}
	}
	return m
}

var labInfo = ClusterInfo{Name: "lab", Version: 4, Local: 1, Nodes: []Node{
	{ID: 1, Name: "node1", Address: "10.99.0.1", Votes: 2},
	{ID: 2, Name: "10.99.0.2", Address: "10.99.0.2", Votes: 1},
	{ID: 3, Name: "node3", Address: "10.99.0.3", Votes: 1},
}}

func TestClusterInfoFromCorosyncsMap(t *testing.T) {
	without := func(id int) ClusterInfo {
		info := labInfo
		info.Nodes = nil
		for _, n := range labInfo.Nodes {
			if int(n.ID) != id {
				info.Nodes = append(info.Nodes, n)
			}
		}
		return info
	}
	foreign := labInfo
	foreign.Local = 0
	for _, c := range []struct {
		name   string
		change map[string]string
		want   ClusterInfo
	}{
		{"whole", nil, labInfo},
		{"no local position", map[string]string{"nodelist.local_node_pos": ""}, foreign},
		{"a node without id", map[string]string{"nodelist.node.0.nodeid": ""}, without(3)},
		{"an id that is none", map[string]string{"nodelist.node.0.nodeid": "4294967296"}, without(3)},
		{"neither name nor address", map[string]string{"nodelist.node.10.ring0_addr": ""}, without(2)},
		{"the same id twice", map[string]string{"nodelist.node.7.nodeid": "3", "nodelist.node.7.name": "zzz"}, labInfo},
	} {
		if got := ParseClusterInfo(nodeMap(c.change)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v\nwant %+v", c.name, got, c.want)
		}
	}
	if got := ParseClusterInfo(nil); !reflect.DeepEqual(got, ClusterInfo{}) {
		t.Errorf("empty: %+v", got)
	}
}

func FuzzClusterInfo(f *testing.F) {
	f.Add("nodelist.node.0.nodeid=1\nnodelist.node.0.name=a\nnodelist.local_node_pos=0\ntotem.config_version=1")
	f.Add("nodelist.node..nodeid=1\nnodelist.node.x.name=a\nnodelist.node.=\nnodelist.local_node_pos=x")
	f.Fuzz(func(t *testing.T, text string) {
		m := map[string]string{}
		for line := range strings.Lines(text) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			m[k] = v
		}
		info := ParseClusterInfo(m)
		if again := ParseClusterInfo(m); !reflect.DeepEqual(again, info) {
			t.Errorf("not the same twice: %+v, %+v", info, again)
		}
		for i, n := range info.Nodes {
			if n.ID == 0 || n.Name == "" || i > 0 && info.Nodes[i-1].ID >= n.ID {
				t.Errorf("node %d: %+v", i, info)
			}
		}
	})
}

// fakeMap is a map that a test changes.
type fakeMap struct {
	*fakeConn[cmap.Event]
	mu    sync.Mutex
	m     map[string]string
	reads int
}

func (c *fakeMap) Track() error { return c.fails }

func (c *fakeMap) Read() (map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.m, nil
}

func (c *fakeMap) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}

func (c *fakeMap) set(m map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m = m
	c.batches <- []cmap.Event{{Op: cmap.OpModify}}
}

func newFakeMap(m map[string]string) *fakeMap {
	return &fakeMap{fakeConn: newFakeConn[cmap.Event](), m: m}
}

type mapBench struct {
	dialer[mapConn]
	log  *logText
	work *Worker
	got  list[ClusterInfo]
}

func startMapBench(connect func() (mapConn, error)) *mapBench {
	b := &mapBench{dialer: dialer[mapConn]{make: connect}}
	log, logger := newLogText()
	b.log = log
	w := &mapWatch{connect: b.dial, report: b.got.add, log: logger,
		trouble: trouble{log: logger, what: "no connection"}}
	b.work = Start("confdb", w.run)
	return b
}

func TestMapIsReportedWhenItHasComeToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeMap(nodeMap(nil))
		b := startMapBench(func() (mapConn, error) { return c, nil })
		synctest.Wait()
		if len(b.got.all()) != 1 || !reflect.DeepEqual(b.got.all()[0], labInfo) {
			t.Fatalf("at first: %+v", b.got.all())
		}
		// A reload: nodes go and come back, key by key.
		for range 20 {
			c.set(nodeMap(map[string]string{"nodelist.node.0.nodeid": ""}))
			time.Sleep(mapQuiet / 2)
		}
		c.set(nodeMap(map[string]string{"totem.config_version": "5"}))
		time.Sleep(2 * mapQuiet)
		synctest.Wait()
		if len(b.got.all()) != 2 || b.got.all()[1].Version != 5 || len(b.got.all()[1].Nodes) != 3 {
			t.Errorf("after a reload: %+v", b.got.all()[1:])
		}
		// An event that changes nothing here.
		c.set(nodeMap(map[string]string{"totem.config_version": "5"}))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(b.got.all()) != 2 {
			t.Errorf("reported without a change: %+v", b.got.all()[2:])
		}
		// A map without rest is read all the same.
		reads := c.count()
		for range 4 * mapBusy / mapQuiet {
			c.set(nodeMap(map[string]string{"totem.config_version": "6"}))
			time.Sleep(mapQuiet / 2)
		}
		synctest.Wait()
		if n := c.count() - reads; n == 0 || n > 3 || b.got.last().Version != 6 {
			t.Errorf("a restless map: %d reads, %+v", n, b.got.all()[2:])
		}
		if err := Close(b.work); err != nil {
			t.Error(err)
		}
		c.wantClosed(t)
	})
}

func TestMapStaysKnownWhileTheConnectionIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns list[*fakeMap]
		connect := func() (mapConn, error) {
			conns.add(newFakeMap(nodeMap(nil)))
			return conns.last(), nil
		}
		b := startMapBench(connect)
		synctest.Wait()
		b.fail(errors.New("corosync is away"))
		close(conns.all()[0].lost)
		time.Sleep(10 * ReconnectAfter)
		synctest.Wait()
		conns.all()[0].wantClosed(t)
		if len(b.got.all()) != 1 || b.log.count("corosync is away") != 1 {
			t.Errorf("%+v; log: %s", b.got.all(), b.log)
		}
		b.set(connect)
		time.Sleep(ReconnectAfter)
		synctest.Wait()
		if len(conns.all()) != 2 || len(b.got.all()) != 1 {
			t.Errorf("%d connections, %+v", len(conns.all()), b.got.all())
		}
		if err := Close(b.work); err != nil {
			t.Error(err)
		}
		conns.all()[1].wantClosed(t)
	})
}
