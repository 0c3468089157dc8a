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

	"pmxcfs/internal/event"
	"pmxcfs/internal/sqlitedb"
	"pmxcfs/memdb"
)

// Config says how to open a database.
type Config struct {
	Path  string           // of config.db; its directory must exist
	Log   *slog.Logger     // nil means no log
	Clock func() time.Time // nil means time.Now; only for the version row of a new file

	Observer Observer // nil means none

	// Rest is how long nothing must have changed before all of the log is copied into
	// the main file, so that this alone holds everything: many a backup script copies
	// it alone. 0 means 5 s.
	Rest time.Duration
}

// Observer is told of successful operations. Its methods are called with locks held: they
// must be quick.
type Observer interface {
	// Committed tells of a transaction: the rows written or deleted, without the
	// version row, and the bytes of content in them.
	Committed(rows, bytes int, took time.Duration)
	// Synced tells of a sync of the log.
	Synced(took time.Duration)
	// Checkpointed tells of a checkpoint.
	Checkpointed(took time.Duration)
}

type nobody struct{}

func (nobody) Committed(int, int, time.Duration) {}
func (nobody) Synced(time.Duration)              {}
func (nobody) Checkpointed(time.Duration)        {}

// DB is an open database file. Commit is called by one goroutine at a time;
// the other methods from any.
type DB struct {
	path string   // without symbolic links
	link string   // as it was given
	lock *os.File // of the database's inode; see lock
	log  *slog.Logger
	obs  Observer

	mu      sync.Mutex // guards the fields below; held for a commit, and for the end of a checkpoint
	w       *writer    // nil after a failure that damaged the connection
	version uint64     // the version that the file holds
	file    fs.FileInfo
	looked  time.Time               // when path was last seen to be file
	others  int64                   // SQLite's count of other connections' transactions, when last looked at
	foreign bool                    // another program's transaction was reported
	mend    []*memdb.Entry          // whose rows are to be written as they should be, with the next transaction
	inDoubt map[uint64]*memdb.Entry // what rows held before transactions that failed but may come to life; nil means gone
	wal     *os.File                // the log, for Sync
	changed time.Time               // of the last transaction
	rested  bool                    // the checkpointer knows of no transaction that it has to wait for the end of
	copier  conn                    // the checkpointer's connection
	copying bool                    // copier is in use
	suspect bool                    // a sync of the log failed since the log was last copied
	closed  bool

	unsaved      int64     // bytes written to the log since the last checkpoint was asked for, about
	unlooked     int64     // bytes written to the log since its size was last looked at, about
	rounds       int64     // of the checkpointer, successful or not
	checkpointed sync.Cond // rounds or closed has changed
	huge         bool      // the log, at the last checkpoint

	stats Stats

	wake chan struct{} // to the checkpointer
	rest chan struct{} // to the checkpointer: there is something to copy when nothing changes any more

	restTime time.Duration
	quit     chan struct{}
	done     sync.WaitGroup
}

// lookInterval is how often, at most, commits make sure that the file is still
// where it was.
const lookInterval = time.Second

// Stats counts the work of a DB. Fields may be read at any time.
type Stats struct {
	Transactions atomic.Int64
	Rows         atomic.Int64 // written or deleted, version rows not counted
	Bytes        atomic.Int64 // of content in the rows written
	Failed       atomic.Int64 // transactions
	Checkpoints  atomic.Int64
	Syncs        atomic.Int64
	FailedSyncs  atomic.Int64
}

// Sizes returns the sizes of the main file and of the log on the disk, in bytes. It
// asks the file system, and waits for no writer.
func (db *DB) Sizes() (file, log int64, err error) {
	st, err := os.Stat(db.path)
	if err != nil {
		return 0, 0, err
	}
	file = st.Size()
	switch st, err = os.Stat(db.path + "-wal"); {
	case err == nil:
		log = st.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return 0, 0, err
	}
	return file, log, nil
}

