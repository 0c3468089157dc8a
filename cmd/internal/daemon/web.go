package daemon

import (
	"context"
	"net/http"

	"pmxcfs/fuse"
	"pmxcfs/status/health"
	"pmxcfs/status/web"
)

// DefaultListen is where a host's daemon serves its metrics, unless it is told
// otherwise.
const DefaultListen = "127.0.0.1:9922"

// SocketName is the Unix socket's in the run directory.
const SocketName = "pmxcfs.sock"

// startWeb serves the daemon's state by HTTP. What it reads of d is set before,
// or atomic.
func (d *daemon) startWeb() {
	public, private := http.NewServeMux(), http.NewServeMux()
	for _, mux := range []*http.ServeMux{public, private} {
		mux.Handle("GET /healthz", health.AliveHandler(&d.alive))
		mux.Handle("GET /readyz", health.ReadyHandler(d.node))
		if d.metrics != nil {
			mux.Handle("GET /metrics", d.metrics.Handler())
		}
	}
	private.Handle("/v1/", d.inspection().Handler())
	d.alive.Add(health.Check{Name: "tree", Run: answers(func() { d.tree.Root() })})
	d.alive.Add(health.Check{Name: "status", Run: answers(func() { d.status.Version() })})
	d.web = web.Start(web.Config{
		Address: d.o.Listen, ConfigFile: d.o.WebConfig, Public: public,
		Socket: d.o.Socket, Private: private,
		Log: d.logs.Domain("web"),
	})
}

// answers makes a check of a call that returns at once, unless the daemon is stuck.
func answers(call func()) func(context.Context) error {
	return func(ctx context.Context) error {
		done := make(chan struct{})
		go func() { // stuck, it is left behind: the daemon is lost then
			defer close(done)
			call()
		}()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// node is the state of this node, from any goroutine once the store is open.
func (d *daemon) node() health.Node {
	n := health.Node{
		Name:     d.name,
		Up:       d.running.Load(),
		Stopping: d.stopping.Load(),
		Version:  d.tree.Version(),
	}
	if m := d.mounted.Load(); m != nil {
		n.Mounted = serving(m)
	}
	if d.cluster == nil {
		n.Database = d.local.Failing()
		return n
	}
	s := d.cluster.store.Status()
	kv := d.cluster.kv.Status()
	n.Cluster, n.Quorate, n.Database, n.Foreign = true, s.Quorate, s.Database, d.cluster.gate.Foreign()
	n.Config = health.Group{Connected: s.Group.Connected, Mode: s.Group.Mode, Members: len(s.Group.Members), Synced: s.Group.Synced, LastError: s.Group.LastError}
	n.Status = health.Group{Connected: kv.Connected, Mode: kv.Mode, Members: len(kv.Members), Synced: kv.Synced, LastError: kv.LastError}
	return n
}

// serving reports whether a mount is still served.
func serving(m *fuse.Mount) bool {
	select {
	case <-m.Done():
		return false
	default:
		return true
	}
}
