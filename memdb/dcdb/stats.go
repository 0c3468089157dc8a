package dcdb

import (
	"sync/atomic"

	"pmxcfs/dfsm/group"
)

// Stats counts the work of a Cluster. Fields may be read at any time.
type Stats struct {
	Batches    atomic.Int64 // of messages that were delivered together
	Changes    atomic.Int64 // messages that changed the tree
	Refused    atomic.Int64 // messages that the tree refused
	Syncs      atomic.Int64 // times that this node was brought up to date
	Timeouts   atomic.Int64 // changes that were given up because of the deadline
	Interrupts atomic.Int64 // changes that their callers gave up

	// Updates by the reason of the sync: sent as its leader, and received while behind.
	Sent, Received [group.SyncReasons]Volume
}

// Volume counts entries of the tree, and the bytes of the messages that carry them.
type Volume struct{ Entries, Bytes atomic.Int64 }

func (v *Volume) add(message []byte) {
	v.Entries.Add(1)
	v.Bytes.Add(int64(len(message)))
}

// Stats returns the counters, which go on counting.
func (c *Cluster) Stats() *Stats { return &c.app.stats }

// ClusterStatus is a snapshot of a Cluster's state.
type ClusterStatus struct {
	Group    group.Status
	Quorate  bool
	Database error // why the database can't be written and the group is left; nil means it can
}

// Status returns a snapshot.
func (c *Cluster) Status() ClusterStatus {
	s := ClusterStatus{Group: c.group.Status(), Quorate: c.Quorate()}
	if err := c.app.health.err.Load(); err != nil {
		s.Database = *err
	}
	return s
}

// GroupStatus is the group's part of Status.
func (c *Cluster) GroupStatus() group.Status { return c.group.Status() }
