package status

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/memdb"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/rrd"
)

// Config is what a status store is made of. Tree and NodeName are needed.
type Config struct {
	Tree     *memdb.Tree
	NodeName string    // this node's
	Start    time.Time // when the daemon started

	// Address is this node's IP address as its host name resolves: what it tells
	// the others when it becomes synced, unless a client has set another. Empty:
	// unknown, and nothing is told.
	Address string
	// PID is the daemon's, which the cluster log's first entry carries; 0 means this
	// process's.
	PID uint32
	// Now is the clock of the cluster log and of the age of RRD samples; nil:
	// time.Now.
	Now func() time.Time
	// RRD takes all samples, own and foreign, to be written to files; nil means none.
	RRD RRDWriter
	// Logger gets the domain status's lines; nil means nowhere.
	Logger *slog.Logger
}

// RRDWriter writes samples to RRD files (rrd.Writer).
type RRDWriter interface {
	// Submit takes the sample text of a key (without "rrd/"). It must not wait.
	Submit(key, text string) bool
}

// Poster sends messages of the process group (group.Group).
type Poster interface {
	// Post sends a normal message that nobody waits for, or drops it if this
	// node is not in the group. It must not wait for a delivery, nor call the application but
	// for Cleanup, and for ModeChanged with a mode that is out of the group.
	// Neither side changes the payload afterwards.
	Post(subtype uint16, payload []byte)
}

// Store is a node's status. Its methods may be called from any goroutine. It is
// a dcdb.Observer.
//
// mu guards what it says below. Nothing slow is done under it, in particular no I/O,
// nothing of the cluster log or RRD; of texts, .members and a node's part of .version are
// rendered under it after they have changed.
//
// telling is held over the change of a value and the Post that tells of it, so that messages
// leave in the order of the changes. It is taken before mu, which is not held over Post: that
// may call ModeChanged.
type Store struct {
	tree    *memdb.Tree
	node    string
	start   int64 // seconds since 1970
	address string
	now     func() time.Time
	log     *slog.Logger

	index    map[string]int // of a watched path in versions
	versions [len(watchedPaths)]atomic.Uint32

	// changes counts what .version shows, the VM list aside. It is counted up
	// after the change, and read before rendering.
	changes atomic.Uint64
	version atomic.Pointer[versionText]
	vmlist  vmlist

	group   atomic.Pointer[Poster]
	journal logbook
	samples *rrd.Values
	rrd     RRDWriter

	telling sync.Mutex

	mu      sync.Mutex // guards all below
	clinfo  uint32     // version of the cluster info: nodes, online states, addresses
	cluster *ClusterInfo
	quorate bool
	online  map[corosync.NodeID]bool // who is in the group
	self    *node                    // this node, whether the cluster info has it or not
	nodes   map[string]*node         // the cluster's, by name; self is among them if it has its id
	byID    map[corosync.NodeID]*node
	members []byte // .members; nil means it must be rendered
}

// New returns a store for a tree that has just been loaded. It logs the cluster
// log's first entry. A Config without Tree or NodeName is an error.
func New(cfg Config) (*Store, error) {
	if cfg.Tree == nil || cfg.NodeName == "" {
		return nil, errors.New("status: Tree and NodeName are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.PID == 0 {
		cfg.PID = uint32(os.Getpid())
	}
	journal, err := clusterlog.New(clusterlog.Config{Node: cfg.NodeName, Now: cfg.Now})
	if err != nil {
		return nil, err
	}
	s := &Store{
		tree:    cfg.Tree,
		node:    cfg.NodeName,
		start:   cfg.Start.Unix(),
		address: cfg.Address,
		now:     cfg.Now,
		log:     cfg.Logger,
		index:   make(map[string]int, len(watchedPaths)),
		journal: logbook{log: journal},
		samples: rrd.NewValues(cfg.Now),
		rrd:     cfg.RRD,
		self:    newNode(cfg.NodeName),
	}
	for i, path := range watchedPaths {
		s.index[path] = i
	}
	s.touchAll()
	s.Log(clusterlog.Message{Priority: 6, PID: cfg.PID, Ident: "root", Tag: "cluster", Text: "starting cluster log"})
	return s, nil
}

// SetGroup says through which group messages leave. Until it is called, and in
// local mode for good, what is set stays on this node.
func (s *Store) SetGroup(p Poster) { s.group.Store(&p) }

func (s *Store) post(subtype uint16, payload []byte) {
	if p := s.group.Load(); p != nil {
		(*p).Post(subtype, payload)
	}
}

func (s *Store) touchAll() {
	for i := range s.versions {
		s.versions[i].Add(1)
	}
	s.changes.Add(1)
}

// Applied counts up what an operation touched.
func (s *Store) Applied(op *memdb.Op, _ []memdb.Change, _ bool) {
	s.touch(op.Path)
	if op.Kind == memdb.OpRename {
		s.touch(op.To)
	}
}

func (s *Store) touch(path string) {
	if i, ok := s.index[path]; ok {
		s.versions[i].Add(1)
		s.changes.Add(1)
	}
}

// Reset counts everything up: changes were taken back, or the tree replaced.
func (s *Store) Reset([]memdb.Change) { s.touchAll() }
