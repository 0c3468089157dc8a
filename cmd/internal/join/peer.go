package join

import (
	"context"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// Request is what a node that joins asks for.
type Request struct {
	Name     string            `json:"name"`
	ID       uint32            `json:"nodeid,omitempty"` // 0: the smallest free one
	Votes    *int              `json:"votes,omitempty"`  // nil: 1
	Links    map[int]conf.Link `json:"links,omitempty"`
	Fallback string            `json:"new_node_ip,omitempty"` // the address, without links
	Force    bool              `json:"force,omitempty"`       // the node may be there already
	Device   bool              `json:"qdevice,omitempty"`     // there may be an external vote
}

// votes are those the node is to have in the end.
func (r Request) votes() int {
	if r.Votes == nil {
		return 1
	}
	return *r.Votes
}

// Facts are what a peer tells of itself and its cluster. What a stock peer doesn't tell
// is empty.
type Facts struct {
	Protocol int       `json:"protocol"` // of joining
	Version  string    `json:"version,omitempty"`
	Corosync string    `json:"corosync,omitempty"` // its version
	Node     string    `json:"node,omitempty"`
	Cluster  string    `json:"cluster,omitempty"`
	Quorate  bool      `json:"quorate"`
	Time     time.Time `json:"time"`
	Digest   string    `json:"digest,omitempty"` // of corosync.conf
	Members  []Member  `json:"members,omitempty"`
	Device   bool      `json:"qdevice,omitempty"` // an external vote is configured
	Storages []string  `json:"storages,omitempty"`

	own bool // the peer runs this project
}

// Member is a node of the peer's cluster.
type Member struct {
	Name      string         `json:"name"`
	ID        uint32         `json:"id"`
	Online    bool           `json:"online"`
	Addresses map[int]string `json:"addresses"` // by link
}

// Peer is a node of the cluster to join.
type Peer interface {
	// Facts asks for facts. It is the first call.
	Facts(ctx context.Context) (*Facts, error)
	// Check has the peer check whether the node may enter.
	Check(ctx context.Context, r Request) ([]plan.Problem, error)
	// Enter enters the node. Doing so again is no mistake, as long as it isn't online.
	Enter(ctx context.Context, r Request) (*cluster.Answer, error)
	// Confirm tells that the node is a member, and shall have its votes.
	Confirm(ctx context.Context, r Request) error
	// Remove takes the node out again.
	Remove(ctx context.Context, r Request) error
	Close() error
}
