package status

import "pmxcfs/corosync"

// ClusterState is a snapshot of what the store knows of the cluster.
type ClusterState struct {
	Known   bool // there is cluster info
	Name    string
	Version uint64          // totem.config_version
	Self    corosync.NodeID // 0 means unknown
	Quorate bool
	Nodes   []NodeState // ascending by name; the caller's
}

// NodeState is what is known of a node.
type NodeState struct {
	ID      corosync.NodeID
	Name    string
	Address string // the one told, or else corosync's ring0_addr; empty means unknown
	Online  bool   // in the status group
}

// Cluster returns a snapshot.
func (s *Store) Cluster() ClusterState {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := ClusterState{Quorate: s.quorate}
	if s.cluster == nil {
		return c
	}
	c.Known, c.Name, c.Version, c.Self = true, s.cluster.Name, s.cluster.Version, s.cluster.Self
	for _, n := range s.cluster.Nodes {
		node := NodeState{ID: n.ID, Name: n.Name, Address: s.byID[n.ID].ip, Online: s.online[n.ID]}
		if node.Address == "" {
			node.Address = n.Ring0Addr
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c
}
