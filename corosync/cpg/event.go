package cpg

import "pmxcfs/corosync"

// Event is a delivered message or, if Change is not nil, a change of the
// membership. Events have the same order on all members.
type Event struct {
	Sender corosync.Member // of the message
	Data   []byte          // the message; the receiver's, see Conn.Next
	Change *ConfigChange
}

// ConfigChange is a new membership of the group. Members may differ from the
// last ones by several at once; Left and Joined say how it looks from this node
// and are not the same everywhere.
type ConfigChange struct {
	Members []corosync.Member // all, in corosync's order
	Left    []Address
	Joined  []Address
}

// Address is a member with the reason of its coming or going.
type Address struct {
	corosync.Member
	Reason Reason
}

// Reason tells why a member is in Left or Joined: cpg_reason_t.
type Reason uint32

// The reasons of cpg.h.
const (
	ReasonUndefined Reason = 0
	ReasonJoin      Reason = 1 // it called cpg_join
	ReasonLeave     Reason = 2 // it called cpg_leave
	ReasonNodeDown  Reason = 3 // its node has left the cluster
	ReasonNodeUp    Reason = 4 // its node has come
	ReasonProcDown  Reason = 5 // its process has ended
)

func (r Reason) String() string {
	switch r {
	case ReasonUndefined:
		return "undefined"
	case ReasonJoin:
		return "join"
	case ReasonLeave:
		return "leave"
	case ReasonNodeDown:
		return "node down"
	case ReasonNodeUp:
		return "node up"
	case ReasonProcDown:
		return "process down"
	default:
		return "unknown"
	}
}
