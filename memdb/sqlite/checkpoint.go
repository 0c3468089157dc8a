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

	// maxRestTime is how long, in the end, the copy of all of the log waits for the next
	// try, if another program's open transaction is in the way.
	maxRestTime = time.Minute

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
// fails, or that a reader of old pages delays, does not hold up the writer.
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

// restless notes that something was written to the log. mu is held. An idle daemon is
// not woken: the checkpointer's clock only runs from the first transaction to the
// checkpoint after the last.
func (db *DB) restless(now time.Time) {
	db.changed = now
	if db.rested {
		db.rested = false
		db.rest <- struct{}{} // there is room: it was empty when rested was set
	}
}

// checkpointer copies the log into the main file whenever it has grown enough, and
// when nothing has changed for a while.
func (db *DB) checkpointer() {
	defer db.done.Done()
	defer func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.copier.Close()
	}()
	reported := false
	clock := time.NewTimer(0)
	clock.Stop()
	wait := db.restTime
	for {
		resting := false
		select {
		case <-db.quit:
			clock.Stop()
			return
		case <-db.wake:
		case <-db.rest:
			clock.Reset(db.restTime)
			continue
		case <-clock.C:
			db.mu.Lock()
			left := db.restTime - time.Since(db.changed)
			db.mu.Unlock()
			if left > 0 {
				wait = db.restTime
				clock.Reset(left)
				continue
			}
			resting = true
		}
		begin := time.Now()
		whole, err := db.checkpoint()
		if err == nil {
			reported = false
			db.obs.Checkpointed(time.Since(begin))
			db.stats.Checkpoints.Add(1)
		} else if !reported { // it is tried again with the next few megabytes
			db.log.Error("checkpoint failed", "path", db.path, "error", err, event.CheckpointFailed.Attr())
			reported = true
		}
		if resting && !db.atRest(whole, begin) {
			clock.Reset(wait)
			wait = min(2*wait, maxRestTime)
		}
		db.mu.Lock()
		db.rounds++
		db.mu.Unlock()
		db.checkpointed.Broadcast()
	}
}

// atRest ends the checkpointer's watch, if everything that was written is in the main
// file.
func (db *DB) atRest(whole bool, since time.Time) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if whole && db.changed.Before(since) {
		db.rested = true
		if db.w != nil {
			_ = db.w.c.Do("PRAGMA shrink_memory") // its cache; a wish that can't fail
		}
	}
	return db.rested
}

// checkpoint copies the log, and reports whether all of it was copied.
func (db *DB) checkpoint() (whole bool, err error) {
	// Never bring the log of one file into another one.
	db.mu.Lock()
	err = db.look()
	c := db.copier
	if err == nil && c.SQLiteConn == nil {
		if c, err = open(db.path, "rw"); err == nil {
			err = c.Do("PRAGMA synchronous=NORMAL")
			db.copier = c
		}
	}
	db.copying = true
	db.mu.Unlock()
	var pages, copied int64
	if err == nil {
		pages, copied, err = c.checkpoint()
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.copying = false
	if err == nil && pages >= longLog {
		// Writers have added pages meanwhile, and would for ever: copy these few
		// while they wait, so that the next one begins the log anew.
		if pages, copied, err = c.checkpoint(); err == nil {
			if huge := pages >= hugeLog && copied < pages; huge != db.huge {
				db.huge = huge
				if huge {
					db.log.Warn("another program's open transaction keeps the write-ahead log growing", "path", db.path, "bytes", pages*pageSize)
				}
			}
		}
	}
	if err != nil {
		db.copier.Close()
		db.copier = conn{}
	}
	return err == nil && copied >= pages, err
}

// checkpoint copies as much of the log as it can without waiting for anyone, and
// returns the log's length in pages and how many of them are in the main file.
func (c conn) checkpoint() (pages, copied int64, err error) {
	err = c.Each("PRAGMA wal_checkpoint(PASSIVE)", func(row []driver.Value) error {
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
