package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
	"unsafe"

	"pmxcfs/memdb"
)

// Commit stores changes in one transaction: for each inode its last state. The
// root's change, which holds the database's new version, is among them if the
// version changes. When Commit returns nil, the transaction is in the file: it
// survives the end of this process. After an error (an *Error, which is also an
// errno) the file holds what it held before; the next Commit tries again.
func (db *DB) Commit(changes []memdb.Change) error {
	if len(changes) == 0 {
		return nil
	}
	begin := time.Now()
	db.mu.Lock()
	defer db.mu.Unlock()
	rows, bytes := db.stats.Rows.Load(), db.stats.Bytes.Load()
	db.boundLog()
	if db.closed {
		return db.failed("a transaction", fs.ErrClosed)
	}
	version := db.version
	for _, c := range changes {
		if c.Inode == memdb.RootInode {
			version = c.New.Version
		}
	}
	if err := db.tryCommit(changes, version); err != nil {
		db.stats.Failed.Add(1)
		return err
	}
	db.version = version
	db.inDoubt, db.mend = nil, nil
	db.stats.Transactions.Add(1)
	db.obs.Committed(int(db.stats.Rows.Load()-rows), int(db.stats.Bytes.Load()-bytes), time.Since(begin))
	db.wrote(2 * pageSize)
	db.restless(begin)
	if db.unsaved > checkpointBytes {
		db.unsaved = 0
		db.wakeCheckpointer()
	}
	return nil
}

func (db *DB) tryCommit(changes []memdb.Change, version uint64) error {
	if db.w != nil && time.Since(db.looked) > lookInterval {
		if err := db.look(); err != nil {
			return errors.Join(db.failed("looking at the file", err), db.disconnect())
		}
	}
	if db.w == nil {
		if err := db.reopen(); err != nil {
			return db.failed("opening the database again", err)
		}
	}
	call, err := db.transaction(changes)
	if err == nil {
		return nil
	}
	broken := damaged(err)
	if !db.w.c.AutoCommit() {
		if _, rerr := db.w.rollback.Run(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("and ROLLBACK: %w", rerr))
			broken = true
		}
	}
	// A COMMIT that reports a failure may have taken effect all the same: the
	// file decides.
	if call == "COMMIT" {
		got, verr := db.w.fileVersion()
		if verr == nil && got == version && version != db.version {
			db.log.Warn("COMMIT reported a failure, but the file holds the transaction", "path", db.path, "error", err)
			return nil
		}
		db.doubtful(changes)
		broken = broken || verr != nil
	}
	if broken {
		err = errors.Join(err, db.disconnect())
	}
	return db.failed(call, err)
}

// doubtful remembers the content of rows before a transaction whose COMMIT failed.
// Its pages may lie in the log, whole, and come to life when the log is read
// anew; until a later transaction takes their place in it.
func (db *DB) doubtful(changes []memdb.Change) {
	if db.inDoubt == nil {
		db.inDoubt = make(map[uint64]*memdb.Entry, len(changes))
	}
	for _, c := range changes {
		db.inDoubt[c.Inode] = c.Old
	}
}

// disconnect gives up the connection; the next use makes a new one.
func (db *DB) disconnect() error {
	err := db.w.close()
	db.w = nil
	return err
}

// reopen connects again after a failure, if the file still is the one, and holds
// what was last committed to it.
func (db *DB) reopen() error {
	if err := db.look(); err != nil {
		return err
	}
	w, err := openWriter(db.path)
	if err != nil {
		return err
	}
	got, err := w.fileVersion()
	if err == nil && db.inDoubt != nil {
		if got != db.version {
			db.log.Warn("a transaction that was reported as failed is in the file; it is taken back", "path", db.path, "version", got)
		}
		if err = w.undo(db.inDoubt); err == nil {
			got, err = w.fileVersion()
		}
	}
	if err == nil && got != db.version {
		err = db.otherVersion(got)
	}
	if err == nil {
		err = db.openLog()
	}
	if err == nil {
		db.others, err = w.c.otherTransactions()
	}
	if err != nil {
		return errors.Join(err, w.close())
	}
	db.w, db.inDoubt = w, nil
	return nil
}

