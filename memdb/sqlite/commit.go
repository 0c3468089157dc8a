package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"unsafe"

	"pmxcfs/memdb"
)

// Commit stores changes in one transaction: for each inode its last state. The
// root's change, which holds the database's new version, must be among them. When
// Commit returns nil, the transaction is in the file: it survives the end of
// this process. After an error (an *Error, which is also an errno) the file holds
// what it held before.
func (db *DB) Commit(changes []memdb.Change) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	version := db.version
	for _, c := range changes {
		if c.Inode == memdb.RootInode {
			version = c.New.Version
		}
	}
	err := db.tryCommit(changes, version)
	if err != nil {
		db.stats.Failed.Add(1)
		return err
	}
	db.version = version
	db.stats.Transactions.Add(1)
	if db.unsaved += 2 * pageSize; db.unsaved > checkpointBytes {
		db.unsaved = 0
		select {
		case db.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

func (db *DB) tryCommit(changes []memdb.Change, version uint64) error {
	if db.w == nil {
		if err := db.reopen(); err != nil {
			return err
		}
	}
	call, err := db.transaction(changes)
	if err == nil {
		return nil
	}
	if !db.w.c.AutoCommit() {
		if _, rerr := db.w.rollback.run(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("and ROLLBACK: %w", rerr))
		}
	}
	// A COMMIT that reports a failure may have taken effect all the same: the
	// file decides.
	if call == "COMMIT" {
		if got, verr := db.w.fileVersion(); verr == nil && got == version {
			db.log.Warn("COMMIT reported a failure, but the file holds the transaction", "error", err)
			return nil
		}
	}
	if damaged(err) {
		db.w.close()
		db.w = nil
	}
	return db.failed(call, err)
}

// reopen connects again after a failure, if the file still holds what was last
// committed to it.
func (db *DB) reopen() error {
	w, err := openWriter(db.path)
	if err != nil {
		return db.failed("opening the database again", err)
	}
	got, err := w.fileVersion()
	if err == nil && got != db.version {
		err = fmt.Errorf("%w: it holds version %d, expected was %d", ErrChanged, got, db.version)
	}
	if err == nil {
		err = db.openLog()
	}
	if err != nil {
		return errors.Join(db.failed("opening the database again", err), w.close())
	}
	db.w = w
	return nil
}

// transaction runs one transaction, up to the call that failed.
func (db *DB) transaction(changes []memdb.Change) (call string, err error) {
	w := db.w
	if _, err := w.begin.run(); err != nil {
		return "BEGIN", err
	}
	for _, c := range changes {
		if call, err := db.store(c); err != nil {
			return call, err
		}
	}
	if _, err := w.commit.run(); err != nil {
		return "COMMIT", err
	}
	return "", nil
}

// store writes one change.
func (db *DB) store(c memdb.Change) (call string, err error) {
	w := db.w
	var (
		n int64
		e = c.New
	)
	switch {
	case c.Inode == memdb.RootInode:
		call = "UPDATE of the version"
		n, err = w.setRoot.run(int64(e.Version), int64(e.Writer), int64(e.MTime))
	case e == nil && c.Old == nil: // came and went
		return "", nil
	case e == nil:
		call = "DELETE"
		n, err = w.remove.run(int64(c.Inode))
		db.stats.Rows.Add(1)
	case c.Old != nil && sameBytes(c.Old.Data(), e.Data()):
		call = "UPDATE"
		n, err = w.update.run(int64(e.Parent), int64(e.Version), int64(e.Writer), int64(e.MTime), e.Name, int64(e.Inode))
		db.stats.Rows.Add(1)
	default:
		call = "REPLACE"
		n, err = w.replaceRow(e)
		db.stats.Rows.Add(1)
		db.stats.Bytes.Add(int64(e.Size()))
		db.unsaved += int64(e.Size())
	}
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: the row of inode %d is missing", ErrChanged, c.Inode)
	}
	return call, err
}

func (w *writer) replaceRow(e *memdb.Entry) (int64, error) {
	var data driver.Value
	if e.Size() > 0 {
		data = e.Data()
	}
	return w.replace.run(int64(e.Inode), int64(e.Parent), int64(e.Version), int64(e.Writer), int64(e.MTime), int64(e.Type), e.Name, data)
}

// sameBytes reports whether a and b are the same memory.
func sameBytes(a, b []byte) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}
