package dcdb

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"slices"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

// When both sides of a split have made changes, one tree wins as a whole. What is lost
// by that on this node is kept: what was made or written here after the node had last been in
// a group with those that have the winner's tree.

// SplitDir is the directory in which the daemon of a database keeps what splits have cost:
// one directory for each time, named by LostName.
func SplitDir(database string) string { return filepath.Join(filepath.Dir(database), "split") }

// LostName is the layout of the time with which the names of directories in SplitDir
// begin, in UTC.
const LostName = "20060102T150405Z"

// Lost is a file or a directory of this node's that a synchronisation replaces or drops, and
// that the winner never had.
type Lost struct {
	Path     string
	Entry    *memdb.Entry
	Replaced bool // by something else; false means it is gone
}

// parted is, by node, the version of this node's tree when the node was last in the
// group with it. The group's goroutine uses it.
type parted map[corosync.NodeID]uint64

// left notes the members that have left.
func (p parted) left(before, now []dfsm.Member, version uint64) {
	for _, m := range before {
		if !slices.ContainsFunc(now, func(n dfsm.Member) bool { return n.Node == m.Node }) {
			p[m.Node] = version
		}
	}
}

// shared returns the last version that this node's tree and the winner's have in common,
// as far as is known, and mine if there is no sign of a split. winners have the winner's tree.
func (p parted) shared(winners []dfsm.Member, updates map[uint64]*memdb.Entry, mine uint64) uint64 {
	common, known := uint64(0), false
	for _, m := range winners {
		if v, ok := p[m.Node]; ok {
			common, known = max(common, v), true
		}
	}
	if known {
		return common
	}
	// The daemon was not there at the time. Had this node only been away, all that the others
	// have changed since would be newer than what it has.
	common = mine
	for _, e := range updates {
		if e.Inode != memdb.RootInode && e.Version <= common {
			common = max(1, e.Version) - 1
		}
	}
	return common
}

// lost returns what the changes of a synchronisation, from a.tree to next, take away
// and the winner never had. A lock is no loss: its holder has lost it with the quorum.
func (a *app) lost(changes []memdb.Change, next *memdb.Tree, common uint64) (list []Lost) {
	for _, c := range changes {
		if c.Old == nil || c.Inode == memdb.RootInode || c.Old.Version <= common {
			continue
		}
		path, ok := a.tree.Path(c.Inode)
		if !ok || c.Old.IsDir() && filepath.Dir(path) == memdb.LockDir {
			continue
		}
		there, ok := next.Lookup(path)
		if ok && there.IsDir() == c.Old.IsDir() && bytes.Equal(there.Data(), c.Old.Data()) {
			continue
		}
		list = append(list, Lost{path, c.Old, ok})
	}
	return list
}

// keep saves the lost files and logs that.
func (a *app) keep(list []Lost) {
	if len(list) == 0 {
		return
	}
	const named = 10
	var paths []string
	for _, l := range list[:min(named, len(list))] {
		paths = append(paths, l.Path)
	}
	fields := []any{"entries", len(list), "paths", paths, "leader", a.sync.from.String()}
	if a.keepLost == nil {
		a.log.Warn("both sides of a split have changed the tree: what was made on this node's side is replaced by the leader's tree",
			append(fields, event.SplitLost.Attr())...)
		return
	}
	dir, err := a.keepLost(list)
	if err != nil {
		a.log.Error("both sides of a split have changed the tree: what was made on this node's side is replaced by the leader's tree, and can't be kept",
			append(fields, slog.Any("error", err), event.SplitLost.Attr())...)
		return
	}
	a.log.Warn("both sides of a split have changed the tree: what was made on this node's side is replaced by the leader's tree; it is kept",
		append(fields, "kept", dir, event.SplitLost.Attr("bring_back", "cp "+dir+"/PATH MOUNT/PATH"))...)
}
