package metrics

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/memdb"
)

// classes are what changes are about, by their path.
var classes = [...]string{"guest", "ha", "firewall", "lock", "node", "other"}

const (
	classGuest = iota
	classHA
	classFirewall
	classLock
	classNode
	classOther
)

// class returns what a clean path is about.
func class(path string) int {
	first, rest, _ := strings.Cut(path, "/")
	switch first {
	case "ha":
		return classHA
	case "firewall":
		return classFirewall
	case "priv":
		if _, ok := memdb.LockName(path); ok {
			return classLock
		}
	case "nodes":
		node, below, _ := strings.Cut(rest, "/")
		kind, _, _ := strings.Cut(below, "/")
		switch {
		case kind == "qemu-server" || kind == "lxc" || kind == "openvz":
			return classGuest
		case node != "":
			return classNode
		}
	}
	return classOther
}

// maxNodes bounds the label "node": those beyond are counted as "other".
const maxNodes = 64

// ChangeCounter counts changes as they are applied. It is a dcdb.Observer, and a
// prometheus.Collector. What each change counts lies close together.
type ChangeCounter struct {
	last     atomic.Pointer[nodeCounter] // changes come in runs; never nil
	bytes    atomic.Uint64
	reverted atomic.Uint64
	by       [kinds][len(classes)]atomic.Uint64
	known    atomic.Pointer[map[corosync.NodeID]string] // the cluster's nodes, as they are now
	nodes    sync.Map                                   // *nodeCounter by nodeKey

	changes, content, revert, ofNode family
}

// nodeCounter counts a node's changes while it has a name.
type nodeCounter struct {
	nodeKey
	n atomic.Uint64
}

type nodeKey struct {
	id    corosync.NodeID
	label string // empty means of no node
}

func newChangeCounter(reg prometheus.Registerer) *ChangeCounter {
	c := &ChangeCounter{
		changes: total("changes_total", "Changes applied to the tree, every node's, by operation and class.", "operation", "class"),
		content: total("change_bytes_total", "Bytes that were written by users, before the database makes rows and pages of them; every node's."),
		revert:  total("changes_reverted_total", "Inodes that went back to an earlier state, because a transaction failed or a synchronisation replaced the tree."),
		ofNode:  total("node_changes_total", "Changes applied to the tree, by the node that made them; \"local\" without a cluster.", "node"),
	}
	c.SetNodes(nil)
	reg.MustRegister(c)
	return c
}

// Describe implements prometheus.Collector.
func (c *ChangeCounter) Describe(to chan<- *prometheus.Desc) {
	for _, f := range []family{c.changes, c.content, c.revert, c.ofNode} {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *ChangeCounter) Collect(to chan<- prometheus.Metric) {
	for k := memdb.OpWrite; k <= memdb.OpMTime; k++ {
		for i, name := range classes {
			c.changes.value(to, float64(c.by[k][i].Load()), k.String(), name)
		}
	}
	c.content.value(to, float64(c.bytes.Load()))
	c.revert.value(to, float64(c.reverted.Load()))
	by := make(map[string]uint64)
	c.nodes.Range(func(_, n any) bool {
		counter := n.(*nodeCounter)
		by[counter.label] += counter.n.Load()
		return true
	})
	for label, n := range by {
		c.ofNode.value(to, float64(n), label)
	}
}

// SetNodes tells the names of the cluster's nodes; nil means they are not known.
func (c *ChangeCounter) SetNodes(names map[corosync.NodeID]string) {
	c.known.Store(&names)
	c.last.Store(new(nodeCounter)) // another one than before: see node
	n := 0
	for id := range names {
		if n++; n > maxNodes {
			break
		}
		c.node(id) // so that it exists before the first change
	}
}

// node returns the counter of a node by the name that it has.
func (c *ChangeCounter) node(id corosync.NodeID) *nodeCounter {
	last := c.last.Load()
	if last.id == id && last.label != "" {
		return last
	}
	key := nodeKey{id, c.label(id)}
	n, ok := c.nodes.Load(key)
	if !ok {
		n, _ = c.nodes.LoadOrStore(key, &nodeCounter{nodeKey: key})
	}
	counter := n.(*nodeCounter)
	c.last.CompareAndSwap(last, counter) // unless the names are others now
	return counter
}

// label returns a node's name as a label.
func (c *ChangeCounter) label(id corosync.NodeID) string {
	names := *c.known.Load()
	switch {
	case id == 0:
		return "local"
	case len(names) <= maxNodes && names[id] != "":
		return label(names[id])
	}
	return "other"
}

// label makes text a label's value, which must be UTF-8: nobody has checked a node's name.
func label(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// Applied implements dcdb.Observer.
func (c *ChangeCounter) Applied(op *memdb.Op, _ []memdb.Change, _ bool) {
	if op.Kind < memdb.OpWrite || op.Kind > memdb.OpMTime {
		return
	}
	path := op.Path
	if op.Kind == memdb.OpRename {
		path = op.To
	}
	c.by[op.Kind][class(path)].Add(1)
	c.node(corosync.NodeID(op.Writer)).n.Add(1)
	if op.Kind == memdb.OpWrite {
		c.bytes.Add(uint64(len(op.Data)))
	}
}

// Reset implements dcdb.Observer.
func (c *ChangeCounter) Reset(changes []memdb.Change) { c.reverted.Add(uint64(len(changes))) }

// failures are why changes were not made.
var failures = [...]string{"refused", "not_quorate", "not_connected", "out_of_group", "timeout", "interrupted", "no_space", "io"}

const (
	failRefused = iota
	failNotQuorate
	failNotConnected
	failOutOfGroup
	failTimeout
	failInterrupted
	failNoSpace
	failIO
)

// failureCounter counts changes that users asked for and did not get.
type failureCounter struct {
	by [len(failures)]prometheus.Counter
}

func newFailureCounter(reg prometheus.Registerer) *failureCounter {
	vec := counter(reg, "change_failures_total", "Changes requested on this node that failed, by reason; \"refused\" means that the tree does not allow it, because the name exists already, for example.", "reason")
	f := &failureCounter{}
	for i, name := range failures {
		f.by[i] = vec.WithLabelValues(name)
	}
	return f
}

func (f *failureCounter) count(err error, quorate bool) { f.by[failure(err, quorate)].Inc() }

// failure returns why a change was not made. The order matters: an error may be
// several.
func failure(err error, quorate bool) int {
	switch {
	case errors.Is(err, group.ErrTimeout), errors.Is(err, syscall.ETIMEDOUT):
		return failTimeout
	case errors.Is(err, group.ErrInterrupted), errors.Is(err, syscall.EINTR):
		return failInterrupted
	case errors.Is(err, dfsm.ErrDisconnected) && errors.Is(err, syscall.EIO):
		return failOutOfGroup
	case errors.Is(err, dfsm.ErrDisconnected):
		return failNotConnected
	case errors.Is(err, syscall.EACCES) && !quorate:
		return failNotQuorate
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return failNoSpace
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.EROFS):
		return failIO
	}
	return failRefused
}
