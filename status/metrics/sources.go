package metrics

import (
	"time"

	"pmxcfs/dfsm/group"
	"pmxcfs/fuse"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/history"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/health"
	"pmxcfs/status/ipc"
	"pmxcfs/status/rrd"
)

// GroupName is one of the two process groups, as the label "group" has it.
type GroupName string

const (
	ConfigGroup GroupName = "dcdb"    // the configuration database's
	StatusGroup GroupName = "kvstore" // the status store's
)

// Sources are what is read at each scrape. A nil one is something that this daemon does
// not have, as the cluster in local mode; its metrics are left out. None may wait for a
// lock that is held during I/O or a change.
type Sources struct {
	Node     func() health.Node
	Tree     Tree
	Database Database
	FUSE     func() fuse.Stats
	RRD      func() rrd.Stats
	Log      func() clusterlog.Stats
	History  func() history.Status
	IPC      IPC

	Cluster  *dcdb.Stats
	Groups   map[GroupName]func() group.Status
	Corosync func() Corosync
	Peers    func() []Peer
}

// Tree is the tree (memdb.Tree).
type Tree interface {
	Stats(now time.Time) memdb.Stats
}

// IPC is the IPC service (ipc.Service).
type IPC interface {
	Clients() (full, readOnly int)
	Requests() ipc.Stats
}

// Database is the database file (sqlite.DB).
type Database interface {
	Stats() *sqlite.Stats
	Sizes() (file, log int64, err error)
}

// Corosync is what is known of corosync's configuration. Versions are 0 where there is
// none.
type Corosync struct {
	TreeVersion    uint64 // of corosync.conf in the tree
	HostVersion    uint64 // of the host's copy
	RunningVersion uint64 // that corosync runs with
	Refused        bool   // the tree's copy is kept from corosync
	Nodes          int    // in corosync's nodelist; 0 means unknown
}

// Peer is what another node has told about itself.
type Peer struct {
	Node    string
	Version uint64        // of its database
	Age     time.Duration // since it told
}
