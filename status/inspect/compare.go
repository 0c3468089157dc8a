package inspect

import (
	"context"
	"slices"
	"strings"
	"time"
)

// compareTimeout is how long a comparison may take.
const compareTimeout = 60 * time.Second

// Compare compares the trees of the cluster's nodes.
func (s *Service) Compare(ctx context.Context) (*Comparison, error) {
	if s.cfg.Cluster == nil || s.cfg.Cluster.Peers == nil {
		return nil, ErrNoCluster
	}
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	names := make(map[uint32]string)
	for _, m := range s.Members() {
		names[m.ID] = m.Name
	}
	c, err := s.cfg.Cluster.Peers.Compare(ctx, names)
	if err != nil {
		return nil, err
	}
	s.addAbsent(c)
	return c, nil
}

// addAbsent enters the cluster's nodes that took no part in a comparison, and
// judges what that means for it.
func (s *Service) addAbsent(c *Comparison) {
	members := s.Members()
	there := make(map[uint32]bool, len(c.Nodes))
	for i := range c.Nodes {
		there[c.Nodes[i].ID] = true
	}
	for _, m := range members {
		switch {
		case there[m.ID]:
		case m.InDatabase:
			c.Nodes = append(c.Nodes, ComparedNode{Name: m.Name, ID: m.ID, State: NodeForeign,
				Reason: "it is in the database's group, but answers no comparison (a stock daemon?)"})
		default:
			c.Nodes = append(c.Nodes, ComparedNode{Name: m.Name, ID: m.ID, State: NodeOffline})
		}
	}
	slices.SortFunc(c.Nodes, func(a, b ComparedNode) int { return strings.Compare(a.Name, b.Name) })
	c.Complete = !slices.ContainsFunc(c.Nodes, func(n ComparedNode) bool { return n.State != NodeCompared })
}