// Open opens the database at cfg.Path, or makes a new, empty one, and returns
// its entries, the root first, ascending by inode. Created tells whether the
// file is new. An error is an *Error around SQLite's, one around ErrInUse, or a
// *memdb.LoadError that names the rows that are wrong; the file has not been changed
// then.
func Open(cfg Config) (db *DB, entries []*memdb.Entry, created bool, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.Rest == 0 {
		cfg.Rest = 5 * time.Second
	}
	path, err := Resolve(cfg.Path)
	if err != nil {
		return nil, nil, false, fmt.Errorf("finding the database %s: %w", cfg.Path, err)
	}
	db = &DB{path: path, link: cfg.Path, log: cfg.Log, obs: cfg.Observer, restTime: cfg.Rest,
		wake: make(chan struct{}, 1), rest: make(chan struct{}, 1), quit: make(chan struct{})}
	db.checkpointed.L = &db.mu
	wasEmpty, isNew := false, false
	if st, err := os.Stat(path); err == nil {
		wasEmpty = st.Size() == 0
	}
	traces := Traces(path)
	if isNew, err = createFile(path); err != nil {
		return nil, nil, false, err
	}
	if db.lock, err = lock(path); err != nil {
		return nil, nil, false, fmt.Errorf("%s: %w", path, err)
	}
	if entries, created, err = db.load(cfg); err != nil {
		return nil, nil, false, errors.Join(err, db.lock.Close())
	}
	if created {
		db.begunAnew(isNew, wasEmpty, traces)
	}
	db.looked = time.Now()
	db.rested = true
	db.mu.Lock()
	db.restless(time.Now()) // what an earlier run has left in the log
	db.mu.Unlock()
	db.done.Add(1)
	go db.checkpointer()
	return db, entries, created, nil
}

// begunAnew says that a tree is empty where it may not have been empty before.
func (db *DB) begunAnew(isNew, wasEmpty bool, traces []string) {
	switch {
	case wasEmpty:
		db.log.Warn("the database was empty, with 0 bytes: a new one with an empty tree was made", "path", db.path, "beside_it", traces, event.BegunAnew.Attr())
	case isNew && len(traces) > 0:
		db.log.Warn("there was no database, but traces of an earlier one: a new one with an empty tree was made", "path", db.path, "beside_it", traces, event.BegunAnew.Attr())
	}
}

// load opens the file, judges its rows and makes db ready to write.
func (db *DB) load(cfg Config) (entries []*memdb.Entry, created bool, err error) {
	if err := protect(db.path, db.log); err != nil {
		return nil, false, err
	}
	c, entries, mend, err := loadRows(db.path, db.log)
	if err != nil {
		return nil, false, err
	}
	w, err := newWriter(c)
	if err != nil {
		return nil, false, db.failed("opening the database", err)
	}
	if created = len(entries) == 0; created {
		now := uint32(cfg.Clock().Unix())
		entries = []*memdb.Entry{memdb.NewEntry(memdb.RootInode, memdb.RootInode, 1, 0, now, memdb.TypeDir, "", nil)}
		mend = entries
	}
	db.w, db.version = w, entries[0].Version
	for _, e := range mend {
		if e.Inode != memdb.RootInode {
			db.mend = append(db.mend, e)
			continue
		}
		// Every transaction counts on the version row.
		if _, err := w.replaceRow(e); err != nil {
			return nil, false, errors.Join(db.failed("writing the version", err), w.close())
		}
	}
	if db.file, err = db.lock.Stat(); err == nil {
		err = db.look()
	}
	if err == nil {
		err = db.openLog()
	}
	if err == nil {
		db.others, err = w.c.otherTransactions()
	}
	if err != nil {
		return nil, false, errors.Join(err, w.close())
	}
	return entries, created, nil
}

// loadRows reads a database file and judges its rows. A new file has none.
func loadRows(path string, log *slog.Logger) (c conn, entries, mend []*memdb.Entry, err error) {
	_, noLog := os.Stat(path + "-wal")
	c, err = openToWrite(path)
	if err != nil {
		return conn{}, nil, nil, &Error{Path: path, Call: "opening the database", Err: err}
	}
	entries, problems, mend, err := readTree(c)
	if err != nil {
		err = &Error{Path: path, Call: "loading", Err: err}
	} else if len(entries)+len(problems) > 0 {
		problems = append(problems, memdb.Check(entries)...)
		if bad := fatal(problems); len(bad) > 0 {
			err = fmt.Errorf("%s: %w", path, &memdb.LoadError{Problems: bad})
		}
	}
	if err != nil {
		return conn{}, nil, nil, errors.Join(err, c.leave(path, noLog == nil))
	}
	for _, p := range problems {
		log.Warn("odd row in the database", "path", path, "row", p.String())
	}
	return c, entries, mend, nil
}

