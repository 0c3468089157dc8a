package status

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/internal/event"
	"pmxcfs/internal/jsontext"
)

// ErrNoCluster is the error of Ready while the cluster info is unknown.
var ErrNoCluster = errors.New("status: no cluster info yet")

// ClusterInfo is what corosync's cmap tells of the cluster (cmap_keys(7)).
type ClusterInfo struct {
	Name    string          // totem.cluster_name
	Version uint64          // totem.config_version
	Self    corosync.NodeID // this node's
	Nodes   []ClusterNode
}

// ClusterNode is a node of the nodelist.
type ClusterNode struct {
	ID        corosync.NodeID // nodelist.node.N.nodeid
	Name      string          // nodelist.node.N.name; empty means the address is the name
	Ring0Addr string          // nodelist.node.N.ring0_addr
}

// node is what is known of a node of the cluster.
type node struct {
	name     string
	ip       string // empty means unknown
	values   values
	rendered []byte // of values, for .version; nil means it must be rendered; never written to again
}

func newNode(name string) *node { return &node{name: name} }

// SetCluster takes in the cluster info. Nodes that are not in it any more are
// forgotten with their values; what is known of the others stays. The info's
// version counts up if anything differs. The store keeps nothing of info's memory.
func (s *Store) SetCluster(info ClusterInfo) {
	info.Nodes = named(info.Nodes)
	s.mu.Lock()
	changed := s.cluster == nil || !info.equal(s.cluster)
	if changed {
		s.cluster = &info
		s.adopt(info)
		s.clusterChanged()
	}
	s.mu.Unlock()
	if changed {
		s.log.Info(fmt.Sprintf("update cluster info (cluster name  %s, version = %d)", info.Name, info.Version), "nodes", len(info.Nodes),
			event.Fields("cluster", info.Name, "version", info.Version))
	}
}

// adopt makes nodes and byID those of info. The lock is held.
func (s *Store) adopt(info ClusterInfo) {
	old := s.nodes
	s.nodes = make(map[string]*node, len(info.Nodes))
	s.byID = make(map[corosync.NodeID]*node, len(info.Nodes))
	for _, c := range info.Nodes {
		n := s.nodes[c.Name]
		switch {
		case n != nil: // a second node of that name
		case c.ID == info.Self:
			n = s.self
		case old[c.Name] != nil && old[c.Name] != s.self:
			n = old[c.Name]
		default:
			n = newNode(c.Name)
		}
		s.nodes[c.Name], s.byID[c.ID] = n, n
	}
}

// named returns the nodes, ascending by name and id, each with a name.
func named(nodes []ClusterNode) []ClusterNode {
	nodes = slices.Clone(nodes)
	for i := range nodes {
		if n := &nodes[i]; n.Name == "" {
			n.Name = n.Ring0Addr
		}
	}
	slices.SortFunc(nodes, func(a, b ClusterNode) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return int(int64(a.ID) - int64(b.ID))
	})
	return nodes
}

func (c *ClusterInfo) equal(o *ClusterInfo) bool {
	return c.Name == o.Name && c.Version == o.Version && c.Self == o.Self && slices.Equal(c.Nodes, o.Nodes)
}

// Ready returns nil once the cluster info is known. Before that the group should
// not be joined: values of nodes that are not in the cluster info are ignored.
func (s *Store) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return ErrNoCluster
	}
	return nil
}

// SetQuorate takes in whether this node is in the quorate part of the cluster.
func (s *Store) SetQuorate(quorate bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quorate = quorate
	s.members = nil
}

// setOnline takes in who is in the group.
func (s *Store) setOnline(members []dfsm.Member) {
	online := make(map[corosync.NodeID]bool, len(members))
	for _, m := range members {
		online[m.Node] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.online = online
	s.clusterChanged()
}

// setAddress takes in a node's address. The lock is held.
func (s *Store) setAddress(n *node, ip string) {
	if n.ip != ip {
		n.ip = ip
		s.clusterChanged()
	}
}

// clusterChanged counts the cluster info up. The lock is held.
func (s *Store) clusterChanged() {
	s.clinfo++
	s.members = nil
	s.changes.Add(1)
}

// Members returns the content of .members. Without a cluster that is this node's
// name. The result is shared: it must not be written to.
func (s *Store) Members() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members == nil {
		s.members = s.renderMembers()
	}
	return s.members
}

func (s *Store) renderMembers() []byte {
	b := append([]byte(nil), "{\n\"nodename\": "...)
	b = jsontext.AppendString(b, s.node)
	b = append(b, ",\n\"version\": "...)
	b = strconv.AppendUint(b, uint64(s.clinfo), 10)
	c := s.cluster
	if c == nil {
		return append(b, "\n}\n"...)
	}
	b = append(b, ",\n\"cluster\": { \"name\": "...)
	b = jsontext.AppendString(b, c.Name)
	b = append(b, ", \"version\": "...)
	b = strconv.AppendUint(b, c.Version, 10)
	b = append(b, ", \"nodes\": "...)
	b = strconv.AppendInt(b, int64(len(c.Nodes)), 10)
	b = append(b, ", \"quorate\": "...)
	b = appendBit(b, s.quorate)
	b = append(b, " },\n\"nodelist\": {"...)
	for i, n := range c.Nodes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n  "...)
		b = jsontext.AppendString(b, n.Name)
		b = append(b, ": { \"id\": "...)
		b = strconv.AppendUint(b, uint64(n.ID), 10)
		b = append(b, ", \"online\": "...)
		b = appendBit(b, s.online[n.ID])
		if ip := s.byID[n.ID].ip; ip != "" {
			b = append(b, ", \"ip\": "...)
			b = jsontext.AppendString(b, ip)
		}
		b = append(b, '}')
	}
	return append(b, "\n  }\n}\n"...)
}

func appendBit(b []byte, v bool) []byte {
	if v {
		return append(b, '1')
	}
	return append(b, '0')
}
