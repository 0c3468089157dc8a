package inspect

import (
	"time"

	"pmxcfs/memdb/history"
	"pmxcfs/status/health"
)

// Paths of the documents.
const (
	PathStatus  = "/v1/status"
	PathLocks   = "/v1/locks"
	PathLog     = "/v1/log"
	PathErrors  = "/v1/errors"
	PathPeers   = "/v1/peers"
	PathCompare = "/v1/compare"
)

// The modes of a daemon.
const (
	ModeLocal   = "local"   // without a cluster: always quorate
	ModeCluster = "cluster" // a node of a cluster
)

// Status is the document at PathStatus: everything at a glance.
type Status struct {
	Time     time.Time       `json:"time"`
	Mode     string          `json:"mode"` // ModeLocal or ModeCluster
	Daemon   Daemon          `json:"daemon"`
	Node     Node            `json:"node"`
	Ready    bool            `json:"ready"`             // mounted, and in a cluster synced and quorate
	NotReady []health.Reason `json:"not_ready"`         // why it is not; empty: it is
	Cluster  *Cluster        `json:"cluster,omitempty"` // nil: local mode
	Database Database        `json:"database"`
	Conf     *Conf           `json:"corosync_conf,omitempty"` // nil: local mode
	History  *history.Status `json:"history,omitempty"`       // nil: none is recorded
	Locks    []Lock          `json:"locks"`
	Errors   []Problem       `json:"errors"` // the most recent first
}

// Daemon is the process that answers.
type Daemon struct {
	PID        int       `json:"pid"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"`
	MountPoint string    `json:"mount_point"`
}

// Node is the daemon's node.
type Node struct {
	Name    string `json:"name"`
	ID      uint32 `json:"id"`      // corosync's; 0: unknown, or local mode
	Address string `json:"address"` // empty: unknown
}

// Cluster is what the daemon knows of its cluster.
type Cluster struct {
	Known   bool     `json:"known"` // corosync's map has been read once
	Name    string   `json:"name"`
	Version uint64   `json:"config_version"` // that corosync runs with
	Quorate bool     `json:"quorate"`
	Groups  []Group  `json:"groups"`
	Members []Member `json:"members"` // corosync's nodelist, ascending by name
}

// Member is a node of the cluster as this one sees it.
type Member struct {
	Name    string `json:"name"`
	ID      uint32 `json:"id"`
	Address string `json:"address"` // empty: unknown
	Self    bool   `json:"self"`
	// Online: its daemon is in the status group; InDatabase: in the group of the
	// configuration database, too.
	Online     bool `json:"online"`
	InDatabase bool `json:"in_database"`
	// Peer is what its daemon tells. Nil means nothing, as a stock daemon doesn't.
	Peer *Peer `json:"peer,omitempty"`
}

// Peer is what a daemon tells the others of itself now and then.
type Peer struct {
	Software string    `json:"software"` // version
	Mode     string    `json:"mode"`     // of its database group
	Quorate  bool      `json:"quorate"`
	Version  uint64    `json:"database_version"`
	Heard    time.Time `json:"heard"` // by this node's clock
	// Lag is by how many changes it was behind this node when it told; negative:
	// ahead. Messages are on their way for some time: single changes under load
	// mean nothing.
	Lag int64 `json:"lag"`
	// ClockOffset is by how much its clock is ahead of this node's, in seconds,
	// including the time that its message took.
	ClockOffset float64 `json:"clock_offset_seconds"`
}

// Group is a process group that the daemon takes part in.
type Group struct {
	Name       string   `json:"name"`
	Connected  bool     `json:"connected"`
	Mode       string   `json:"mode"`
	Members    int      `json:"members"`
	Synced     int      `json:"synced"` // how many of the members
	Epoch      string   `json:"epoch"`
	Waiting    int      `json:"waiting"` // callers whose change is not done
	Unsent     int      `json:"unsent"`  // messages
	Queued     int      `json:"queued"`  // messages that wait for the end of a sync
	Error      string   `json:"error,omitempty"`
	MemberList []string `json:"member_list"` // as node/pid
}

// Database is the configuration database of this node.
type Database struct {
	Path       string    `json:"path"`
	Version    uint64    `json:"version"`
	LastWriter uint32    `json:"last_writer"` // node id; 0: none, or local mode
	LastChange time.Time `json:"last_change"` // by the writer's clock
	Entries    int       `json:"entries"`
	MaxEntries int       `json:"max_entries"`
	Bytes      int64     `json:"bytes"` // of content
	MaxBytes   int64     `json:"max_bytes"`
	FileBytes  int64     `json:"file_bytes"` // of the file on disk
	LogBytes   int64     `json:"log_bytes"`  // of its write-ahead log
	Commits    int64     `json:"commits"`    // since the daemon's start
	Failed     int64     `json:"failed_commits"`
	Error      string    `json:"error,omitempty"` // why it can't be written; empty: it can
	Verified   int64     `json:"verifications"`   // checksums computed for the hourly comparison
}

// Conf are the versions of corosync.conf's copies; 0 means none, or not readable.
type Conf struct {
	Tree    uint64 `json:"tree"`
	Host    uint64 `json:"host"`
	Running uint64 `json:"running"`
	Same    bool   `json:"same"` // tree and host have the same content
	// Mistake is why corosync can't start with the tree's copy; empty means it can.
	Mistake string `json:"mistake,omitempty"`
	// Refused is why the tree's copy is kept from corosync; empty means it isn't.
	Refused string `json:"refused,omitempty"`
}

// Lock is a cluster-wide lock that is held.
type Lock struct {
	Name   string    `json:"name"`
	Holder string    `json:"holder"`  // node's name; empty: a node that is not in the cluster
	ID     uint32    `json:"node_id"` // holder's
	Taken  time.Time `json:"renewed"` // taken or last renewed, by the holder's clock
	// Since is when this node saw the lock's present state first: what expiry is
	// counted from.
	Since   time.Time `json:"unchanged_since"`
	Expired bool      `json:"expired"` // may be broken by whoever wants it
	Version uint64    `json:"version"` // of the lock's entry
}

// Problem is a warning or an error of the daemon's log.
type Problem struct {
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Count  int       `json:"count"` // how often it came, in direct succession of its domain
	Level  string    `json:"level"` // "warning" or "error"
	Domain string    `json:"domain"`
	Event  string    `json:"event,omitempty"` // what it is about, as in the journal
	Text   string    `json:"text"`
	Remedy string    `json:"remedy,omitempty"` // what to do; empty: see the text
}

// Locks, Errors and Peers are the documents at their paths.
type (
	Locks struct {
		Locks []Lock `json:"locks"`
	}
	Errors struct {
		Errors []Problem `json:"errors"`
	}
	Peers struct {
		Members []Member `json:"members"`
	}
)
