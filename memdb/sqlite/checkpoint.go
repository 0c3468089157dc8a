package sqlite

import (
	"database/sql/driver"
	"fmt"
	"time"

	"pmxcfs/internal/event"
)

const (
	pageSize = 4096

	// checkpointBytes is about how much is written to the log before a
	// checkpoint.
	checkpointBytes = 8 << 20

	// longLog is the log's length in pages from which a checkpoint may hold up
	// the writer to reach the log's end.
	longLog = 12 << 20 / pageSize

	// maxLog is the size of the log's file in bytes from which the writer waits
	// for a checkpoint: it outruns the disk.
	maxLog = 24 << 20

	// hugeLog is the log's length in pages that is worth a warning.
	hugeLog = 64 << 20 / pageSize
)

func (db *DB) wakeCheckpointer() {
	select {
	case db.wake <- struct{}{}:
	default:
	}
}

// boundLog waits for a checkpoint if the log has become too long. mu is held,
// and released while waiting. It waits for one checkpoint and no more: one that
// fails, or that a reader of old pages keeps from its end, holds nobody up.
func (db *DB) boundLog() {
	if db.unlooked < 1<<20 {
		return
	}
	db.unlooked = 0
	st, err := db.wal.Stat()
	if err != nil || st.Size() < maxLog {
		return
	}
	db.wakeCheckpointer()
	for round := db.rounds; db.rounds == round && !db.closed; {
		db.checkpointed.Wait()
	}
}

// checkpointer copies the log into the main file whenever it has grown enough.
func (db *DB) checkpointer() {
	defer db.done.Done()
	var c conn
	defer func() { c.Close() }()
	reported := false
	for {
		select {
		case <-db.quit:
			return
		case <-db.wake:
		}
		begin := time.Now()
		err := db.checkpoint(&c)
		if err == nil {
			reported = false
			db.obs.Checkpointed(time.Since(begin))
			db.stats.Checkpoints.Add(1)
		} else {
			if !reported { // it is tried again with the next few megabytes
				db.log.Error("checkpoint failed", "path", db.path, "error", err, event.CheckpointFailed.Attr())
				reported = true
			}
			c.Close()
			c = conn{}
		}
		db.mu.Lock()
		db.rounds++
		db.mu.Unlock()
		db.checkpointed.Broadcast()
	}
}

func (db *DB) checkpoint(c *conn) error {
	if c.SQLiteConn == nil {
		// Never bring the log of one file into another one.
		db.mu.Lock()
		err := db.look()
		db.mu.Unlock()
		if err != nil {
			return err
		}
		opened, err := open(db.path, "rw")
		if err != nil {
			return err
		}
		*c = opened
		if err := c.exec("PRAGMA synchronous=NORMAL"); err != nil {
			return err
		}
	}
	pages, _, err := c.checkpoint()
	if err != nil || pages < longLog {
		return err
	}
	// Writers have added pages meanwhile, and would for ever: copy these few
	// while they wait, so that the next one begins the log anew.
	db.mu.Lock()
	defer db.mu.Unlock()
	pages, copied, err := c.checkpoint()
	if err != nil {
		return err
	}
	if huge := pages >= hugeLog && copied < pages; huge != db.huge {
		db.huge = huge
		if huge {
			db.log.Warn("another program's open transaction keeps the write-ahead log growing", "path", db.path, "bytes", pages*pageSize)
		}
	}
	return nil
}

// checkpoint copies as much of the log as it can without waiting for anyone, and
// returns the log's length in pages and how many of them are in the main file.
func (c conn) checkpoint() (pages, copied int64, err error) {
	err = c.query("PRAGMA wal_checkpoint(PASSIVE)", func(row []driver.Value) error {
		var ok, ok2 bool
		pages, ok = row[1].(int64)
		copied, ok2 = row[2].(int64)
		if !ok || !ok2 {
			return fmt.Errorf("unexpected answer to wal_checkpoint: %v", row)
		}
		return nil
	})
	return pages, copied, err
}
