package quorumtool

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"pmxcfs/cmd/internal/follow"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/votequorum"
)

// Snapshot is the cluster as this node's corosync sees it at one time.
type Snapshot struct {
	Time    time.Time
	Cluster string // its name, as corosync has it loaded
	Version uint64 // of the configuration that corosync has loaded
	Ring    votequorum.Ring
	Self    votequorum.Info // this node's view of the whole
	Members []Node          // by id
	Absent  []Node          // configured, but not members; by id
}

// Node is a member, or a configured node that is none.
type Node struct {
	ID        corosync.NodeID
	Name      string // of the nodelist; its address if it has none
	Votes     int
	Local     bool
	Device    votequorum.Flags // the external vote's, of those in votequorum's Info
	Addresses []netip.Addr     // in the order of the links
	Links     []cfg.LinkStatus // between this node and that one; none for the local node
}

// ErrNoCorosync means that no corosync answers on this host.
var ErrNoCorosync = errors.New("corosync does not answer")

// readTimeout is how long Read waits for the first notification of the membership.
const readTimeout = 5 * time.Second

// Read asks corosync. It returns ErrNoCorosync if none runs, and corosync.ErrTryAgain while it
// is not ready.
func Read() (*Snapshot, error) {
	s, err := read()
	if errors.Is(err, corosync.ErrConnectionLost) {
		return nil, fmt.Errorf("%w: start it with \"systemctl start corosync\" (%w)", ErrNoCorosync, err)
	}
	return s, err
}

func read() (*Snapshot, error) {
	info, err := clusterMap()
	if err != nil {
		return nil, err
	}
	quorum, err := votequorum.Open()
	if err != nil {
		return nil, err
	}
	defer quorum.Close()
	links, err := cfg.Open()
	if err != nil {
		return nil, err
	}
	defer links.Close()

	s := &Snapshot{Time: time.Now(), Cluster: info.Name, Version: info.Version}
	ring, err := membership(quorum)
	if err != nil {
		return nil, err
	}
	s.Ring = ring.Ring
	if s.Self, err = quorum.GetInfo(0); err != nil {
		return nil, err
	}
	configured := map[corosync.NodeID]follow.Node{}
	for _, n := range info.Nodes {
		configured[n.ID] = n
	}
	for _, id := range ring.Nodes {
		one, err := quorum.GetInfo(id)
		if errors.Is(err, corosync.ErrNotExist) { // it has left since
			continue
		}
		if err != nil {
			return nil, err
		}
		n := Node{ID: id, Name: configured[id].Name, Votes: one.Votes, Local: id == s.Self.Node, Device: one.Flags}
		if err := n.readLinks(links); err != nil {
			return nil, err
		}
		s.Members = append(s.Members, n)
		delete(configured, id)
	}
	for id, c := range configured {
		n := Node{ID: id, Name: c.Name, Votes: int(c.Votes), Local: id == s.Self.Node}
		if err := n.readLinks(links); err != nil {
			return nil, err
		}
		s.Absent = append(s.Absent, n)
	}
	byID := func(a, b Node) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(s.Members, byID)
	slices.SortFunc(s.Absent, byID)
	return s, nil
}

// clusterMap reads the node list and the configuration's version from corosync's map.
func clusterMap() (follow.ClusterInfo, error) {
	m, err := follow.OpenMap()
	if err != nil {
		return follow.ClusterInfo{}, err
	}
	entries, err := m.Read()
	if err = errors.Join(err, m.Close()); err != nil {
		return follow.ClusterInfo{}, err
	}
	return follow.ParseClusterInfo(entries), nil
}

// membership waits for the present ring.
func membership(c *votequorum.Conn) (*votequorum.NodeList, error) {
	if err := c.TrackStart(); err != nil {
		return nil, err
	}
	var list *votequorum.NodeList
	for deadline := time.Now().Add(readTimeout); list == nil; {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, fmt.Errorf("corosync has not reported its membership within %v", readTimeout)
		}
		events, err := c.Next(nil, left)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if e.NodeList != nil {
				list = e.NodeList
			}
		}
	}
	return list, nil
}

// readLinks adds what the transport knows of a node. A node that it doesn't know has none.
func (n *Node) readLinks(c *cfg.Conn) (err error) {
	unknown := func(err error) bool {
		return errors.Is(err, corosync.ErrNotExist) || errors.Is(err, corosync.ErrInvalidParam)
	}
	if n.Addresses, err = c.NodeAddresses(n.ID); err != nil && !unknown(err) {
		return err
	}
	if n.Local {
		return nil
	}
	status, err := c.NodeStatus(n.ID)
	if err != nil && !unknown(err) {
		return err
	}
	n.Links = status.Links
	return nil
}

// Quorate tells whether this node's part of the cluster has quorum.
func (s *Snapshot) Quorate() bool { return s.Self.Quorate() }

// HasDevice tells whether this node has an external vote registered.
func (s *Snapshot) HasDevice() bool { return s.Self.Flags&votequorum.FlagQDeviceRegistered != 0 }

// ExitStatus is that of "pvecm status", which scripts know: 0 quorate, 2 not.
// It is 1 where there is no snapshot, since corosync does not answer.
func (s *Snapshot) ExitStatus() int {
	switch {
	case s == nil:
		return 1
	case s.Quorate():
		return 0
	}
	return 2
}
