// Package backend answers the requests of the pve2 service from the configuration
// tree and the status store: it gives both the shapes that package ipc asks for.
//
// Nothing here waits for a writer: the tree hands out what it has published, the
// store what it keeps rendered.
package backend

import (
	"pmxcfs/memdb"
	"pmxcfs/status"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/ipc"
)

// Configure sets the sources of a service: cfg's Configs, Status, Log and RRD.
func Configure(cfg *ipc.Config, tree *memdb.Tree, store *status.Store) {
	cfg.Configs = configs{tree}
	cfg.Status = values{store}
	cfg.Log = journal{store}
	cfg.RRD = samples{store}
}

var (
	_ ipc.Configs = configs{}
	_ ipc.Status  = values{}
	_ ipc.Log     = journal{}
	_ ipc.RRD     = samples{}
)

// configs is the configuration tree.
type configs struct{ tree *memdb.Tree }

// ReadFile returns a file's content, which is the tree's and never changes.
func (c configs) ReadFile(path string) ([]byte, bool) {
	e, ok := c.tree.Lookup(path)
	if !ok || e.IsDir() {
		return nil, false
	}
	return e.Data(), true
}

// Changes is the tree's.
func (c configs) Changes() uint64 { return c.tree.Changes() }

// AppendGuests appends the VM list with the configurations.
func (c configs) AppendGuests(guests []ipc.Guest) []ipc.Guest {
	for g, e := range c.tree.GuestFiles {
		if e != nil {
			guests = append(guests, ipc.Guest{VMID: g.VMID, Conf: e.Data()})
		} else if conf, ok := c.conf(g); ok {
			guests = append(guests, ipc.Guest{VMID: g.VMID, Conf: conf})
		}
	}
	return guests
}

// Guest returns a guest with its configuration.
func (c configs) Guest(vmid uint32) (ipc.Guest, bool) {
	g, ok := c.tree.Guest(vmid)
	if !ok {
		return ipc.Guest{}, false
	}
	conf, ok := c.conf(g)
	return ipc.Guest{VMID: vmid, Conf: conf}, ok
}

// conf returns the configuration of a guest that was in the VM list a moment ago. It
// may have moved to another node since: then it is looked for there, a few times, for
// a guest that is always there must not be missing from an answer.
func (c configs) conf(g memdb.Guest) ([]byte, bool) {
	for range 8 {
		if conf, ok := c.ReadFile(g.Path()); ok {
			return conf, true
		}
		var ok bool
		if g, ok = c.tree.Guest(g.VMID); !ok {
			break
		}
	}
	return nil, false
}

// values is the status store's part of ipc.Status.
type values struct{ store *status.Store }

func (v values) Version() []byte                     { return v.store.Version() }
func (v values) ClusterInfo() []byte                 { return v.store.Members() }
func (v values) GuestList() []byte                   { return v.store.VMList() }
func (v values) Set(key string, value []byte) error  { return v.store.Set(key, value) }
func (v values) Get(node, key string) ([]byte, bool) { return v.store.Get(key, node) }

// journal is the cluster log.
type journal struct{ store *status.Store }

func (j journal) Add(e ipc.LogEntry) error {
	j.store.Log(clusterlog.Message{Priority: e.Priority, PID: e.PID, Ident: e.Ident, Tag: e.Tag, Text: e.Message})
	return nil
}

func (j journal) Dump(max int, user string) []byte { return j.store.ClusterLog(max, user) }

// samples are the RRD samples.
type samples struct{ store *status.Store }

func (s samples) Dump() []byte { return s.store.RRDWithNUL() }
