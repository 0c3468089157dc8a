package follow

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/corosync/conf"
	"pmxcfs/corosync/votequorum"
)

const ourConf = `totem {
  cluster_name: prod
  config_version: 3
}
nodelist {
  node {
    name: a
    nodeid: 1
    ring0_addr: 192.0.2.1
  }
  node {
    name: b
    nodeid: 2
    ring0_addr: 192.0.2.2
  }
  node {
    name: c
    nodeid: 3
    ring0_addr: 192.0.2.3
  }
}
`

func running(name string, local corosync.NodeID, nodes ...Node) ClusterInfo {
	return ClusterInfo{Name: name, Version: 3, Local: local, Nodes: nodes}
}

func TestForeignCorosyncIsTold(t *testing.T) {
	a, b, c := Node{ID: 1, Name: "a", Address: "192.0.2.1"}, Node{ID: 2, Name: "b", Address: "192.0.2.2"}, Node{ID: 3, Name: "c", Address: "192.0.2.3"}
	x, y := Node{ID: 2, Name: "x", Address: "198.51.100.2"}, Node{ID: 9, Name: "y", Address: "198.51.100.9"}
	alone := strings.Split(ourConf, "  node {\n    name: b")[0] + "}\n"
	for _, test := range []struct {
		what, conf, node string
		running          ClusterInfo
		foreign          string // part of the text; empty means it is the cluster's
	}{
		{"the cluster's", ourConf, "a", running("prod", 1, a, b, c), ""},
		{"a node is added, and corosync not told yet", ourConf, "a", running("prod", 1, a, b), ""},
		{"the first nodes are added to one", ourConf, "a", running("prod", 1, a), ""},
		{"a node was removed, and corosync not told yet", ourConf, "a", running("prod", 1, a, b, c, y), ""},
		{"a node was replaced under its number, and corosync not told yet", ourConf, "a", running("prod", 1, a, x, c), ""},
		{"all others were removed", alone, "a", running("prod", 1, a, b, c), ""},
		{"corosync does not know which node this is", ourConf, "a", running("prod", 0, a, b, c), ""},
		{"the host has a name that is not in the list", ourConf, "elsewhere", running("prod", 1, a, b, c), ""},
		{"the package's example", ourConf, "a", running("debian", 1, Node{ID: 1, Name: "node1", Address: "127.0.0.1"}), `cluster "debian"`},
		{"an example for a cluster of that name", strings.Replace(ourConf, "prod", "debian", 1), "a", running("debian", 1, Node{ID: 1, Name: "a", Address: "127.0.0.1"}), "loopback"},
		{"another cluster's", ourConf, "a", running("test", 1, a, b, c), `cluster "test"`},
		{"one without a name", ourConf, "a", running("", 1, a, b, c), `cluster ""`},
		{"another node of the cluster", ourConf, "a", running("prod", 2, a, b, c), "as node 2"},
		{"a node of this number and another name", ourConf, "elsewhere", running("prod", 1, Node{ID: 1, Name: "z", Address: "192.0.2.1"}, b), "calls this node z"},
		{"another cluster of the same name", ourConf, "a", running("prod", 1, a, x, y), "other nodes (a, x, y)"},
		{"a lab on loopback addresses", strings.ReplaceAll(ourConf, "192.0.2.", "127.0.0."), "a", running("prod", 1, Node{ID: 1, Name: "a", Address: "127.0.0.1"}), ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			tree, err := conf.Parse([]byte(test.conf))
			if err != nil {
				t.Fatal(err)
			}
			err = Judge(tree, test.node, test.running)
			switch {
			case test.foreign == "" && err != nil:
				t.Error(err)
			case test.foreign != "" && (!errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), test.foreign)):
				t.Errorf("%v, want %s", err, test.foreign)
			}
		})
	}
}

// TestForeignCorosyncGivesNoQuorum has a corosync restarted with the cluster's
// configuration after another one.
func TestForeignCorosyncGivesNoQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logger := newLogText()
		var now atomic.Pointer[ClusterInfo]
		run := func(info ClusterInfo) { now.Store(&info) }
		run(running("debian", 1, Node{ID: 1, Name: "node1", Address: "127.0.0.1"}))
		gate := &Gate{Conf: func() ([]byte, bool) { return []byte(ourConf), true }, Node: "a", Log: logger,
			ask: func() (ClusterInfo, error) { return *now.Load(), nil }}
		var conns list[fakeQuorum]
		var got list[bool]
		w := &quorumWatch{log: logger, report: got.add, trouble: trouble{log: logger, what: "no connection"},
			connect: Guarded(gate.Check, func() (quorumConn, error) {
				c := fakeQuorum{newFakeConn[votequorum.Event]()}
				c.batches <- quorumEvent(true)
				conns.add(c)
				return c, nil
			})}
		work := Start("quorum", w.run)
		time.Sleep(5 * ReconnectAfter)
		synctest.Wait()
		if len(got.all()) > 0 || gate.Foreign() == nil {
			t.Errorf("a foreign corosync's quorum: %v, %v", got.all(), gate.Foreign())
		}
		for _, c := range conns.all() {
			c.wantClosed(t)
		}
		if n := log.count("foreign-corosync"); n != 1 || log.count("no connection") > 0 {
			t.Errorf("it was told %d times:\n%s", n, log)
		}
		run(running("prod", 1, Node{ID: 1, Name: "a", Address: "192.0.2.1"}))
		time.Sleep(ReconnectAfter)
		synctest.Wait()
		if !got.last() || gate.Foreign() != nil {
			t.Errorf("after the right one's start: %v, %v", got.all(), gate.Foreign())
		}
		if err := Close(work); err != nil {
			t.Error(err)
		}
	})
}

// TestLateCorosyncIsNoTrouble starts before corosync, as at every boot.
func TestLateCorosyncIsNoTrouble(t *testing.T) {
	for late, warnings := range map[time.Duration]int{Patience - time.Second: 0, Patience + 2*ReconnectAfter: 1} {
		synctest.Test(t, func(t *testing.T) {
			log, logger := newLogText()
			d := &dialer[quorumConn]{}
			d.fail(errors.New("away"))
			w := &quorumWatch{log: logger, connect: d.dial, report: func(bool) {},
				trouble: trouble{log: logger, what: "no connection", from: time.Now().Add(Patience)}}
			work := Start("quorum", w.run)
			time.Sleep(late)
			synctest.Wait()
			if n := log.count("level=WARN"); n != warnings {
				t.Errorf("%v after the start, %d warnings, want %d:\n%s", late, n, warnings, log)
			}
			// Once it was there, its loss is trouble at once.
			c := fakeQuorum{newFakeConn[votequorum.Event]()}
			d.set(func() (quorumConn, error) { return c, nil })
			time.Sleep(ReconnectAfter)
			synctest.Wait()
			d.fail(errors.New("gone"))
			close(c.lost)
			time.Sleep(ReconnectAfter)
			synctest.Wait()
			if n := log.count("level=WARN"); n <= warnings {
				t.Errorf("the loss %v after the start: %d warnings:\n%s", late, n-warnings, log)
			}
			if err := Close(work); err != nil {
				t.Error(err)
			}
		})
	}
}
