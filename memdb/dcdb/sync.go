package dcdb

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"pmxcfs/dfsm"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

// behind is the state of a node that is behind, during a sync.
type behind struct {
	leader   []byte // the leader's index
	from     dfsm.Member
	winners  []dfsm.Member // who has the leader's tree
	index    *memdb.Index
	updates  map[uint64]*memdb.Entry // by inode
	received int
	volume   *Volume
	odd      int // updates that are none of the leader's entries
}

// State implements dfsm.Application: the tree's index, of what is stored: a change
// that was taken back after the others have counted on it could be lost to all.
func (a *app) State() ([]byte, error) {
	if err := a.saver.flush(nil); err != nil {
		return nil, fmt.Errorf("dcdb: storing what the state holds: %w", err)
	}
	if err := a.health.err.Load(); err != nil {
		return nil, *err
	}
	return a.tree.Index(), nil
}

// ProcessStates implements dfsm.Application. All nodes choose the same leader:
// the greatest version, then the youngest, then the first.
func (a *app) ProcessStates(states []dfsm.MemberState) (dfsm.Sync, error) {
	indexes, err := decodeIndexes(states)
	if err != nil {
		return dfsm.Sync{}, err
	}
	lead, self := 0, -1
	for i := range states {
		if rank(states[i].State, states[lead].State) > 0 {
			lead = i
		}
		if states[i].Self {
			self = i
		}
	}
	if self < 0 {
		return dfsm.Sync{}, errors.New("dcdb: no state of our own")
	}
	// A plain error, not a fatal one: the member that sends this may leave again.
	if err := indexes[lead].Storable(); err != nil {
		return dfsm.Sync{}, fmt.Errorf("dcdb: the tree of %v can't be followed: %w", states[lead].Member, err)
	}
	leader := states[lead].State
	sync := dfsm.Sync{Synced: make([]bool, len(states)), Leader: lead == self}
	var synced []dfsm.Member
	for i := range states {
		if sync.Synced[i] = bytes.Equal(states[i].State, leader); sync.Synced[i] {
			synced = append(synced, states[i].Member)
		}
	}
	a.log.Info("leader is "+states[lead].Member.String(), event.Fields("leader", states[lead].Member.String()))
	a.log.Info("synced members: "+dfsm.FormatMembers(synced), event.Fields("synced", dfsm.FormatMembers(synced)))
	a.sync = nil
	switch {
	case sync.Leader:
		a.log.Info("start sending inode updates")
		sync.Updates, err = a.lacking(leader, indexes, sync.Synced)
	case !sync.Synced[self]:
		a.log.Log(context.Background(), event.LevelNotice, "waiting for updates from leader",
			event.Behind.Attr("leader", states[lead].Member.String(), "version", a.tree.Root().Version, "leader_version", indexes[lead].Version))
		a.sync = &behind{leader: leader, from: states[lead].Member, winners: synced, index: indexes[lead], updates: make(map[uint64]*memdb.Entry), volume: &a.stats.Received[a.reason()]}
	}
	return sync, err
}

// decodeIndexes takes all states apart. Members with the same state share the
// result.
func decodeIndexes(states []dfsm.MemberState) ([]*memdb.Index, error) {
	indexes := make([]*memdb.Index, len(states))
	var distinct []int
	for i := range states {
		if j := slices.IndexFunc(distinct, func(j int) bool { return bytes.Equal(states[i].State, states[j].State) }); j >= 0 {
			indexes[i] = indexes[distinct[j]]
			continue
		}
		x, err := memdb.DecodeIndex(states[i].State)
		if err != nil {
			return nil, fmt.Errorf("state of %v: %w", states[i].Member, err)
		}
		indexes[i] = x
		distinct = append(distinct, i)
	}
	return indexes, nil
}

// rank compares two well-formed indexes: the greater one leads.
func rank(a, b []byte) int {
	le := binary.LittleEndian
	return cmp.Or(cmp.Compare(le.Uint64(a), le.Uint64(b)), cmp.Compare(le.Uint32(a[20:]), le.Uint32(b[20:])))
}

// lacking returns the entries that some member lacks or has in another state.
func (a *app) lacking(leader []byte, indexes []*memdb.Index, synced []bool) (dfsm.Updates, error) {
	entries := a.tree.Entries()
	if !bytes.Equal(memdb.EncodeIndex(entries), leader) {
		return nil, errors.New("dcdb: the tree is not in the state that was sent")
	}
	send := make([]bool, len(entries))
	n := 0
	seen := make(map[*memdb.Index]bool)
	for i, x := range indexes {
		if synced[i] || seen[x] {
			continue
		}
		seen[x] = true
		theirs := x.Entries
		for j, e := range entries {
			for len(theirs) > 0 && theirs[0].Inode < e.Inode {
				theirs = theirs[1:]
			}
			if !send[j] && (len(theirs) == 0 || theirs[0].Inode != e.Inode || theirs[0].Digest != e.IndexDigest()) {
				send[j] = true
				n++
			}
		}
	}
	u := &updates{log: a.log, sent: &a.stats.Sent[a.reason()], entries: make([]*memdb.Entry, 0, n)}
	for j, e := range entries {
		if send[j] {
			u.entries = append(u.entries, e)
		}
	}
	return u, nil
}

