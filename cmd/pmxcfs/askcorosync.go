package main

import (
	"errors"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/corosync"
	"pmxcfs/corosync/votequorum"
)

// askCorosync asks corosync itself how the cluster is. It hangs if corosync does.
func askCorosync() (*diagnosis.Corosync, error) {
	m, err := openMap()
	if err != nil {
		return nil, err
	}
	entries, err := m.Read()
	if err = errors.Join(err, m.Close()); err != nil {
		return nil, err
	}
	info := parseClusterInfo(entries)
	c := &diagnosis.Corosync{Name: info.name, Config: info.version, Self: uint32(info.local), Nodes: []diagnosis.CorosyncNode{}}
	q, err := votequorum.Open()
	if err != nil {
		return nil, err
	}
	defer q.Close()
	all, err := q.GetInfo(0)
	if err != nil {
		return nil, err
	}
	c.Quorum = &diagnosis.Quorum{
		Quorate: all.Quorate(), Votes: all.TotalVotes, Expected: all.HighestExpected, Needed: all.Quorum,
		TwoNode: all.Flags&votequorum.FlagTwoNode != 0, WaitAll: all.Flags&votequorum.FlagWaitForAll != 0,
	}
	if all.Flags&votequorum.FlagQDeviceRegistered != 0 {
		c.Quorum.Device = all.QDeviceName
	}
	for _, n := range info.nodes {
		node := diagnosis.CorosyncNode{ID: uint32(n.id), Name: n.name, Address: n.address, Votes: int(n.votes), State: "unknown"}
		switch one, err := q.GetInfo(n.id); {
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
