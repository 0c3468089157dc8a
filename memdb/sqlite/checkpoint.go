package sqlite

import (
	"database/sql/driver"
	"fmt"
)

const (
	pageSize = 4096

	// checkpointBytes is how much is written to the log before a checkpoint.
	checkpointBytes = 4 << 20

	// longLog is the log's length in pages from which a checkpoint may hold up
	// the writer to reach the log's end.
	longLog = 16 << 20 / pageSize
)

// checkpointer copies the log into the main file whenever it has grown enough.
func (db *DB) checkpointer() {
	defer db.done.Done()
	var c conn
	defer func() {
		if c.SQLiteConn != nil {
			c.Close()
		}
	}()
	reported := false
	for {
		select {
		case <-db.quit:
			return
		case <-db.wake:
		}
		err := db.checkpoint(&c)
		if err == nil {
			reported = false
			db.stats.Checkpoints.Add(1)
			continue
		}
		if !reported { // it is tried again with the next few megabytes
			db.log.Error("checkpoint failed", "path", db.path, "error", err)
			reported = true
		}
		if c.SQLiteConn != nil {
			c.Close()
			c = conn{}
		}
	}
}

func (db *DB) checkpoint(c *conn) error {
	if c.SQLiteConn == nil {
		opened, err := open(db.path, "rw")
		if err != nil {
			return err
		}
		*c = opened
		if err := c.exec("PRAGMA synchronous=NORMAL"); err != nil {
			return err
		}
	}
	pages, err := c.checkpoint()
	if err != nil || pages < longLog {
		return err
	}
	// Writers have added pages meanwhile, and would for ever: copy these few
	// while they wait, so that the next one begins the log anew.
	db.mu.Lock()
	defer db.mu.Unlock()
	_, err = c.checkpoint()
	return err
}

// checkpoint copies as much as it can without waiting for anyone, and returns
// the log's length in pages.
func (c conn) checkpoint() (pages int64, err error) {
	err = c.query("PRAGMA wal_checkpoint(PASSIVE)", func(row []driver.Value) error {
		n, ok := row[1].(int64)
		if !ok {
			return fmt.Errorf("unexpected answer to wal_checkpoint: %v", row)
		}
		pages = n
		return nil
	})
	return pages, err
}
