package memdb

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is a snapshot of a tree's counters.
type Stats struct {
	Version      uint64    // the database's
	Entries      int       // the root included
	Bytes        int64     // of content in all files
	Guests       int       // in the VM list
	Locks        int       // held; one that nobody has looked at yet is not counted
	ExpiredLocks int       // of them
	OldestLock   time.Time // when this node first saw the oldest one as it is; zero: there is none
}

// counts are the counters behind Stats, published after each change: reading them takes no
// lock of the tree.
type counts struct {
	changes         atomic.Uint64
	version         atomic.Uint64
	entries, guests atomic.Int64
	bytes           atomic.Int64
	locks           sync.Map // time.Time by path: since when a lock's state has been known
}

// publish updates the counters. mu is held.
func (t *Tree) publish() {
	f := &t.counts
	f.changes.Add(1)
	f.version.Store(t.root.e.Version)
	f.entries.Store(int64(len(t.nodes)))
	f.guests.Store(int64(len(t.guests.ids)))
	f.bytes.Store(t.bytes)
}

// Version returns the database's version. Like Stats, it takes no lock.
func (t *Tree) Version() uint64 { return t.counts.version.Load() }

// Changes returns a number that differs after each change of the tree, and after each change
// that is rolled back. A reader that compares it before and after reading knows whether the
// result still holds. It takes no lock.
func (t *Tree) Changes() uint64 { return t.counts.changes.Load() }

// Stats returns the counters at a time near now. It takes no lock.
func (t *Tree) Stats(now time.Time) Stats {
	f := Stats{
		Version: t.counts.version.Load(),
		Entries: int(t.counts.entries.Load()),
		Bytes:   t.counts.bytes.Load(),
		Guests:  int(t.counts.guests.Load()),
	}
	for _, v := range t.counts.locks.Range {
		since := v.(time.Time)
		f.Locks++
		if (Lock{Since: since}).Expired(now) {
			f.ExpiredLocks++
		}
		if f.OldestLock.IsZero() || since.Before(f.OldestLock) {
			f.OldestLock = since
		}
	}
	return f
}
