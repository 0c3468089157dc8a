package memdb

import (
	"sync"
	"sync/atomic"
	"time"
)

// Figures are what a tree counts.
type Figures struct {
	Version      uint64    // the database's
	Entries      int       // the root included
	Bytes        int64     // of content in all files
	Guests       int       // in the VM list
	Locks        int       // held; one that nobody has looked at yet is not counted
	ExpiredLocks int       // of them
	OldestLock   time.Time // when this node first saw the oldest one as it is; zero: there is none
}

// figures are what Figures is made of, published after each change: reading them takes
// no lock of the tree.
type figures struct {
	changes         atomic.Uint64
	version         atomic.Uint64
	entries, guests atomic.Int64
	bytes           atomic.Int64
	locks           sync.Map // time.Time by path: since when a lock's state has been known
}

// publish brings the figures up to date. mu is held.
func (t *Tree) publish() {
	f := &t.figures
	f.changes.Add(1)
	f.version.Store(t.root.e.Version)
	f.entries.Store(int64(len(t.nodes)))
	f.guests.Store(int64(len(t.guests.ids)))
	f.bytes.Store(t.bytes)
}

// Version returns the database's version. Like Figures, it waits for nobody.
func (t *Tree) Version() uint64 { return t.figures.version.Load() }

// Changes returns a number that is another after each change of the tree, one that is taken back
// included. Whoever asks for it before he reads, and again later, knows whether what he read still
// holds. It waits for nobody.
func (t *Tree) Changes() uint64 { return t.figures.changes.Load() }

// Figures returns the figures at a time near now. It waits for nobody, and nobody waits
// for it.
func (t *Tree) Figures(now time.Time) Figures {
	f := Figures{
		Version: t.figures.version.Load(),
		Entries: int(t.figures.entries.Load()),
		Bytes:   t.figures.bytes.Load(),
		Guests:  int(t.figures.guests.Load()),
	}
	for _, v := range t.figures.locks.Range {
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