// leave closes c. A log that lay beside the file before stays there as it is:
// SQLite would copy it into the file if c were the last to close.
func (c conn) leave(path string, log bool) error {
	if !log {
		return c.Close()
	}
	last, err := open(path, "ro")
	if err == nil {
		err = last.Do("SELECT count(*) FROM sqlite_schema")
	}
	return errors.Join(err, c.Close(), last.Close())
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

// look makes sure that the path still leads to the file that was opened, that the log is
// still beside it, and that nobody else writes to it. mu is held.
func (db *DB) look() error {
	for _, path := range []string{db.link, db.path} {
		now, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: it was removed; put it back, or restart the daemon", ErrChanged)
		case err != nil:
			return err
		case !os.SameFile(now, db.file):
			return fmt.Errorf("%w: another file has taken its place; restart the daemon to use that one", ErrChanged)
		}
	}
	if db.w != nil && db.wal != nil {
		if err := db.lookAtLog(); err != nil {
			return err
		}
		if err := db.lookForOthers(); err != nil {
			return err
		}
	}
	db.looked = time.Now()
	return nil
}

// lookAtLog makes sure that the log is where SQLite would look for it after a restart. If
// not, its pages still are in the file that was removed, which SQLite has open: they
// are brought into the database, and a new log is begun. mu is held.
func (db *DB) lookAtLog() error {
	mine, err := db.wal.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(db.path + "-wal")
	switch {
	case err == nil && os.SameFile(now, mine):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if db.copying { // its connection can't be closed; a checkpoint is looked at first, too
		return nil
	}
	const what = "the write-ahead log was removed or replaced by another program"
	pages, copied, err := db.w.c.checkpoint()
	if err == nil && copied < pages {
		err = errors.New("another program's open transaction is in the way")
	}
	if err != nil {
		return fmt.Errorf("%w: %s, and what is in it can't be brought into the database yet: %w", ErrChanged, what, err)
	}
	if now != nil { // SQLite would take another program's file for the log
		if err := os.Rename(db.path+"-wal", fmt.Sprintf("%s-wal.foreign-%d", db.path, time.Now().Unix())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s: %w", ErrChanged, what, err)
		}
	}
	err = errors.Join(db.copier.Close(), db.disconnect())
	db.copier = conn{}
	// It says what the removed log holds. SQLite leaves it to a reader that has it open.
	if rerr := os.Remove(db.path + "-shm"); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err == nil {
		err = db.reopen()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	db.log.Error(what+"; nothing was lost: all of it is in the database now, and a new log is begun", "path", db.path, event.Meddled.Attr())
	return nil
}

// lookForOthers reports another program's transaction. One by another daemon has
// changed the version, and ends in ErrChanged; one by hand is not shown. mu is held.
func (db *DB) lookForOthers() error {
	n, err := db.w.c.otherTransactions()
	if err != nil || n == db.others {
		return err
	}
	db.others = n
	version, err := db.w.fileVersion()
	if err != nil {
		return err
	}
	if version != db.version {
		return db.otherVersion(version)
	}
	if !db.foreign {
		db.foreign = true
		db.log.Warn("another program has written to the database while the daemon runs: its changes are not shown, and may be overwritten; stop the daemon before changing its database",
			"path", db.path, event.Meddled.Attr())
	}
	return nil
}

func (db *DB) otherVersion(got uint64) error {
	return fmt.Errorf("%w: it holds version %d, expected was %d; is another daemon running on it?", ErrChanged, got, db.version)
}

// otherTransactions returns a number that changes with every transaction of another
// connection, that of a checkpoint excepted.
func (c conn) otherTransactions() (n int64, err error) {
	err = c.Each("PRAGMA data_version", func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	})
	return n, err
}

// Path returns the file's path.
func (db *DB) Path() string { return db.path }

// Stats returns the counters, which go on counting.
func (db *DB) Stats() *Stats { return &db.stats }

// Close brings everything into the main file and closes it. Later calls of any
// method answer that it is closed.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return db.failed("closing the database", fs.ErrClosed)
	}
	db.closed = true
	db.checkpointed.Broadcast()
	db.mu.Unlock()
	close(db.quit)
	db.done.Wait()
	db.mu.Lock()
	defer db.mu.Unlock()
	var err error
	if db.w != nil {
		err = db.disconnect()
	}
	if err := errors.Join(err, db.wal.Close(), db.lock.Close()); err != nil {
		return db.failed("closing the database", err)
	}
	return nil
}

