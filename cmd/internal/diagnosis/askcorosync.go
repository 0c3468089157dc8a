package diagnosis

import (
	"errors"

	"pmxcfs/cmd/internal/follow"
	"pmxcfs/corosync"
	"pmxcfs/corosync/votequorum"
)

// AskCorosync asks corosync itself how the cluster is. It hangs if corosync does.
func AskCorosync() (*Corosync, error) {
	m, err := follow.OpenMap()
	if err != nil {
		return nil, err
	}
	entries, err := m.Read()
	if err = errors.Join(err, m.Close()); err != nil {
		return nil, err
	}
	info := follow.ParseClusterInfo(entries)
	c := &Corosync{Name: info.Name, Config: info.Version, Self: uint32(info.Local), Nodes: []CorosyncNode{}}
	q, err := votequorum.Open()
	if err != nil {
		return nil, err
	}
	defer q.Close()
	all, err := q.GetInfo(0)
	if err != nil {
		return nil, err
	}
	c.Quorum = &Quorum{
		Quorate: all.Quorate(), Votes: all.TotalVotes, Expected: all.HighestExpected, Needed: all.Quorum,
		TwoNode: all.Flags&votequorum.FlagTwoNode != 0, WaitAll: all.Flags&votequorum.FlagWaitForAll != 0,
	}
	if all.Flags&votequorum.FlagQDeviceRegistered != 0 {
		c.Quorum.Device = all.QDeviceName
	}
	for _, n := range info.Nodes {
		node := CorosyncNode{ID: uint32(n.ID), Name: n.Name, Address: n.Address, Votes: int(n.Votes), State: "unknown"}
		switch one, err := q.GetInfo(n.ID); {
		case err == nil:
			node.State, node.Votes = one.State.String(), one.Votes
		case errors.Is(err, corosync.ErrNotExist): // it was never seen
			node.State = votequorum.StateDead.String()
		default:
			return nil, err
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c, nil
}
