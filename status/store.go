package status

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"pmxcfs/memdb"
)

// Config is what a status store is made of.
type Config struct {
	Tree     *memdb.Tree
	NodeName string    // this node's
	Start    time.Time // when the daemon started
}

// Store is a node's status. Its methods may be called from any goroutine. It
// is a dcdb.Observer.
type Store struct {
	tree  *memdb.Tree
	node  string
	start int64

	index    map[string]int // of a watched path in versions
	versions [len(watchedPaths)]atomic.Uint32
	cluster  atomic.Uint32 // version of the cluster info: nodes, online states, addresses

	mu     sync.Mutex // guards the rendered VM list
	vmlist []byte
	vmVer  uint32
}

// New returns a store for a tree that has just been loaded.
func New(cfg Config) *Store {
	s := &Store{tree: cfg.Tree, node: cfg.NodeName, start: cfg.Start.Unix(), index: make(map[string]int, len(watchedPaths))}
	for i, path := range watchedPaths {
		s.index[path] = i
	}
	s.touchAll()
	return s
}

func (s *Store) touchAll() {
	for i := range s.versions {
		s.versions[i].Add(1)
	}
}

// Applied counts up what an operation touched.
func (s *Store) Applied(op *memdb.Op, _ []memdb.Change, _ bool) {
	s.touch(op.Path)
	if op.Kind == memdb.OpRename {
		s.touch(op.To)
	}
}

func (s *Store) touch(path string) {
	if i, ok := s.index[memdb.CleanPath(path)]; ok {
		s.versions[i].Add(1)
	}
}

// Reset counts everything up: changes were taken back, or the tree replaced.
func (s *Store) Reset([]memdb.Change) { s.touchAll() }

// Version returns the content of .version: JSON with one counter for everything
// that clients watch. It is made to be polled.
func (s *Store) Version() []byte {
	b := make([]byte, 0, 2048)
	b = append(b, "{\n\"starttime\": "...)
	b = strconv.AppendInt(b, s.start, 10)
	b = append(b, ",\n\"clinfo\": "...)
	b = strconv.AppendUint(b, uint64(s.cluster.Load()), 10)
	b = append(b, ",\n\"vmlist\": "...)
	b = strconv.AppendUint(b, uint64(s.tree.GuestsVersion()), 10)
	for i, path := range watchedPaths {
		b = append(b, ",\n\""...)
		b = append(b, path...)
		b = append(b, "\": "...)
		b = strconv.AppendUint(b, uint64(s.versions[i].Load()), 10)
	}
	b = append(b, ",\n\"kvstore\": {\n"...)
	b = appendString(b, s.node)
	return append(b, ": {}\n}\n}\n"...)
}

// VMList returns the content of .vmlist. The result is shared: it must not be
// written to.
func (s *Store) VMList() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vmlist != nil && s.tree.GuestsVersion() == s.vmVer {
		return s.vmlist
	}
	guests, version := s.tree.Guests()
	b := make([]byte, 0, 64+64*len(guests))
	b = append(b, "{\n\"version\": "...)
	b = strconv.AppendUint(b, uint64(version), 10)
	for i, g := range guests {
		if i == 0 {
			b = append(b, ",\n\"ids\": {\n"...)
		} else {
			b = append(b, ",\n"...)
		}
		b = append(b, '"')
		b = strconv.AppendUint(b, uint64(g.VMID), 10)
		b = append(b, "\": { \"node\": "...)
		b = appendString(b, g.Node)
		b = append(b, ", \"type\": "...)
		b = appendString(b, g.Type.String())
		b = append(b, ", \"version\": "...)
		b = strconv.AppendUint(b, uint64(g.Version), 10)
		b = append(b, " }"...)
	}
	if len(guests) > 0 {
		b = append(b, "}\n"...)
	}
	s.vmlist, s.vmVer = append(b, "\n}\n"...), version
	return s.vmlist
}

// Members returns the content of .members. Without a cluster that is this
// node's name.
func (s *Store) Members() []byte {
	b := append([]byte(nil), "{\n\"nodename\": "...)
	b = appendString(b, s.node)
	b = append(b, ",\n\"version\": "...)
	b = strconv.AppendUint(b, uint64(s.cluster.Load()), 10)
	return append(b, "\n}\n"...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
