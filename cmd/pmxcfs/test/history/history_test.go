package history

import (
	"fmt"
	"time"
)

// kind is what a client did.
type kind string

const (
	write   kind = "write"   // overwrite a file with a value
	read    kind = "read"    // read a file
	guarded kind = "guarded" // read a file as the holder of its lock
	final   kind = "final"   // read a file when all nodes are together again
	acquire kind = "acquire" // mkdir of a lock directory
	release kind = "release" // rmdir of it, by who got it
	create  kind = "create"  // create an entry, which nobody removes
)

// op is one call of a client. Reads that failed, and locks found taken, say
// nothing and are not recorded.
type op struct {
	kind      kind
	node      int
	client    int
	path      string
	value     string        // what was written or read; unique for a path
	call, ret time.Duration // since the beginning of the history
	failed    bool          // it may have taken effect, now or later
	err       string        // how it failed
}

func (o op) String() string {
	s := fmt.Sprintf("%10.6f–%10.6f node%d client %d: %s %s %q", o.call.Seconds(), o.ret.Seconds(), o.node, o.client, o.kind, o.path, o.value)
	if o.failed {
		s += " FAILED: " + o.err
	}
	return s
}

// window is a time in which less is promised of a node.
type window struct {
	node     int
	from, to time.Duration
	// alone: what the node acknowledged may have reached no other.
	alone bool
	// killed: the daemon was killed at from, and is synchronised at to.
	killed bool
}

func (w window) overlaps(o op) bool { return o.node == w.node && o.ret >= w.from && o.call <= w.to }

// history is a record of a run.
type history struct {
	ops     []op
	windows []window
	initial map[string]string // the files' first values
	present map[string]bool   // entries that were there at the end
}

// alone tells whether the call's effect may have reached no other node.
func (h *history) alone(o op) bool {
	for _, w := range h.windows {
		if w.alone && w.overlaps(o) {
			return true
		}
	}
	return false
}