// Sync returns when everything committed before has reached the disk.
func (db *DB) Sync() error {
	for {
		db.mu.Lock()
		wal, suspect, closed := db.wal, db.suspect, db.closed
		db.mu.Unlock()
		if closed {
			return db.failed("syncing the write-ahead log", fs.ErrClosed)
		}
		db.stats.Syncs.Add(1)
		begin := time.Now()
		if suspect {
			err := db.rewrite()
			if err != nil {
				db.stats.FailedSyncs.Add(1)
			}
			return err
		}
		// Content that has left the log was synced to the main file by the
		// checkpoint that let the log begin anew.
		switch err := wal.Sync(); {
		case err == nil:
			db.obs.Synced(time.Since(begin))
			return nil
		case errors.Is(err, fs.ErrClosed): // by a connection made anew
		default:
			db.stats.FailedSyncs.Add(1)
			db.mu.Lock()
			db.suspect = true
			db.mu.Unlock()
			return db.failed("syncing the write-ahead log", err)
		}
	}
}

// rewrite brings everything to the disk after a sync of the log has failed. The
// kernel reports such a failure once and then holds the pages for clean, so
// another sync would prove nothing: all of the log is copied into the main file
// instead, and that is synced.
func (db *DB) rewrite() error {
	const call = "copying the write-ahead log after a failed sync"
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return db.failed(call, fs.ErrClosed)
	}
	if db.w == nil {
		if err := db.reopen(); err != nil {
			return db.failed("opening the database again", err)
		}
	}
	pages, copied, err := db.w.c.checkpoint()
	switch {
	case err != nil:
		return db.failed(call, err)
	case copied < pages:
		return db.failed(call, errors.New("another program's open transaction is in the way"))
	}
	db.suspect = false
	return nil
}

func (db *DB) failed(call string, err error) error {
	return &Error{Path: db.path, Call: call, Err: err}
}

// writer is the connection that writes, with its statements.
type writer struct {
	c        conn
	begin    *sqlitedb.Stmt
	commit   *sqlitedb.Stmt
	rollback *sqlitedb.Stmt
	replace  *sqlitedb.Stmt // a whole row
	update   *sqlitedb.Stmt // a row whose data stays
	remove   *sqlitedb.Stmt
	setRoot  *sqlitedb.Stmt
}

func openWriter(path string) (*writer, error) {
	c, err := openToWrite(path)
	if err != nil {
		return nil, err
	}
	return newWriter(c)
}

// newWriter makes c the connection that writes. It closes c if that fails.
func newWriter(c conn) (*writer, error) {
	w := &writer{c: c}
	if err := w.setup(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *writer) setup() error {
	if _, err := w.c.hasTree(); err != nil {
		return err
	}
	if err := w.c.Each("PRAGMA journal_mode=WAL", func(row []driver.Value) error {
		if row[0] != "wal" {
			return fmt.Errorf("write-ahead logging can't be used here: the journal mode stays %v", row[0])
		}
		return nil
	}); err != nil {
		return err
	}
	for _, pragma := range []string{
		"PRAGMA synchronous=NORMAL",
		"PRAGMA wal_autocheckpoint=0",
		"PRAGMA journal_size_limit=16777216",
		"PRAGMA cache_size=-4096",
		schema,
	} {
		if err := w.c.Do(pragma); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	return w.prepare()
}

func (w *writer) prepare() error {
	for query, s := range map[string]**sqlitedb.Stmt{
		"BEGIN IMMEDIATE": &w.begin,
		"COMMIT":          &w.commit,
		"ROLLBACK":        &w.rollback,
		"REPLACE INTO tree (inode, parent, version, writer, mtime, type, name, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)": &w.replace,
		"UPDATE tree SET parent=?, version=?, writer=?, mtime=?, name=? WHERE inode=?":                                &w.update,
		"DELETE FROM tree WHERE inode=?":                                           &w.remove,
		"UPDATE tree SET version=?, writer=?, mtime=? WHERE inode=0 AND version=?": &w.setRoot,
	} {
		p, err := w.c.Prepare(query)
		if err != nil {
			return err
		}
		*s = p
	}
	return nil
}

func (w *writer) close() error {
	for _, s := range []*sqlitedb.Stmt{w.begin, w.commit, w.rollback, w.replace, w.update, w.remove, w.setRoot} {
		if s != nil {
			s.Close()
		}
	}
	return w.c.Close()
}

// fileVersion reads the database's version from the file.
func (w *writer) fileVersion() (version uint64, err error) {
	err = w.c.Each("SELECT version FROM tree WHERE inode=0", func(row []driver.Value) error {
		if v, ok := row[0].(int64); ok {
			version = uint64(v)
		}
		return nil
	})
	return version, err
}
