package corosync

import "strconv"

// NodeID is corosync's nodeid: unique in a cluster, never 0 for a node.
// corosync.conf(5).
type NodeID uint32

// Member is a process on a node: what identifies a member of a process group.
// cpg_overview(3).
type Member struct {
	Node NodeID
	PID  uint32 // as the process itself sees it
}

// String gives "node/pid", as in "1/2345".
func (m Member) String() string {
	return strconv.FormatUint(uint64(m.Node), 10) + "/" + strconv.FormatUint(uint64(m.PID), 10)
}

// Compare orders members by node id, then by pid: negative if m comes first.
func (m Member) Compare(o Member) int {
	switch {
	case m.Node < o.Node, m.Node == o.Node && m.PID < o.PID:
		return -1
	case m == o:
		return 0
	default:
		return 1
	}
}
