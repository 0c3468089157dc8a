package daemon

import (
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"pmxcfs/cmd/internal/follow"
	"pmxcfs/corosync"
	"pmxcfs/corosync/conf"
	"pmxcfs/dfsm/group"
	"pmxcfs/fuse"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/inspect"
	"pmxcfs/status/ipc"
	"pmxcfs/status/metrics"
)

// The daemon's parts are observed unless d.metrics is nil: then nothing is timed or
// counted beyond what the parts count by themselves, and there is no /metrics.

func (d *daemon) observeDatabase(cfg *sqlite.Config) {
	if d.metrics != nil {
		cfg.Observer = d.metrics.Database
	}
}

func (d *daemon) observeMount(cfg *fuse.Config) {
	if d.metrics != nil {
		cfg.Observer = d.metrics.FUSE
	}
}

func (d *daemon) observeIPC(cfg *ipc.Config) {
	if d.metrics != nil {
		cfg.Observer = d.metrics.IPC
	}
}

// observers returns who is told of changes.
func (d *daemon) observers(always ...dcdb.Observer) observers {
	if d.metrics != nil {
		always = append(always, d.metrics.Changes)
	}
	return always
}

// corosyncStats is what metrics tell of corosync's configuration.
type corosyncStats struct {
	running atomic.Uint64 // version
	nodes   atomic.Int64
}

// watchMetrics has metrics read the daemon's parts, which are there now.
func (d *daemon) watchMetrics(db *sqlite.DB, mount *fuse.FS) {
	if d.metrics == nil {
		return
	}
	s := metrics.Sources{
		Node: d.node, Tree: d.tree, Database: db, FUSE: mount.Stats,
		RRD: d.samples.Stats, Log: d.status.LogStats,
	}
	if d.tools != nil {
		s.IPC = d.tools
	}
	if d.history != nil {
		s.History = d.history.Status
	}
	if c := d.cluster; c != nil {
		s.Cluster = c.store.Stats()
		s.Groups = map[metrics.GroupName]func() group.Status{
			metrics.ConfigGroup: c.store.GroupStatus,
			metrics.StatusGroup: c.kv.Status,
		}
		s.Peers = c.peerVersions
		s.Corosync = func() metrics.Corosync {
			return metrics.Corosync{
				TreeVersion:    c.mirror.Version.Load(),
				HostVersion:    confVersion(d.o.CorosyncConf),
				RunningVersion: c.corosync.running.Load(),
				Refused:        c.mirror.Refused.Load(),
				Nodes:          int(c.corosync.nodes.Load()),
			}
		}
	}
	d.metrics.Watch(s)
}

// confVersion returns the version of a corosync.conf; 0 means none.
func confVersion(path string) uint64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return 0
	}
	version, err := conf.Version(text)
	if err != nil {
		return 0
	}
	return version
}

// noteInfo takes in what corosync's map says.
func (c *cluster) noteInfo(info follow.ClusterInfo) {
	c.corosync.running.Store(info.Version)
	c.corosync.nodes.Store(int64(len(info.Nodes)))
	if c.cfg.metrics == nil {
		return
	}
	names := make(map[corosync.NodeID]string, len(info.Nodes))
	for _, n := range info.Nodes {
		names[n.ID] = n.Name
	}
	c.cfg.metrics.Changes.SetNodes(names)
}

// observe has metrics told of what happens in the groups.
func (c *cluster) observe(store *dcdb.ClusterConfig, kv *group.Config) {
	if m := c.cfg.metrics; m != nil {
		store.Latencies = m.Latencies
		store.Synced = m.Syncs.Of(metrics.ConfigGroup)
		kv.Synced = m.Syncs.Of(metrics.StatusGroup)
	}
}

// peerVersions is what other nodes have told, under the names that corosync has for
// them: a member may call itself anything.
func (c *cluster) peerVersions() []metrics.Peer {
	told := c.peers.Peers()
	info := c.info.Load() // not the status store's: a scrape takes none of its locks
	if info == nil {
		return nil
	}
	var list []metrics.Peer
	for _, n := range info.Nodes {
		i := slices.IndexFunc(told, func(p inspect.PeerState) bool { return p.Member.Node == n.ID })
		if i >= 0 && n.ID != info.Local {
			list = append(list, metrics.Peer{Node: n.Name, Version: told[i].Version, Age: time.Since(told[i].Heard)})
		}
	}
	return list
}
