package votequorum

import "pmxcfs/corosync"

// Event is one notification: exactly one of its fields is set.
type Event struct {
	Quorum        *Quorum
	NodeList      *NodeList
	ExpectedVotes *int
}

// Quorum tells of the votes: whether they suffice, and every node that is
// configured or was seen, in no order.
type Quorum struct {
	Quorate bool
	Nodes   []Node
}

// NodeList tells of a new ring: who is in it, in no order. It comes before the Quorum that
// the ring brings.
type NodeList struct {
	Ring  Ring
	Nodes []corosync.NodeID
}

// Ring identifies a membership of the cluster.
type Ring struct {
	Node corosync.NodeID // its representative
	Seq  uint64
}

// Node is a node and how it is.
type Node struct {
	ID    corosync.NodeID // 0 means the quorum device
	State State
}

// State is a node's state: VOTEQUORUM_NODESTATE_….
type State uint32

// The states of votequorum.h.
const (
	StateMember  State = 1
	StateDead    State = 2
	StateLeaving State = 3
)

func (s State) String() string {
	switch s {
	case StateMember:
		return "member"
	case StateDead:
		return "dead"
	case StateLeaving:
		return "leaving"
	default:
		return "unknown"
	}
}
