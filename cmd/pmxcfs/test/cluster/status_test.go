package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/status/ipc"
)

// setValue is a request that sets a value of the node.
func setValue(key, value string) *request {
	return &request{Op: ipc.OpSetStatus, Data: labtest.Field(key) + value}
}

// logEntry is a request that adds to the cluster log.
func logEntry(text string) *request {
	const ident, tag = "root@pam", "test"
	return &request{Op: ipc.OpLog, Data: string([]byte{6, byte(len(ident) + 1), byte(len(tag) + 1)}) + ident + "\x00" + tag + "\x00" + text + "\x00"}
}

// do makes requests that must succeed.
func do(n *node, list ...*request) {
	n.T.Helper()
	n.Ask(list...)
	for _, r := range list {
		if r.Errno != 0 {
			n.T.Fatalf("%s: request %d: %v", n, r.Op, r.Errno)
		}
	}
}

// wantValue waits until these nodes have a value of another; "" stands for none.
func wantValue(of *node, key, value string, nodes ...*node) {
	for _, n := range nodes {
		n.T.Helper()
		n.Eventually(fmt.Sprintf("%s of %s is %q", key, of, value), func() error {
			r := &request{Op: ipc.OpGetStatus, Data: labtest.Field(key) + labtest.Field(of.String())}
			n.Ask(r)
			if none := value == "" && r.Errno == syscall.ENOENT; !none && (r.Errno != 0 || r.Answer != value) {
				return fmt.Errorf("%q, %v", r.Answer, r.Errno)
			}
			versions, err := kvstore(n)
			if _, has := versions[of.String()][key]; err == nil && has != (value != "") {
				err = fmt.Errorf(".version: %v", versions)
			}
			return err
		})
	}
}

// kvstore gives the values' versions, by node and key, from .version.
func kvstore(n *node) (map[string]map[string]int, error) {
	b, err := os.ReadFile(n.Path(".version"))
	var v struct{ KVStore map[string]map[string]int }
	if err = errors.Join(err, json.Unmarshal(b, &v)); err != nil {
		return nil, err
	}
	return v.KVStore, nil
}

// wantMessages waits until these nodes' cluster logs have these messages, each
// once.
func wantMessages(texts []string, nodes ...*node) {
	for _, n := range nodes {
		n.T.Helper()
		n.Eventually(fmt.Sprintf("the cluster log has %q", texts), func() error {
			messages, err := clusterLog(n)
			for _, text := range texts {
				if got := messages[text]; err == nil && got != 1 {
					err = fmt.Errorf("%d times %q in %v", got, text, messages)
				}
			}
			return err
		})
	}
}

// clusterLog counts the messages in .clusterlog.
func clusterLog(n *node) (map[string]int, error) {
	b, err := os.ReadFile(n.Path(".clusterlog"))
	var log struct{ Data []struct{ Msg string } }
	if err = errors.Join(err, json.Unmarshal(b, &log)); err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, e := range log.Data {
		count[e.Msg]++
	}
	return count, nil
}

// statusSurvivesRestarts restarts the nodes that may be, each in its own way, and
// checks that they learn again what the others have said, and that the others keep
// what they know of them.
func statusSurvivesRestarts(c *cluster) {
	var messages []string
	for _, n := range c.Nodes {
		messages = append(messages, "restarts: message of "+n.String())
		do(n, setValue("restarts", "of "+n.String()), logEntry(messages[len(messages)-1]))
	}
	for _, n := range c.Nodes {
		wantValue(n, "restarts", "of "+n.String(), c.Nodes...)
	}
	wantMessages(messages, c.Nodes...)
	for i, restart := range []func(n *node){
		func(n *node) { n.Stop(); n.Start() },
		func(n *node) { n.Kill(); n.Start() },
		func(n *node) { crash(n); boot(n) },
		func(n *node) { n.Must(n.Host.KillCorosync()); n.Must(n.Host.StartCorosync()) },
	} {
		n := c.Node(2 + i%2)
		others := c.Others(n)
		restart(n)
		c.WantTogether(c.Nodes...)
		wantMessages(messages, c.Nodes...)
		for _, o := range others {
			wantValue(o, "restarts", "of "+o.String(), c.Nodes...)
		}
		// What it has said is known to the others, to itself only if it is the same
		// daemon, until it says it again.
		wantValue(n, "restarts", "of "+n.String(), others...)
		again := fmt.Sprintf("of %s, again %d", n, i)
		do(n, setValue("restarts", again))
		wantValue(n, "restarts", again, c.Nodes...)
		do(n, setValue("restarts", "of "+n.String()))
		wantValue(n, "restarts", "of "+n.String(), c.Nodes...)
	}
	for _, n := range c.Nodes {
		do(n, setValue("restarts", ""))
		wantValue(n, "restarts", "", c.Nodes...)
	}
}

