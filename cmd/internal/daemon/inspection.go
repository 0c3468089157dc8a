package daemon

import (
	"pmxcfs/status/health"
	"pmxcfs/status/inspect"
)

// inspection returns what answers the commands that ask a running daemon.
func (d *daemon) inspection() *inspect.Service {
	cfg := inspect.Config{
		Version: d.o.Version, Node: d.name, Address: d.address, Started: d.begin,
		MountPoint: d.o.MountPoint, Database: d.o.Database, HostConf: d.o.CorosyncConf, Unguarded: d.o.UnguardedConf,
		Tree: d.tree, Status: d.status, Commits: d.db.Stats(), Recent: &d.logs.Recent,
		NotReady: func() []health.Reason { return d.node().Reasons() },
	}
	if d.local != nil {
		cfg.Failing = d.local.Failing
	}
	if d.history != nil {
		cfg.History = d.history.Status
	}
	if c := d.cluster; c != nil {
		cfg.Cluster = &inspect.ClusterSources{Store: c.store.Status, Values: c.kv.Status, Peers: c.peers}
	}
	return inspect.New(cfg)
}
