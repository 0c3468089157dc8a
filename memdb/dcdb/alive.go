package dcdb

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/memdb"
)

// clocked is a Database that tells how long its present transaction has lasted, and
// whether there is room for more. There is one transaction at a time.
type clocked struct {
	Database
	epoch time.Time
	began atomic.Int64 // nanoseconds after epoch; 0 means there is none

	free   func() (uint64, error) // nil means there is always room
	looked time.Time              // when free was last asked; used within a transaction
	little atomic.Bool            // there is little room
}

const (
	// roomLook is how often, at most, the room on the disk is looked at.
	roomLook = time.Second
	// littleRoom is what counts as little: what waits to be stored, and the log of a
	// database that is being checkpointed.
	littleRoom = 32 << 20
	// noRoom is less than a few changes need. One may still fit into what the log has
	// let go of, and the next may not.
	noRoom = 64 << 10
)

func newClocked(db Database, free func() (uint64, error)) *clocked {
	c := &clocked{Database: db, epoch: time.Now(), free: free}
	c.look()
	return c
}

func (c *clocked) Commit(changes []memdb.Change) error {
	c.began.Store(max(1, int64(time.Since(c.epoch))))
	defer c.began.Store(0)
	err := c.Database.Commit(changes)
	c.look() // it may hang as a transaction may
	return err
}

// look finds out how much room there is, now and then.
func (c *clocked) look() {
	if c.free == nil {
		return
	}
	now := time.Now()
	if !c.looked.IsZero() && now.Sub(c.looked) < roomLook {
		return
	}
	c.looked = now
	bytes, err := c.free()
	c.little.Store(err == nil && bytes < littleRoom)
}

// short reports whether there is little room.
func (c *clocked) short() bool { return c.little.Load() }

// full reports whether there is no room at all, as of now.
func (c *clocked) full() bool {
	if c.free == nil {
		return false
	}
	bytes, err := c.free()
	return err == nil && bytes < noRoom
}

// busy returns for how long the present transaction has lasted; 0 means none.
func (c *clocked) busy() time.Duration {
	began := c.began.Load()
	if began == 0 {
		return 0
	}
	return max(1, time.Since(c.epoch)-time.Duration(began))
}

// Waits describes a store's waiting for things outside the daemon.
type Waits struct {
	// Disk is for how long the present transaction has been in the database; 0:
	// there is none.
	Disk time.Duration
	// Corosync is for how long the store's goroutine has been in its present call
	// of corosync's library; 0 means it is in none.
	Corosync time.Duration
	// Deliveries are the changes that have been sent and have not come back. Each
	// ends after ten seconds at the latest.
	Deliveries int
}

// Ping returns nil when everything applied before is in the file, or was taken
// back: the store makes progress. The only error is ctx's.
func (l *Local) Ping(ctx context.Context) error {
	err := l.c.flush(ctx.Done())
	if errors.Is(err, syscall.EINTR) && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil // a transaction that failed was one
}

// Waits returns the things that the store waits for.
func (l *Local) Waits() Waits { return Waits{Disk: l.db.busy()} }

// Ping returns nil when the goroutine that applies changes has come around once
// more. The only error is ctx's.
func (c *Cluster) Ping(ctx context.Context) error { return c.group.Ping(ctx) }

// Waits returns the things that the store waits for.
func (c *Cluster) Waits() Waits {
	return Waits{Disk: c.app.db.busy(), Corosync: c.group.Outside(), Deliveries: c.group.Status().Waiting}
}
