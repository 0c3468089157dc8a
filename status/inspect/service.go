package inspect

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"pmxcfs/corosync/conf"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/history"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status"
	"pmxcfs/status/health"
)

// Config says what a Service tells of. Tree, Status, Commits and Recent are
// needed.
type Config struct {
	Version    string // of the software
	Node       string // this node's name
	Address    string // empty means unknown
	Started    time.Time
	MountPoint string
	Database   string // path of the file
	HostConf   string // path of the host's corosync.conf
	Unguarded  bool   // corosync gets every one of the tree

	Tree    *memdb.Tree
	Status  *status.Store
	Commits *sqlite.Stats
	Recent  *Recent
	// Cluster is nil in local mode.
	Cluster *ClusterSources
	// Failing says why the database can't be written in local mode; nil means it can.
	Failing func() error
	// History is the state of the history; nil means none is recorded.
	History func() history.Status
	// NotReady says why the node can't serve now; nothing: it can. Nil means always.
	NotReady func() []health.Reason
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ClusterSources are what a node of a cluster has to ask.
type ClusterSources struct {
	Store  func() dcdb.ClusterStatus // of the configuration database
	Values func() group.Status       // of the status store's group
	Peers  Peering                   // nil means nobody is asked
}

// Peering is what other daemons tell (peers.Service).
type Peering interface {
	// Peers returns what the members of the inspection group have told last.
	Peers() []PeerState
	// Compare compares the trees of all members; names are the nodes' by id.
	Compare(ctx context.Context, names map[uint32]string) (*Comparison, error)
}

// PeerState is what one member has told.
type PeerState struct {
	Member dfsm.Member
	Node   string // its name
	Peer
}

// Service makes the documents. Its methods may be called from any goroutine.
type Service struct{ cfg Config }

// New returns a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg}
}

// recentErrors is how old what Status lists of the log may be.
const recentErrors = 24 * time.Hour

// Status returns the document of that name.
func (s *Service) Status() *Status {
	c, now := &s.cfg, s.cfg.Now()
	d := &Status{
		Time:     now,
		Mode:     ModeLocal,
		Daemon:   Daemon{PID: os.Getpid(), Version: c.Version, Started: c.Started, MountPoint: c.MountPoint},
		Node:     Node{Name: c.Node, Address: c.Address},
		NotReady: []health.Reason{},
		Database: s.database(),
		Locks:    s.Locks(),
		Errors:   since(c.Recent.Problems(), now.Add(-recentErrors)),
	}
	if c.Cluster != nil {
		d.Mode = ModeCluster
		d.Cluster, d.Node.ID = s.cluster(&d.Database)
		d.Conf = s.conf(d.Cluster.Version)
	}
	if c.History != nil {
		s := c.History()
		d.History = &s
	}
	if c.NotReady != nil {
		d.NotReady = append(d.NotReady, c.NotReady()...)
	}
	d.Ready = len(d.NotReady) == 0
	return d
}