// undo restores rows to their former content, in one transaction.
func (w *writer) undo(rows map[uint64]*memdb.Entry) error {
	return w.atomically(func() error {
		for inode, e := range rows {
			var err error
			switch {
			case inode == memdb.RootInode:
				_, err = w.replaceRow(e)
			case e == nil:
				_, err = w.remove.Run(int64(inode))
			default:
				_, err = w.replaceRow(e)
			}
			if err != nil {
				return fmt.Errorf("taking inode %d back: %w", inode, err)
			}
		}
		return nil
	})
}

// atomically runs f in a transaction.
func (w *writer) atomically(f func() error) error {
	_, err := w.begin.Run()
	if err != nil {
		return err
	}
	if err = f(); err == nil {
		_, err = w.commit.Run()
	}
	if err != nil && !w.c.AutoCommit() {
		_, rerr := w.rollback.Run()
		err = errors.Join(err, rerr)
	}
	return err
}

// transaction runs one transaction, up to the call that failed.
func (db *DB) transaction(changes []memdb.Change) (call string, err error) {
	w := db.w
	if _, err := w.begin.Run(); err != nil {
		return "BEGIN", err
	}
	for _, e := range db.mend {
		if _, err := w.replaceRow(e); err != nil {
			return "mending the row of inode " + strconv.FormatUint(e.Inode, 10), err
		}
	}
	for i := range changes {
		if call, err := db.store(&changes[i]); err != nil {
			return call, err
		}
	}
	if _, err := w.commit.Run(); err != nil {
		return "COMMIT", err
	}
	return "", nil
}

// store writes one change.
func (db *DB) store(c *memdb.Change) (call string, err error) {
	w := db.w
	var (
		n int64
		e = c.New
	)
	switch {
	case c.Inode == memdb.RootInode:
		call = "UPDATE of the version"
		n, err = w.setRoot.Run(int64(e.Version), int64(e.Writer), int64(e.MTime), int64(db.version))
		if err == nil && n != 1 { // the lock keeps other daemons away that know of it
			got, verr := w.fileVersion()
			return call, errors.Join(db.otherVersion(got), verr)
		}
	case e == nil && c.Old == nil: // came and went
		return "", nil
	case e == nil:
		call = "DELETE"
		n, err = w.remove.Run(int64(c.Inode))
		db.wroteRow(0)
	case c.Old != nil && c.Old.Type == e.Type && sameBytes(c.Old.Data(), e.Data()):
		call = "UPDATE"
		n, err = w.update.Run(int64(e.Parent), int64(e.Version), int64(e.Writer), int64(e.MTime), e.Name, int64(e.Inode))
		db.wroteRow(0)
	default:
		call = "REPLACE"
		n, err = w.replaceRow(e)
		db.wroteRow(e.Size())
	}
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: the row of inode %d is missing", ErrChanged, c.Inode)
	}
	return call, err
}

// wroteRow counts a row written or deleted, with so many bytes of content.
func (db *DB) wroteRow(content int) {
	db.stats.Rows.Add(1)
	db.stats.Bytes.Add(int64(content))
	db.wrote(int64(content) + pageSize)
}

// wrote counts, roughly, the bytes written to the log.
func (db *DB) wrote(bytes int64) {
	db.unsaved += bytes
	db.unlooked += bytes
}

// replaceRow writes an entry's row; the root's is the version row.
func (w *writer) replaceRow(e *memdb.Entry) (int64, error) {
	if e.Inode == memdb.RootInode {
		return w.replace.Run(int64(0), int64(0), int64(e.Version), int64(e.Writer), int64(e.MTime), int64(memdb.TypeFile), versionName, nil)
	}
	var data driver.Value
	if e.Size() > 0 {
		data = e.Data()
	}
	return w.replace.Run(int64(e.Inode), int64(e.Parent), int64(e.Version), int64(e.Writer), int64(e.MTime), int64(e.Type), e.Name, data)
}

// sameBytes reports whether a and b are the same memory.
func sameBytes(a, b []byte) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}
