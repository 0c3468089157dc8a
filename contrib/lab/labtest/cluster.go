package labtest

import (
	"slices"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

// Cluster is some hosts with a daemon on each.
type Cluster struct {
	T     testing.TB
	Lab   *lab.Lab
	Nodes []*Node // node1 first
}

// New brings up n hosts with corosync and daemons that have found each other.
func New(t testing.TB, n int) *Cluster {
	t.Helper()
	c := Hosts(t, lab.New(t, n))
	c.Start()
	return c
}

// Hosts is a cluster on the hosts of a lab, whose daemons don't run yet.
func Hosts(t testing.TB, l *lab.Lab) *Cluster {
	c := &Cluster{T: t, Lab: l}
	for _, h := range l.Hosts() {
		n := &Node{T: t, Host: h}
		c.Nodes = append(c.Nodes, n)
		t.Cleanup(n.clean)
	}
	return c
}

// Start starts the daemons that don't run, and waits until all have found each
// other.
func (c *Cluster) Start() {
	c.T.Helper()
	for _, n := range c.Nodes {
		if !n.Running() {
			n.Start()
		}
	}
	c.WantTogether(c.Nodes...)
}

// Node is the node on host i, from 1.
func (c *Cluster) Node(i int) *Node { return c.Nodes[i-1] }

// Others are all nodes but these.
func (c *Cluster) Others(but ...*Node) []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return slices.Contains(but, n) })
}

// In has the cluster and its nodes speak for a subtest, until In is called again.
func (c *Cluster) In(t testing.TB) *Cluster {
	for _, n := range c.Nodes {
		n.T = t
	}
	return &Cluster{T: t, Lab: c.Lab, Nodes: c.Nodes}
}

// Eventually waits until cond has nothing to object to.
func (c *Cluster) Eventually(what string, cond func() error) {
	c.T.Helper()
	testutil.Eventually(c.T, what, cond)
}