// updates makes the update messages while they are sent. Entries never change,
// so what is sent is the state that the group has agreed on.
type updates struct {
	log     *slog.Logger
	sent    *Volume
	entries []*memdb.Entry
	next    int
	buf     []byte
}

// Next implements dfsm.Updates.
func (u *updates) Next() ([]byte, bool) {
	if u.next == len(u.entries) {
		u.log.Info(fmt.Sprintf("sent all (%d) updates", u.next), event.Fields("updates", u.next))
		return nil, false
	}
	u.buf = appendUpdate(u.buf[:0], u.entries[u.next])
	u.next++
	u.sent.add(u.buf)
	return u.buf, true
}

// ApplyUpdates implements dfsm.Application. An update that is not the leader's
// entry by its digest is left out: what is missing then shows at the commit, and
// a member that is not the leader can't make us gather without bound.
func (a *app) ApplyUpdates(payloads [][]byte) error {
	s := a.sync
	if s == nil {
		return errors.New("dcdb: updates that nobody waits for")
	}
	for _, b := range payloads {
		e, err := decodeUpdate(b)
		if err != nil {
			return err
		}
		s.received++
		s.volume.add(b)
		i, ok := slices.BinarySearchFunc(s.index.Entries, e.Inode, func(x memdb.IndexEntry, inode uint64) int { return cmp.Compare(x.Inode, inode) })
		if !ok || s.index.Entries[i].Digest != e.IndexDigest() {
			if s.odd++; s.odd == 1 {
				a.log.Warn("received an update that is not the leader's entry", "inode", e.Inode, "name", e.Name)
			}
			continue
		}
		s.updates[e.Inode] = e
	}
	return nil
}

// Commit implements dfsm.Application: the old tree and the updates make the
// leader's. Readers see the old one until the new one is stored.
func (a *app) Commit() error {
	s := a.sync
	if s == nil {
		return errors.New("dcdb: nothing to commit")
	}
	a.log.Info(fmt.Sprintf("update complete - trying to commit (got %d inode updates)", s.received), event.Fields("updates", s.received))
	entries, changes, err := s.merge(a.tree.Entries())
	if err != nil {
		return fmt.Errorf("%w: %w", dfsm.ErrFatal, err)
	}
	next, dups, err := memdb.Build(entries)
	if err != nil {
		return fmt.Errorf("%w: %w", dfsm.ErrFatal, err)
	}
	if !bytes.Equal(memdb.EncodeIndex(entries), s.leader) {
		return fmt.Errorf("%w: %w", dfsm.ErrFatal, errMismatch)
	}
	for _, d := range dups {
		a.log.Error("a VMID is claimed twice", "vmid", d.VMID, "kept", d.Kept, "dropped", d.Dropped, event.Duplicate.Attr())
	}
	// Before it is gone from the file, too.
	a.keep(a.lost(changes, next, a.parted.shared(s.winners, s.updates, a.tree.Root().Version)))
	var list []memdb.Difference
	if a.recorder != nil {
		list = a.tree.Differences(next, changes)
	}
	if err := a.store(changes); err != nil {
		return err
	}
	before, after := a.tree.Root(), next.Root()
	a.replace(next)
	if a.recorder != nil {
		a.recorder.Synced(uint32(s.from.Node), before, after, list)
	}
	a.stats.Syncs.Add(1)
	return nil
}

// merge returns the entries that the leader's index names, and what changes by
// them.
func (s *behind) merge(old []*memdb.Entry) (entries []*memdb.Entry, changes []memdb.Change, err error) {
	entries = make([]*memdb.Entry, 0, len(s.index.Entries))
	changes = make([]memdb.Change, 0, len(s.updates))
	drop := func(e *memdb.Entry) { changes = append(changes, memdb.Change{Inode: e.Inode, Old: e}) }
	for _, x := range s.index.Entries {
		for len(old) > 0 && old[0].Inode < x.Inode {
			drop(old[0])
			old = old[1:]
		}
		var mine *memdb.Entry
		if len(old) > 0 && old[0].Inode == x.Inode {
			mine, old = old[0], old[1:]
		}
		theirs := s.updates[x.Inode]
		switch {
		case mine != nil && mine.IndexDigest() == x.Digest:
			entries = append(entries, mine)
		case theirs != nil:
			entries = append(entries, theirs)
			changes = append(changes, memdb.Change{Inode: x.Inode, Old: mine, New: theirs})
		default:
			return nil, nil, fmt.Errorf("%w: inode %d was not sent", errMismatch, x.Inode)
		}
	}
	for _, e := range old {
		drop(e)
	}
	return entries, changes, nil
}

// replace shows the new tree, and reports the changes.
func (a *app) replace(next *memdb.Tree) {
	changes := a.tree.Replace(next)
	a.tree.ObserveLocks(a.clock())
	// As if the changes from the new tree to the old one were rolled back.
	for i, c := range changes {
		changes[i].Old, changes[i].New = c.New, c.Old
	}
	a.calls.reset(changes, nil)
	if a.confChanged != nil {
		a.confChanged(false)
	}
}

// Cleanup implements dfsm.Application.
func (a *app) Cleanup() { a.sync = nil }
