package follow

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"pmxcfs/corosync"
	"pmxcfs/corosync/conf"
	"pmxcfs/internal/event"
)

// ErrForeign is the error of a corosync that runs, but not as the node of the cluster
// that the tree's corosync.conf describes: the example of the distribution's package, or
// the configuration that another cluster has left on the host. Its quorum is not the
// cluster's, and its groups may be another cluster's.
var ErrForeign = errors.New("the corosync that runs is not the one of this cluster")

// Judge compares a running corosync with the tree's corosync.conf, and tells why it is a
// foreign one, or nil. It must not take a corosync for foreign that is about to be told
// of a change: the lists of nodes may differ, as long as they have anything in common.
func Judge(tree conf.Conf, node string, running ClusterInfo) error {
	foreign := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrForeign, fmt.Sprintf(format, args...))
	}
	if tree.ClusterName != "" && running.Name != tree.ClusterName {
		return foreign("it runs for cluster %q, and the tree's corosync.conf is that of cluster %q", running.Name, tree.ClusterName)
	}
	nodes := map[corosync.NodeID]string{} // of the tree
	own := corosync.NodeID(0)
	for _, n := range tree.Nodes {
		name := n.Name
		if name == "" && len(n.Addresses) > 0 {
			name = n.Addresses[0]
		}
		nodes[corosync.NodeID(n.ID)] = name
		if name == node {
			own = corosync.NodeID(n.ID)
		}
	}
	if own != 0 && running.Local != 0 && running.Local != own {
		return foreign("it runs as node %d, and node %s is number %d in the tree's corosync.conf", running.Local, node, own)
	}
	others, common, outside := 0, 0, tree.Nodes == nil
	for _, n := range running.Nodes {
		name, ok := nodes[n.ID]
		outside = outside || !loopback(n.Address)
		switch {
		case n.ID == running.Local:
			if ok && name != n.Name {
				return foreign("it calls this node %s, and the tree's corosync.conf calls it %s", n.Name, name)
			}
		case ok && name == n.Name:
			common++
			others++
		default:
			others++
		}
	}
	if others > 0 && common == 0 && slices.ContainsFunc(tree.Nodes, func(n conf.Node) bool { return corosync.NodeID(n.ID) != running.Local }) {
		return foreign("it has other nodes (%s) than the tree's corosync.conf", names(running))
	}
	if !outside && len(running.Nodes) > 0 && !slices.ContainsFunc(tree.Nodes, onlyHere) {
		return foreign("it has loopback addresses only, like the example of corosync's package")
	}
	return nil
}

// names lists a cluster's nodes.
func names(c ClusterInfo) string {
	text := ""
	for i, n := range c.Nodes {
		if i > 0 {
			text += ", "
		}
		text += n.Name
	}
	return text
}

func onlyHere(n conf.Node) bool { return slices.ContainsFunc(n.Addresses, loopback) }

func loopback(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.IsLoopback() || address == "localhost"
}

// Gate lets through connections to the cluster's own corosync only. It is asked after
// each connection is made: what it looks at then is the corosync that was connected to,
// or the connection is broken already.
type Gate struct {
	// Conf gives the tree's corosync.conf.
	Conf func() ([]byte, bool)
	// Node is this node's name.
	Node string
	Log  *slog.Logger

	ask func() (ClusterInfo, error) // nil means the real one

	mu      sync.Mutex
	foreign error // as found last
}

// Foreign tells why the corosync that was found last is a foreign one; nil means it is not.
func (g *Gate) Foreign() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.foreign
}

// Check asks the running corosync what it is. The error says why it must not be used.
func (g *Gate) Check() error {
	ask := g.ask
	if ask == nil {
		ask = AskMap
	}
	running, err := ask()
	if err != nil {
		return err
	}
	if text, ok := g.Conf(); ok {
		// One that can't be parsed describes nothing: corosync would not start with it.
		if tree, perr := conf.Parse(text); perr == nil {
			err = Judge(tree, g.Node, running)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil && (g.foreign == nil || g.foreign.Error() != err.Error()) {
		g.Log.Error(err.Error(), event.ForeignCorosync.Attr("error", err))
	}
	g.foreign = err
	return err
}

// AskMap reads what the running corosync says of its cluster.
func AskMap() (ClusterInfo, error) {
	m, err := OpenMap()
	if err != nil {
		return ClusterInfo{}, err
	}
	entries, err := m.Read()
	if err = errors.Join(err, m.Close()); err != nil {
		return ClusterInfo{}, err
	}
	return ParseClusterInfo(entries), nil
}

// Guarded has connections that check does not let through closed again.
func Guarded[C interface{ Close() error }](check func() error, connect func() (C, error)) func() (C, error) {
	return func() (C, error) {
		c, err := connect()
		if err != nil {
			return c, err
		}
		if err := check(); err != nil {
			var none C
			return none, errors.Join(err, c.Close())
		}
		return c, nil
	}
}
