package daemon

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"

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
	public.Handle("GET /{$}", landingPage(d.o.Version, d.metrics != nil, d.node, d.logs.Domain("web")))
	private.Handle("/v1/", d.inspection().Handler())
	d.serveHistory(private)
	d.alive.Add(health.Check{Name: "tree", Run: answers(func() { d.tree.Root() })})
	d.alive.Add(health.Check{Name: "status", Run: answers(func() { d.status.Version() })})
	d.web = web.Start(web.Config{
		Address: d.o.Listen, ConfigFile: d.o.WebConfig, Public: public,
		Names:  func() []string { return ownNames(d.name, "/etc/hosts", "/etc/resolv.conf") },
		Socket: d.o.Socket, Private: private,
		Log: d.logs.Domain("web"),
	})
}

// ownNames are the names by which others may ask for this node: its own, those that the
// host's files have beside it, and it in the domains that the host searches.
func ownNames(node, hosts, resolv string) []string {
	names := []string{node}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	each := func(file string, f func(words []string)) {
		text, err := os.ReadFile(file)
		if err != nil {
			return // there is nothing in it then
		}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			if words := strings.Fields(line); len(words) > 1 {
				f(words)
			}
		}
	}
	each(hosts, func(words []string) {
		if slices.Contains(words[1:], node) {
			names = append(names, words[1:]...)
		}
	})
	each(resolv, func(words []string) {
		if words[0] == "search" || words[0] == "domain" {
			for _, domain := range words[1:] {
				names = append(names, node+"."+strings.TrimSuffix(domain, "."))
			}
		}
	})
	return names
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
		Tools:    d.tools.trouble(),
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
