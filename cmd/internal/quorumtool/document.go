package quorumtool

import (
	"fmt"

	"pmxcfs/corosync/votequorum"
)

// Document is a snapshot as JSON. Its fields are a contract.
type Document struct {
	Cluster *ClusterDocument `json:"cluster"` // null: this host is in no cluster
	Quorum  *QuorumDocument  `json:"quorum"`  // null: corosync does not answer
	Nodes   []NodeDocument   `json:"nodes"`
	Device  *DeviceDocument  `json:"qdevice"` // null: there is none
}

// ClusterDocument tells of corosync.conf.
type ClusterDocument struct {
	Name      string `json:"name"`
	Version   string `json:"config_version"`
	Transport string `json:"transport"`
	SecAuth   string `json:"secauth"`
}

// QuorumDocument tells of the votes.
type QuorumDocument struct {
	Quorate  bool     `json:"quorate"`
	Ring     string   `json:"ring_id"`
	Expected int      `json:"expected"`
	Highest  int      `json:"highest"`
	Total    int      `json:"total"`
	Needed   int      `json:"needed"`
	Flags    []string `json:"flags"`
	Loaded   uint64   `json:"loaded_config_version"` // by corosync on this node
	Causes   []string `json:"causes"`                // what is wrong, in words
}

// NodeDocument tells of a member or a configured node that is none.
type NodeDocument struct {
	ID        uint32         `json:"id"`
	Name      string         `json:"name"`
	Votes     int            `json:"votes"`
	Online    bool           `json:"online"`
	Local     bool           `json:"local"`
	Addresses []string       `json:"addresses"`
	Links     []LinkDocument `json:"links"` // between this node and that one
	Device    *string        `json:"qdevice"`
}

// LinkDocument tells of a link.
type LinkDocument struct {
	Number int  `json:"n"`
	Up     bool `json:"up"`
	MTU    int  `json:"mtu"` // bytes, as measured; 0 means not yet
}

// DeviceDocument tells of the external vote.
type DeviceDocument struct {
	Name  string `json:"name"`
	Votes int    `json:"votes"`
	Alive bool   `json:"alive"`
	Cast  bool   `json:"cast"` // its vote counts
}

// Document returns what the snapshot and the configuration say. Either may be nil.
func (s *Snapshot) Document(c *Configuration) Document {
	d := Document{Nodes: []NodeDocument{}}
	if c != nil {
		d.Cluster = &ClusterDocument{c.Name, c.Version, c.Transport, c.SecAuth}
	}
	if s == nil {
		return d
	}
	d.Quorum = &QuorumDocument{
		Quorate: s.Quorate(), Ring: fmt.Sprintf("%x.%x", uint32(s.Ring.Node), s.Ring.Seq),
		Expected: s.Self.ExpectedVotes, Highest: s.Self.HighestExpected, Total: s.Self.TotalVotes, Needed: s.Self.Quorum,
		Flags: []string{}, Loaded: s.Version, Causes: s.Causes(),
	}
	for _, f := range flagNames {
		if s.Self.Flags&f.flag != 0 {
			d.Quorum.Flags = append(d.Quorum.Flags, f.name)
		}
	}
	for _, n := range s.Members {
		d.Nodes = append(d.Nodes, n.document(true, s.HasDevice()))
	}
	for _, n := range s.Absent {
		d.Nodes = append(d.Nodes, n.document(false, false))
	}
	if s.HasDevice() {
		d.Device = &DeviceDocument{
			Name: s.deviceName(), Votes: s.Self.QDeviceVotes,
			Alive: s.Self.Flags&votequorum.FlagQDeviceAlive != 0,
			Cast:  s.Self.Flags&votequorum.FlagQDeviceCastVote != 0,
		}
	}
	return d
}

func (n *Node) document(online, device bool) NodeDocument {
	d := NodeDocument{ID: uint32(n.ID), Name: n.Name, Votes: n.Votes, Online: online, Local: n.Local, Addresses: []string{}, Links: []LinkDocument{}}
	for _, a := range n.Addresses {
		d.Addresses = append(d.Addresses, a.String())
	}
	for _, l := range n.Links {
		d.Links = append(d.Links, LinkDocument{l.Number, l.Connected, l.MTU})
	}
	if device {
		state := deviceState(n.Device)
		d.Device = &state
	}
	return d
}