func (s *Service) database() Database {
	c := &s.cfg
	root := c.Tree.Root()
	bytes, entries := c.Tree.Usage()
	d := Database{
		Path:    c.Database,
		Version: root.Version, LastWriter: root.Writer, LastChange: time.Unix(int64(root.MTime), 0),
		Entries: entries, MaxEntries: memdb.MaxEntries, Bytes: bytes, MaxBytes: memdb.MaxTreeBytes,
		FileBytes: size(c.Database), LogBytes: size(c.Database + "-wal"),
		Commits: c.Commits.Transactions.Load(), Failed: c.Commits.Failed.Load(),
	}
	if c.Failing != nil {
		if err := c.Failing(); err != nil {
			d.Error = err.Error()
		}
	}
	return d
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// cluster returns that part of the status, this node's id, and puts into db what
// the cluster's store knows of it.
func (s *Service) cluster(db *Database) (*Cluster, uint32) {
	state := s.cfg.Status.Cluster()
	store, values := s.cfg.Cluster.Store(), s.cfg.Cluster.Values()
	if store.Database != nil {
		db.Error = store.Database.Error()
	}
	db.Verified = int64(store.Group.Verifications)
	return &Cluster{
		Known: state.Known, Name: state.Name, Version: state.Version, Quorate: store.Quorate,
		Groups:  []Group{groupOf(dcdb.GroupName, store.Group), groupOf(status.GroupName, values)},
		Members: s.members(state, store.Group.Members),
	}, uint32(state.Self)
}

// Members returns the cluster's nodes; none in local mode.
func (s *Service) Members() []Member {
	if s.cfg.Cluster == nil {
		return []Member{}
	}
	return s.members(s.cfg.Status.Cluster(), s.cfg.Cluster.Store().Group.Members)
}

func (s *Service) members(state status.ClusterState, inDatabase []dfsm.Member) []Member {
	list := make([]Member, 0, len(state.Nodes))
	var told []PeerState
	if p := s.cfg.Cluster.Peers; p != nil {
		told = p.Peers()
	}
	for _, n := range state.Nodes {
		m := Member{Name: n.Name, ID: uint32(n.ID), Address: n.Address, Self: n.ID == state.Self, Online: n.Online}
		for _, in := range inDatabase {
			m.InDatabase = m.InDatabase || in.Node == n.ID
		}
		for i := range told {
			if told[i].Member.Node == n.ID {
				m.Peer = &told[i].Peer
			}
		}
		list = append(list, m)
	}
	return list
}

func groupOf(name string, g group.Status) Group {
	d := Group{
		Name: name, Connected: g.Connected, Mode: g.Mode.String(), Members: len(g.Members), Synced: g.Synced,
		Epoch: g.Epoch.String(), Waiting: g.Waiting, Unsent: g.Unsent, Queued: g.Queued,
		MemberList: make([]string, 0, len(g.Members)),
	}
	for _, m := range g.Members {
		d.MemberList = append(d.MemberList, m.String())
	}
	if g.LastError != nil && (!g.Connected || g.Mode != dfsm.ModeSynced) {
		d.Error = g.LastError.Error()
	}
	return d
}

// conf compares the copies of corosync.conf.
func (s *Service) conf(running uint64) *Conf {
	d := &Conf{Running: running}
	var tree []byte
	if e, ok := s.cfg.Tree.Lookup("corosync.conf"); ok && !e.IsDir() {
		tree = e.Data()
		d.Tree, _ = conf.Version(tree)
		if _, err := conf.Parse(tree); err != nil {
			d.Mistake = err.Error()
		}
	}
	host, err := os.ReadFile(s.cfg.HostConf)
	if err == nil {
		d.Host, _ = conf.Version(host)
	}
	if err == nil && tree != nil && !s.cfg.Unguarded && !bytes.Equal(tree, host) {
		d.Refused = conf.Objection(tree, host)
	}
	d.Same = err == nil && bytes.Equal(tree, host) || errors.Is(err, fs.ErrNotExist) && tree == nil
	return d
}

// Locks returns the locks that are held, ascending by name.
func (s *Service) Locks() []Lock {
	now := s.cfg.Now()
	names := map[uint32]string{}
	if s.cfg.Cluster == nil {
		names[0] = s.cfg.Node
	} else {
		for _, n := range s.cfg.Status.Cluster().Nodes {
			names[uint32(n.ID)] = n.Name
		}
	}
	held := s.cfg.Tree.HeldLocks(now)
	list := make([]Lock, 0, len(held))
	for _, l := range held {
		list = append(list, Lock{
			Name: l.Name, Holder: names[l.Entry.Writer], ID: l.Entry.Writer,
			Taken: time.Unix(int64(l.Entry.MTime), 0), Since: l.Since, Expired: l.Expired(now), Version: l.Entry.Version,
		})
	}
	return list
}
