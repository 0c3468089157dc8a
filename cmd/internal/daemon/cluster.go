package daemon

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/cmd/internal/follow"
	"pmxcfs/cmd/internal/logging"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/group/overcpg"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status"
	"pmxcfs/status/inspect/peers"
	"pmxcfs/status/metrics"
)

// clusterConfig is what the part of a daemon is made of that a cluster needs.
type clusterConfig struct {
	tree     *memdb.Tree
	db       *sqlite.DB
	status   *status.Store
	observer dcdb.Observer
	// quorumChanged is told after store and status know.
	quorumChanged func()
	hostConf      string // the host's corosync.conf
	unguarded     bool   // corosync gets every one of the tree
	node          string // this node's name
	software      string // version of this program, for the other nodes
	logs          *logging.Logs
	metrics       *metrics.Metrics // nil means none
	recorder      dcdb.Recorder    // nil means none
}

// cluster is a node's part in a cluster: the store of the configuration
// database, and everything that talks to corosync, each by itself and again
// whenever corosync is there.
type cluster struct {
	store *dcdb.Cluster

	cfg      clusterConfig
	kv       *group.Group
	peers    *peers.Service
	known    chan struct{} // closed when there is cluster info
	once     sync.Once     // closes known
	info     atomic.Pointer[follow.ClusterInfo]
	mirror   *follow.Mirror
	gate     *follow.Gate
	workers  []*follow.Worker
	corosync corosyncStats
}

// newCluster returns a store that is not quorate; start does the rest.
func newCluster(cfg clusterConfig) (*cluster, error) {
	c := &cluster{cfg: cfg, known: make(chan struct{})}
	c.mirror = follow.NewMirror(cfg.hostConf, c.conf, cfg.logs.Domain("main"))
	c.mirror.Unguarded = cfg.unguarded
	c.gate = &follow.Gate{Conf: c.conf, Node: cfg.node, Log: cfg.logs.Domain("main")}
	var err error
	c.peers, err = peers.New(peers.Config{
		Connect: follow.Guarded(c.gate.Check, overcpg.Connect(peers.GroupName)),
		Tree:    cfg.tree, Node: cfg.node, Software: cfg.software,
		Mode: func() (dfsm.Mode, bool) {
			s := c.store.Status()
			return s.Group.Mode, s.Quorate
		},
		Backoff: follow.ReconnectAfter,
		Logger:  cfg.logs.Domain("inspect"),
	})
	if err != nil {
		return nil, err
	}
	store := dcdb.ClusterConfig{
		Config: dcdb.Config{
			Tree:     cfg.tree,
			DB:       cfg.db,
			Log:      cfg.logs.Domain("dcdb").With(event.Fields("group", dcdb.GroupName)),
			Observer: observers{cfg.observer, c.peers},
			Free:     cfg.db.Free,
			Recorder: cfg.recorder,
		},
		Connect:     follow.Guarded(c.gate.Check, overcpg.Connect(dcdb.GroupName)),
		ConfChanged: c.mirror.Changed,
		KeepLost:    keepLost(dcdb.SplitDir(cfg.db.Path()), time.Now),
		Backoff:     follow.ReconnectAfter,
		Patience:    follow.Patience,
	}
	kv := group.Config{
		Version: status.GroupVersion,
		App:     cfg.status.App(),
		Key:     status.PostKey,
		Connect: follow.Guarded(c.gate.Check, overcpg.Connect(status.GroupName)),
		Ready:   cfg.status.Ready,
		Backoff: follow.ReconnectAfter, Patience: follow.Patience,
		Logger: cfg.logs.Domain("status").With(event.Fields("group", status.GroupName)),
	}
	c.observe(&store, &kv)
	if c.store, err = dcdb.NewCluster(store); err != nil {
		return nil, err
	}
	if c.kv, err = group.New(kv); err != nil {
		return nil, errors.Join(err, c.store.Close())
	}
	return c, nil
}

// conf is the tree's corosync.conf.
func (c *cluster) conf() ([]byte, bool) {
	e, ok := c.cfg.tree.Lookup("corosync.conf")
	if !ok || e.IsDir() {
		return nil, false
	}
	return e.Data(), true
}

// start brings the host's corosync.conf up to date and goes looking for
// corosync. It needs no corosync to run, and waits for nothing.
func (c *cluster) start() {
	c.cfg.status.SetGroup(c.kv)
	c.mirror.Changed(false)
	c.workers = []*follow.Worker{
		follow.Start("corosync.conf", c.mirror.Run),
		follow.StartQuorum(c.cfg.logs.Domain("quorum"), c.gate.Check, c.setQuorate),
		follow.StartMap(c.cfg.logs.Domain("confdb"), c.gate.Check, c.setInfo),
		follow.Start(status.GroupName, func(ctx context.Context) {
			// It joins at once then, and not a while after it was refused.
			select {
			case <-c.known:
				c.kv.Run(ctx)
			case <-ctx.Done():
			}
		}),
		follow.Start(dcdb.GroupName, c.store.Run),
		follow.Start(peers.GroupName, c.peers.Run),
	}
}

func (c *cluster) setQuorate(quorate bool) {
	c.store.SetQuorate(quorate)
	c.cfg.status.SetQuorate(quorate)
	c.cfg.quorumChanged()
}

func (c *cluster) setInfo(info follow.ClusterInfo) {
	c.info.Store(&info)
	c.noteInfo(info)
	s := status.ClusterInfo{Name: info.Name, Version: info.Version, Self: info.Local}
	for _, n := range info.Nodes {
		s.Nodes = append(s.Nodes, status.ClusterNode{ID: n.ID, Name: n.Name, Ring0Addr: n.Address})
	}
	c.cfg.status.SetCluster(s)
	c.once.Do(func() { close(c.known) })
}

// Close leaves the groups and closes the database. A corosync that is stopped,
// not gone, does not hold it up for long.
func (c *cluster) Close() error {
	if err := follow.Close(c.workers...); err != nil {
		// Nothing is lost: closing the store has what it has applied stored.
		c.cfg.logs.Domain("main").Warn("stopping without an answer of corosync's", "error", err)
	}
	return c.store.Close()
}
