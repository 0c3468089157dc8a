package history

import (
	"time"

	"pmxcfs/memdb"
)

// Kind is the kind of a change. The values stand in the file.
type Kind int

const (
	Create Kind = 1 + iota // a file
	Write
	Rename
	Delete
	Mkdir
	Sync  // what a synchronisation with the group's leader has brought
	Found // what is there at the beginning of the history, or after a gap
)

var kindNames = [...]string{Create: "create", Write: "write", Rename: "rename", Delete: "delete", Mkdir: "mkdir", Sync: "sync", Found: "found"}

// String returns the kind's name.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(b []byte) error {
	*k = 0
	for i, name := range kindNames {
		if name == string(b) {
			*k = Kind(i)
		}
	}
	return nil
}

// Change is what a change set did to one path.
type Change struct {
	// Seq is the change's place in this node's order; Set is that of its change set's first one.
	Seq int64 `json:"seq"`
	Set int64 `json:"set"`

	Tree    uint64    `json:"tree_version"` // after the change set
	Version uint64    `json:"version"`      // of the entry: the revision
	Time    time.Time `json:"time"`         // when this node stored it
	MTime   time.Time `json:"mtime"`        // of the entry, by the clock of the node that made the change
	NodeID  uint32    `json:"node_id"`      // of that node; 0 in local mode
	Node    string    `json:"node"`         // its name, as far as it was known
	Kind    Kind      `json:"kind"`
	Path    string    `json:"path"`
	From    string    `json:"from,omitempty"` // a rename: where the entry was before
	To      string    `json:"to,omitempty"`   // a rename: where the entry is now
	State   State     `json:"state"`          // what is at the path afterwards
	Size    int64     `json:"size"`           // of the content
	Digest  string    `json:"sha256,omitempty"`
	Omitted int64     `json:"omitted,omitempty"` // how many states before it were thinned out
	CatchUp *CatchUp  `json:"sync,omitempty"`

	content int64
}

// CatchUp is what is known of a synchronisation.
type CatchUp struct {
	Leader   string `json:"leader"`
	LeaderID uint32 `json:"leader_id"`
	From     uint64 `json:"from_version"`
	To       uint64 `json:"to_version"`
}

// State is what is at a path.
type State int

const (
	Absent    State = 0
	Directory State = State(memdb.TypeDir)
	File      State = State(memdb.TypeFile)
)

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) {
	switch s {
	case Directory:
		return []byte("directory"), nil
	case File:
		return []byte("file"), nil
	}
	return []byte("absent"), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(b []byte) error {
	switch string(b) {
	case "directory":
		*s = Directory
	case "file":
		*s = File
	default:
		*s = Absent
	}
	return nil
}

// Gap is what was not recorded: the changes after version After, up to Version.
type Gap struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	After   uint64    `json:"after_version"`
	Version uint64    `json:"version"`
	Changes int64     `json:"changes,omitempty"` // how many they were; 0: unknown
	Reason  string    `json:"reason"`
}

// Snapshot is a point of the history with a name.
type Snapshot struct {
	Name    string    `json:"name"`
	Version uint64    `json:"version"` // of the tree
	Time    time.Time `json:"time"`
	Note    string    `json:"note,omitempty"`
	Seq     int64     `json:"seq"`
}
