package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/memdb"
)

// Config says how to open a database.
type Config struct {
	Path  string           // of config.db; its directory must exist
	Log   *slog.Logger     // nil: no log
	Clock func() time.Time // nil: time.Now; only for the version row of a new file
}

// DB is an open database file. Commit is called by one goroutine at a time;
// the other methods from any.
type DB struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // held for a commit, and for the end of a checkpoint
	w       *writer    // nil after a failure that damaged the connection
	version uint64     // the version that the file holds
	unsaved int64      // bytes written to the log since the last checkpoint began, about

	stats Stats
	wal   *os.File // the log, for Sync; replaced under mu

	wake chan struct{} // to the checkpointer
	quit chan struct{}
	done sync.WaitGroup
}

// Stats counts what a DB has done. Fields may be read at any time.
type Stats struct {
	Transactions atomic.Int64
	Rows         atomic.Int64 // written or deleted, version rows not counted
	Bytes        atomic.Int64 // of content in the rows written
	Failed       atomic.Int64 // transactions
	Checkpoints  atomic.Int64
	Syncs        atomic.Int64
}

// Open opens the database at cfg.Path, or makes a new, empty one, and returns
// its entries, the root first, ascending by inode. Created tells whether the
// file is new. An error is an *Error around SQLite's, or a *memdb.LoadError
// that names the rows that are wrong.
func Open(cfg Config) (db *DB, entries []*memdb.Entry, created bool, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	db = &DB{path: cfg.Path, log: cfg.Log, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	created, err = createFile(cfg.Path)
	if err != nil {
		return nil, nil, false, err
	}
	w, err := openWriter(cfg.Path)
	if err != nil {
		return nil, nil, false, db.failed("opening the database", err)
	}
	entries, problems, err := w.c.readEntries()
	if err == nil && len(entries) == 0 && len(problems) == 0 {
		created = true
		err = w.insertVersion(uint32(cfg.Clock().Unix()))
		entries = []*memdb.Entry{memdb.NewEntry(memdb.RootInode, memdb.RootInode, 1, 0, uint32(cfg.Clock().Unix()), memdb.TypeDir, "", nil)}
	}
	if err != nil {
		return nil, nil, false, errors.Join(db.failed("loading", err), w.close())
	}
	for _, p := range problems {
		if p.Fatal {
			return nil, nil, false, errors.Join(fmt.Errorf("%s: %w", cfg.Path, &memdb.LoadError{Problems: problems}), w.close())
		}
		db.log.Warn("odd row in the database", "path", cfg.Path, "row", p.String())
	}
	db.w = w
	if entries[0].Inode == memdb.RootInode {
		db.version = entries[0].Version
	}
	if err := db.openLog(); err != nil {
		return nil, nil, false, errors.Join(err, w.close())
	}
	db.done.Add(1)
	go db.checkpointer()
	return db, entries, created, nil
}

// createFile makes an empty file of mode 0600 if there is none.
func createFile(path string) (created bool, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("creating the database: %w", err)
	}
	if err := f.Close(); err != nil {
		return false, fmt.Errorf("creating the database: %w", err)
	}
	return true, syncDir(filepath.Dir(path))
}

// syncDir brings a directory's entries to the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openLog opens the write-ahead log, which exists as long as the writer's
// connection does. No lock of SQLite's is on that file, so closing another
// descriptor of it gives none away.
func (db *DB) openLog() error {
	f, err := os.OpenFile(db.path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the write-ahead log: %w", err)
	}
	if db.wal != nil {
		db.wal.Close()
	}
	db.wal = f
	return nil
}

// Path returns the file's path.
func (db *DB) Path() string { return db.path }

// Stats returns the counters, which go on counting.
func (db *DB) Stats() *Stats { return &db.stats }

// Close brings everything into the main file and closes it.
func (db *DB) Close() error {
	close(db.quit)
	db.done.Wait()
	db.mu.Lock()
	defer db.mu.Unlock()
	var errs []error
	if db.w != nil {
		errs = append(errs, db.w.close())
		db.w = nil
	}
	return errors.Join(append(errs, db.wal.Close())...)
}

// Sync returns when everything committed before has reached the disk.
func (db *DB) Sync() error {
	db.mu.Lock()
	wal := db.wal
	db.mu.Unlock()
	db.stats.Syncs.Add(1)
	// What is no longer in the log has been synced to the main file by the
	// checkpoint that let the log begin anew.
	if err := wal.Sync(); err != nil {
		return db.failed("syncing the write-ahead log", err)
	}
	return nil
}

func (db *DB) failed(call string, err error) error {
	return &Error{Path: db.path, Call: call, Err: err}
}

// writer is the connection that writes, with its statements.
type writer struct {
	c        conn
	begin    *stmt
	commit   *stmt
	rollback *stmt
	replace  *stmt // a whole row
	update   *stmt // a row whose data stays
	remove   *stmt
	setRoot  *stmt
}

func openWriter(path string) (*writer, error) {
	c, err := open(path, "rw")
	if err != nil {
		return nil, err
	}
	w := &writer{c: c}
	if err := w.setup(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return w, nil
}

func (w *writer) setup() error {
	for _, pragma := range []string{
		"PRAGMA journal_mode=WAL",
		"PRAGMA synchronous=NORMAL",
		"PRAGMA wal_autocheckpoint=0",
		"PRAGMA journal_size_limit=16777216",
		"PRAGMA cache_size=-1024",
		schema,
	} {
		if err := w.c.exec(pragma); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	for query, s := range map[string]**stmt{
		"BEGIN IMMEDIATE": &w.begin,
		"COMMIT":          &w.commit,
		"ROLLBACK":        &w.rollback,
		"REPLACE INTO tree (inode, parent, version, writer, mtime, type, name, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)": &w.replace,
		"UPDATE tree SET parent=?, version=?, writer=?, mtime=?, name=? WHERE inode=?":                                &w.update,
		"DELETE FROM tree WHERE inode=?":                             &w.remove,
		"UPDATE tree SET version=?, writer=?, mtime=? WHERE inode=0": &w.setRoot,
	} {
		p, err := w.c.prepare(query)
		if err != nil {
			return err
		}
		*s = p
	}
	return nil
}

func (w *writer) close() error {
	for _, s := range []*stmt{w.begin, w.commit, w.rollback, w.replace, w.update, w.remove, w.setRoot} {
		if s != nil {
			s.Close()
		}
	}
	return w.c.Close()
}

// insertVersion gives a new file its version row.
func (w *writer) insertVersion(mtime uint32) error {
	_, err := w.replace.run(int64(0), int64(0), int64(1), int64(0), int64(mtime), int64(memdb.TypeFile), versionName, nil)
	return err
}

// fileVersion reads the database's version from the file.
func (w *writer) fileVersion() (version uint64, err error) {
	err = w.c.query("SELECT version FROM tree WHERE inode=0", func(row []driver.Value) error {
		if v, ok := row[0].(int64); ok {
			version = uint64(v)
		}
		return nil
	})
	return version, err
}
