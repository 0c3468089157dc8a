package follow

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/corosync/cmap"
)

// ClusterInfo is what corosync's map says of the cluster.
type ClusterInfo struct {
	Name    string
	Version uint64          // of corosync's configuration
	Local   corosync.NodeID // this node; 0 means unknown
	Nodes   []Node          // by id
}

// Node is a node of corosync's nodelist.
type Node struct {
	ID      corosync.NodeID
	Name    string // its address if it has no name
	Address string // ring0_addr: an IP address or a host name
	Votes   uint64
}

const (
	keyNodes   = "nodelist."
	keyName    = "totem.cluster_name"
	keyVersion = "totem.config_version"
)

// ParseClusterInfo makes sense of corosync's map: its values as text, by key.
// Nodes without an id, or without both name and address, are left out.
func ParseClusterInfo(entries map[string]string) ClusterInfo {
	info := ClusterInfo{Name: entries[keyName], Version: number(entries[keyVersion], 64)}
	byPos := map[string]*Node{}
	for key, value := range entries {
		rest, ok := strings.CutPrefix(key, keyNodes+"node.")
		pos, field, ok2 := strings.Cut(rest, ".")
		if !ok || !ok2 {
			continue
		}
		n := byPos[pos]
		if n == nil {
			n = &Node{Votes: 1}
			byPos[pos] = n
		}
		switch field {
		case "nodeid":
			n.ID = corosync.NodeID(number(value, 32))
		case "name":
			n.Name = value
		case "ring0_addr":
			n.Address = value
		case "quorum_votes":
			n.Votes = number(value, 32)
		}
	}
	local, hasLocal := entries[keyNodes+"local_node_pos"]
	for pos, n := range byPos {
		if n.Name == "" {
			n.Name = n.Address
		}
		if n.ID == 0 || n.Name == "" {
			continue
		}
		if hasLocal && pos == local {
			info.Local = n.ID
		}
		info.Nodes = append(info.Nodes, *n)
	}
	slices.SortFunc(info.Nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name))
	})
	// Two nodes with one id can't be told apart: the first by name stays.
	info.Nodes = slices.CompactFunc(info.Nodes, func(a, b Node) bool { return a.ID == b.ID })
	return info
}

// number reads a number of so many bits; 0 means it is none.
func number(text string, bits int) uint64 {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return 0
	}
	return n
}

// mapConn is a connection to corosync's map.
type mapConn interface {
	// Track asks for events of changes to what Read reads.
	Track() error
	// Read gives the part of the map that parseClusterInfo understands.
	Read() (map[string]string, error)
	Next(into []cmap.Event, timeout time.Duration) ([]cmap.Event, error)
	Wake()
	Close() error
}

// cmapConn is a real one.
type cmapConn struct{ *cmap.Conn }

func OpenMap() (mapConn, error) {
	c, err := cmap.Open()
	if err != nil {
		return nil, err
	}
	return cmapConn{c}, nil
}

func (c cmapConn) Track() error {
	for _, prefix := range []string{keyNodes, keyName, keyVersion} {
		if _, err := c.TrackPrefix(prefix, cmap.OpAll); err != nil {
			return err
		}
	}
	return nil
}

func (c cmapConn) Read() (map[string]string, error) {
	entries, err := c.List(keyNodes)
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(entries)+2)
	for _, e := range entries {
		m[e.Key] = e.Value.String()
	}
	for _, key := range []string{keyName, keyVersion} {
		v, err := c.Get(key)
		switch {
		case err == nil:
			m[key] = v.String()
		case !errors.Is(err, corosync.ErrNotExist):
			return nil, err
		}
	}
	return m, nil
}

// mapWatch follows corosync's map. What it knew last stays when the connection
// is lost: the cluster has the same nodes then.
type mapWatch struct {
	connect func() (mapConn, error)
	report  func(ClusterInfo) // at each change
	log     *slog.Logger

	known   ClusterInfo
	trouble trouble
}

// StartMap reports changes from a goroutine of its own: report must not
// wait for the watch's end. Nothing is taken from a corosync that check does not let
// through.
func StartMap(log *slog.Logger, check func() error, report func(ClusterInfo)) *Worker {
	w := &mapWatch{
		connect: Guarded(check, OpenMap),
		report:  report,
		log:     log,
		trouble: trouble{log: log, what: "no connection to corosync's map", from: time.Now().Add(Patience)},
	}
	return Start("confdb", w.run)
}

func (w *mapWatch) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		w.trouble.tell(err)
		pause(ctx, retryDelay(err))
	}
}

const (
	// mapQuiet is how long the map must be at rest before it is read: a reload
	// changes it key by key.
	mapQuiet = 50 * time.Millisecond
	// mapBusy is how long it may be restless.
	mapBusy = 2 * time.Second
)

// follow connects and reports until ctx is done or the connection is lost.
func (w *mapWatch) follow(ctx context.Context) error {
	c, err := w.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Wake)()
	// Before the first look, so that nothing slips through in between.
	if err := c.Track(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		entries, err := c.Read()
		if err != nil {
			return err
		}
		w.trouble.over()
		w.set(ParseClusterInfo(entries))
		if err := awaitChange(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// awaitChange returns when the map has changed and come to rest.
func awaitChange(ctx context.Context, c mapConn) error {
	events, err := c.Next(nil, cmap.Forever)
	end := time.Now().Add(mapBusy)
	for err == nil && len(events) > 0 && ctx.Err() == nil && time.Now().Before(end) {
		events, err = c.Next(events[:0], mapQuiet)
	}
	return err
}

func (w *mapWatch) set(info ClusterInfo) {
	if reflect.DeepEqual(info, w.known) {
		return
	}
	w.known = info
	w.log.Debug("the cluster's configuration has changed", "name", info.Name, "version", info.Version, "nodes", len(info.Nodes))
	w.report(info)
}
