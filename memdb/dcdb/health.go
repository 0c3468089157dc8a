package dcdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

const (
	// retryWait is how long a database that failed again right after it had
	// been found to be well is left alone; twice as long each time, up to
	// maxRetryWait. Every attempt has the whole group synchronise.
	retryWait    = 5 * time.Second
	maxRetryWait = time.Minute
)

// health is the state of the database's file.
type health struct {
	err     atomic.Pointer[error] // why it can't be written; nil means it can, for all we know
	mu      sync.Mutex            // guards the rest
	since   time.Time             // of the first failure
	well    time.Time             // when it was last found to be well after a failure
	wait    time.Duration
	retryAt time.Time
}

// store carries out a transaction, after all that is not stored yet. An error makes
// the node leave the group until the file can be written again.
func (a *app) store(changes []memdb.Change) error {
	err := a.saver.flush(nil)
	if err == nil {
		if err = a.db.Commit(changes); err != nil {
			logFailure(a.log, "storing a synchronisation failed", len(changes), err)
			a.failing(err)
		}
	}
	if err != nil {
		return fmt.Errorf("dcdb: storing: %w", err)
	}
	return nil
}

// failing takes note of a transaction that failed.
func (a *app) failing(err error) {
	h, now := &a.health, a.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err.Load() == nil {
		h.since = now
	}
	h.retryAt = now
	if !h.well.IsZero() && now.Sub(h.well) < maxRetryWait {
		h.wait = min(max(2*h.wait, retryWait), maxRetryWait)
		h.retryAt = now.Add(h.wait)
	} else {
		h.wait = 0
	}
	h.err.Store(&err)
	a.log.Error("this node leaves the group until its database can be written", "error", err)
}

// logFailure says that a transaction failed. A full disk is the administrator's
// everyday business, anything else may be the end of the disk.
func logFailure(log *slog.Logger, text string, changes int, err error) {
	level, e := event.LevelCritical, event.DatabaseFailed
	if errors.Is(err, syscall.ENOSPC) {
		level, e = slog.LevelError, event.DiskFull
	}
	log.Log(context.Background(), level, text, "changes", changes, "error", err, e.Attr())
}

// ready reports whether the group may be joined: not while the database can't be
// written.
func (a *app) ready() error {
	h := &a.health
	last := h.err.Load()
	if last == nil {
		return nil
	}
	now := a.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.retryAt) {
		return *last
	}
	// The version row as it is: nothing changes, but all of a transaction happens.
	root := a.tree.Root()
	if err := a.db.Commit([]memdb.Change{{Inode: memdb.RootInode, Old: root, New: root}}); err != nil {
		h.err.Store(&err)
		return err
	}
	h.err.Store(nil)
	a.saver.well()
	h.well = now
	a.log.Log(context.Background(), event.LevelNotice, "the database can be written again", "since", h.since,
		event.DatabaseRecovered.Attr("failing", now.Sub(h.since)))
	return nil
}