// statusMerges has both sides of a partition set values and log messages.
func statusMerges(c *cluster) {
	lone := c.Node(3)
	rest := c.Others(lone)
	for _, n := range c.Nodes {
		do(n, setValue("merge", "before, of "+n.String()), setValue("dropped", "of "+n.String()))
	}
	for _, n := range c.Nodes {
		wantValue(n, "merge", "before, of "+n.String(), c.Nodes...)
		wantValue(n, "dropped", "of "+n.String(), c.Nodes...)
	}
	if err := c.Lab.Split([]int{3}); err != nil {
		c.T.Fatal(err)
	}
	lone.WantReadOnly("shared")
	c.WantTogether(rest...)
	var messages []string
	for round := range 3 {
		for _, n := range c.Nodes { // also without quorum: none of this needs it
			text := fmt.Sprintf("merge: message %d of %s", round, n)
			do(n, setValue("merge", fmt.Sprintf("%d, of %s", round, n)), setValue("dropped", ""), logEntry(text))
			messages = append(messages, text)
		}
	}
	for _, n := range rest {
		wantValue(lone, "merge", "before, of "+lone.String(), n)
		wantValue(rest[0], "merge", "2, of "+rest[0].String(), n)
		got, err := clusterLog(n)
		n.Must(err)
		if got["merge: message 0 of "+lone.String()] != 0 {
			c.T.Errorf("%s has a message of the other side", n)
		}
	}
	wantValue(rest[1], "merge", "before, of "+rest[1].String(), lone)
	if err := c.Lab.Heal(); err != nil {
		c.T.Fatal(err)
	}
	c.WantTogether(c.Nodes...)
	wantMessages(messages, c.Nodes...)
	for _, n := range c.Nodes {
		wantValue(n, "merge", "2, of "+n.String(), c.Nodes...)
		// That a value was taken back while a node was away can't be told to it.
		wantValue(n, "dropped", "", n)
	}
	// The log is one: the same text everywhere.
	c.Eventually("all have the same log", func() error {
		first, err := os.ReadFile(c.Node(1).Path(".clusterlog"))
		for _, n := range c.Nodes[1:] {
			b, rerr := os.ReadFile(n.Path(".clusterlog"))
			if err = errors.Join(err, rerr); err == nil && string(b) != string(first) {
				err = fmt.Errorf("%s:\n%s%s:\n%s", c.Node(1), first, n, b)
			}
		}
		return err
	})
}

// leavingNode takes a node out of corosync.conf, as pvecm delnode does, and adds it
// again.
func leavingNode(c *cluster) {
	gone := c.Node(3)
	stay := c.Others(gone)
	do(gone, setValue("leaving", "of the leaving one"))
	wantValue(gone, "leaving", "of the leaving one", c.Nodes...)
	m, err := c.Node(1).Members()
	c.Node(1).Must(err)
	conf := c.Lab.Conf()
	conf.Version = m.Cluster.Version

	change := func(by *node, ids []int, on ...*node) {
		c.T.Helper()
		conf.Version++
		conf.Nodes = ids
		replaceConf(by, conf.String())
		for _, n := range on {
			n.Eventually(fmt.Sprintf("the cluster has %d nodes", len(ids)), func() error {
				m, err := n.Members()
				if err == nil && (m.Cluster.Nodes != len(ids) || len(m.NodeList) != len(ids) || m.Cluster.Version != conf.Version) {
					err = fmt.Errorf("%+v: %+v", m.Cluster, m.NodeList)
				}
				return err
			})
		}
	}
	gone.Stop()
	gone.Must(gone.Host.StopCorosync())
	c.WantTogether(stay...)
	wantValue(gone, "leaving", "of the leaving one", stay...) // it is away only
	change(stay[1], []int{1, 2}, stay...)
	for _, n := range stay {
		wantValue(gone, "leaving", "", n)
		versions, err := kvstore(n)
		n.Must(err)
		m, merr := n.Members()
		n.Must(merr)
		_, values := versions[gone.String()]
		_, member := m.NodeList[gone.String()]
		if values || member {
			c.T.Errorf("%s knows %s still: %v, %v", n, gone, versions, m.NodeList)
		}
		if m.Cluster.Quorate != 1 {
			c.T.Errorf("%s isn't quorate any more", n)
		}
	}
	for _, n := range stay {
		do(n, setValue("leaving", "of "+n.String()))
	}
	for _, n := range stay {
		wantValue(n, "leaving", "of "+n.String(), stay...)
	}

	// It comes again: the administrator brings it the new file.
	change(stay[0], []int{1, 2, 3}, stay...)
	gone.Must(gone.Host.WriteConf(conf))
	boot(gone)
	c.WantTogether(c.Nodes...)
	for _, n := range stay {
		wantValue(gone, "leaving", "", n)
		wantValue(n, "leaving", "of "+n.String(), gone)
	}
	do(gone, setValue("leaving", "again"))
	wantValue(gone, "leaving", "again", c.Nodes...)
	if text := "update cluster info"; !strings.Contains(stay[0].Log(), text) {
		c.T.Errorf("%s: the log doesn't say %q", stay[0], text)
	}
}
