package inspect

import "time"

// Comparison is the document at PathCompare: whether the nodes hold the same tree.
type Comparison struct {
	Time time.Time `json:"time"`
	Took float64   `json:"took_seconds"`
	// Equal: those that were compared, at least two, hold the same. If they do not,
	// and Differences is empty: each look found others, for changes went on.
	Equal bool `json:"equal"`
	// Complete: every node of the cluster was
	// compared. Absent nodes are among Nodes all the same.
	Complete bool           `json:"complete"`
	Nodes    []ComparedNode `json:"nodes"` // ascending by name
	// Differences are ascending by inode, at most MaxDifferences; Omitted tells
	// that there are more, and AtLeast how many there are for certain.
	Differences []Difference `json:"differences"`
	Omitted     bool         `json:"omitted"`
	AtLeast     int          `json:"differences_at_least"`
}

// MaxDifferences is how many differing entries a comparison names.
const MaxDifferences = 500

// The states of a node in a comparison.
const (
	NodeCompared = "compared"       // its tree was compared
	NodeSilent   = "no answer"      // it takes part, but gave no answer in time
	NodeBehind   = "not comparable" // it answered, but never at the version of the others
	NodeForeign  = "does not take part"
	NodeOffline  = "offline"
)

// ComparedNode is one node's part in a comparison.
type ComparedNode struct {
	Name     string `json:"name"`
	ID       uint32 `json:"id"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Software string `json:"software,omitempty"`
	Mode     string `json:"mode,omitempty"`
	Quorate  bool   `json:"quorate"`
	Version  uint64 `json:"version"`          // of the tree that was compared
	Digest   string `json:"digest,omitempty"` // of its index, in hex
}

// Difference is an entry that not all compared nodes have alike.
type Difference struct {
	Inode uint64 `json:"inode"`
	Path  string `json:"path"` // where most of those that have it have it
	// What differs: "missing", "path", "type", "content", "mtime", "writer",
	// "version".
	What []string            `json:"what"`
	Have map[string]*Version `json:"have"` // by node; nil: it is missing there
}

// Version is an entry as one node has it.
type Version struct {
	Path    string    `json:"path"`
	Type    string    `json:"type"`
	Size    uint32    `json:"size"`
	Version uint64    `json:"version"`
	Writer  uint32    `json:"writer"`
	MTime   time.Time `json:"mtime"`
	Content string    `json:"content,omitempty"` // digest in hex; empty: a directory, or not computed
}
