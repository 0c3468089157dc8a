package history

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"pmxcfs/memdb/sqlite"
)

// FileName is the name of the file beside the database.
const FileName = "history.db"

// Beside returns the path of the history that belongs to a database.
func Beside(database string) string {
	if path, err := sqlite.Resolve(database); err == nil {
		database = path
	}
	return filepath.Join(filepath.Dir(database), FileName)
}

// applicationID marks a file as a history ("pxhi").
const applicationID = 0x70786869

// migrations lead from one version of the file to the next: the first one from an empty file
// to version 1. A file's version is SQLite's user_version. What a released program has written
// is never changed here, only added to.
var migrations = []string{
	// path and node hold names once. content holds each content once, under its SHA-256,
	// packed as packing says. change has a row for each path that a change set concerns; first
	// is the set's first row, tree the version of the tree after the set, version the
	// entry's. type is what is at the path then: a directory, a file, or nothing. other is
	// where a rename has come from, or has gone to. omitted counts the states before
	// it that were thinned out. catch_up says of a set that it came from a
	// synchronisation. gap is what was not recorded, in its place in the order.
	`CREATE TABLE path (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
	CREATE TABLE node (id INTEGER PRIMARY KEY, number INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (number, name));
	CREATE TABLE content (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, packing INTEGER NOT NULL, data BLOB NOT NULL);
	CREATE TABLE change (seq INTEGER PRIMARY KEY, first INTEGER NOT NULL, tree INTEGER NOT NULL, version INTEGER NOT NULL,
		time INTEGER NOT NULL, mtime INTEGER NOT NULL, node INTEGER NOT NULL, kind INTEGER NOT NULL, type INTEGER NOT NULL,
		path INTEGER NOT NULL, other INTEGER, content INTEGER, omitted INTEGER NOT NULL DEFAULT 0);
	CREATE INDEX change_path ON change (path, seq);
	CREATE TABLE catch_up (seq INTEGER PRIMARY KEY, leader INTEGER NOT NULL, from_version INTEGER NOT NULL, to_version INTEGER NOT NULL);
	CREATE TABLE gap (seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, after_version INTEGER NOT NULL, version INTEGER NOT NULL, changes INTEGER NOT NULL, reason TEXT NOT NULL);
	CREATE TABLE snapshot (name TEXT PRIMARY KEY, seq INTEGER NOT NULL, version INTEGER NOT NULL, time INTEGER NOT NULL, note TEXT NOT NULL);
	CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID`,
}

// Keys of meta.
const (
	metaVersion = "version" // of the tree that the file ends with
	metaWriter  = "writer"  // of that version
	metaMTime   = "mtime"   // of that version
	metaBegan   = "began"   // the version of the tree with which the file began
	metaExpired = "expired" // the last change set of which retention has taken something away
)

// Errors of opening a file.
var (
	// ErrNewer means that a newer program has made the file.
	ErrNewer = errors.New("a newer version of pmxcfs has made this history")
	// ErrInUse means that another daemon records into the file.
	ErrInUse = errors.New("another daemon records into this history")

	errSchema = errors.New("this is no history of pmxcfs")
)

// version checks whose file it is, and returns its version; 0: it is empty.
func (c conn) version() (int64, error) {
	version, err := c.Number("PRAGMA user_version")
	if err != nil {
		return 0, err
	}
	id, err := c.Number("PRAGMA application_id")
	if err != nil {
		return 0, err
	}
	tables, err := c.Number("SELECT count(*) FROM sqlite_schema")
	switch {
	case err != nil:
		return 0, err
	case version == 0 && id == 0 && tables == 0:
		return 0, nil
	case id != applicationID || version < 1:
		return 0, errSchema
	}
	return version, nil
}

// migrate brings the file to the version that steps lead to.
func (c conn) migrate(steps []string) error {
	version, err := c.version()
	if err != nil {
		return err
	}
	if version > int64(len(steps)) {
		return fmt.Errorf("%w: it has version %d, this program knows %d", ErrNewer, version, len(steps))
	}
	if version == 0 { // both must stand in an empty file
		if err := c.Do("PRAGMA auto_vacuum=INCREMENTAL"); err != nil {
			return err
		}
	}
	if err := c.Do("PRAGMA journal_mode=WAL"); err != nil {
		return err
	}
	if version == int64(len(steps)) {
		return nil
	}
	return c.transaction(func() error {
		for _, step := range steps[version:] {
			if err := c.Do(step); err != nil {
				return err
			}
		}
		if err := c.Do(fmt.Sprintf("PRAGMA application_id=%d", applicationID)); err != nil {
			return err
		}
		return c.Do(fmt.Sprintf("PRAGMA user_version=%d", len(steps)))
	})
}

// transaction does all that f does, or nothing.
func (c conn) transaction(f func() error) error {
	if err := c.Do("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := f()
	if err == nil {
		err = c.Do("COMMIT")
	}
	if err != nil && !c.AutoCommit() {
		err = errors.Join(err, c.Do("ROLLBACK"))
	}
	return err
}

// openWriter opens the file to write to it, and makes it if there is none.
func openWriter(path string) (conn, error) {
	c, err := dial(path, url.Values{"mode": {"rwc"}})
	if err != nil {
		return conn{}, err
	}
	err = c.migrate(migrations)
	for _, p := range []string{"PRAGMA synchronous=NORMAL", "PRAGMA wal_autocheckpoint=2000", "PRAGMA journal_size_limit=16777216", "PRAGMA cache_size=-2048"} {
		if err == nil {
			err = c.Do(p)
		}
	}
	if err != nil {
		return conn{}, errors.Join(err, c.Close())
	}
	return c, nil
}
