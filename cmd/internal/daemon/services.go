package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"pmxcfs/corosync/conf"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status"
	"pmxcfs/status/ipc"
	"pmxcfs/status/rrd"
)

// importCorosyncConf takes the host's corosync.conf into a new database, so
// that a host of a cluster needs nothing but that file to be part of it again.
// The example of Debian's corosync package is left alone. Everything else counts as a
// cluster's, whether it can be parsed or not.
func (d *daemon) importCorosyncConf(tree *memdb.Tree, db *sqlite.DB) error {
	text, err := os.ReadFile(d.o.CorosyncConf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("importing the host's corosync.conf: %w", err)
	case conf.Example(text):
		d.log.Info("the host's corosync.conf is an example that describes no cluster: not imported", "path", d.o.CorosyncConf, event.ConfIgnored.Attr())
		return nil
	}
	store := dcdb.NewLocal(dcdb.Config{Tree: tree, DB: keepOpen{db}, Log: d.logs.Domain("database")})
	for _, op := range []*memdb.Op{
		{Kind: memdb.OpCreate, Path: "corosync.conf"},
		{Kind: memdb.OpWrite, Path: "corosync.conf", Data: text, Truncate: true},
	} {
		if _, err := store.Do(nil, op); err != nil {
			return errors.Join(fmt.Errorf("importing the host's corosync.conf: %w", err), store.Close())
		}
	}
	d.log.Info("imported the host's corosync.conf into the new database", "path", d.o.CorosyncConf)
	_, err = conf.Parse(text)
	if err == nil {
		_, err = conf.Version(text)
	}
	if err != nil {
		// It is a cluster's all the same: a node that took itself for a single one would
		// accept changes that its cluster knows nothing of.
		d.log.Error("the host's corosync.conf is not usable: until it is corrected and corosync runs, this node is one of a cluster, without quorum, and read-only",
			"path", d.o.CorosyncConf, "error", err, event.ConfFailed.Attr())
	}
	return store.Close()
}

// keepOpen is a database that outlives a store.
type keepOpen struct{ dcdb.Database }

func (keepOpen) Close() error { return nil }

// openSamples starts what writes RRD files.
func (d *daemon) openSamples() (err error) {
	d.samples, err = rrd.New(rrd.Config{Dir: d.o.RRDDir, Socket: d.o.RRDSocket, Now: time.Now, Logger: d.logs.Domain("status")})
	return err
}

// samplesTimeout is how long stopping waits for samples to be written.
const samplesTimeout = time.Second

func (d *daemon) closeSamples() {
	ctx, cancel := context.WithTimeout(context.Background(), samplesTimeout)
	defer cancel()
	if err := d.samples.Close(ctx); err != nil {
		d.log.Warn("some RRD samples could not be written", "error", err)
	}
}

func (d *daemon) newStatus(tree *memdb.Tree, name string, address net.IP, begin time.Time) (err error) {
	cfg := status.Config{Tree: tree, NodeName: name, Start: begin, RRD: d.samples, Logger: d.logs.Domain("status")}
	if address != nil {
		cfg.Address = address.String()
	}
	d.tree = tree
	d.status, err = status.New(cfg)
	return err
}

// startTools starts the service that Proxmox's tools call, unless there is to be
// none.
func (d *daemon) startTools() error {
	if d.tools == nil {
		return nil
	}
	cfg := ipc.Config{Name: d.o.IPCName, GID: d.gid, Tree: d.tree, Store: d.status, Logger: d.logs.Domain("ipcs")}
	d.observeIPC(&cfg)
	d.tools.cfg = cfg
	return d.tools.start()
}
