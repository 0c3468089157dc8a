package sqlite

import (
	"fmt"
	"net/url"

	"pmxcfs/internal/sqlitedb"
)

// schema is the table as it stands in every config.db.
const schema = `CREATE TABLE IF NOT EXISTS tree (` +
	`inode INTEGER PRIMARY KEY NOT NULL, ` +
	`parent INTEGER NOT NULL CHECK(typeof(parent)=='integer'), ` +
	`version INTEGER NOT NULL CHECK(typeof(version)=='integer'), ` +
	`writer INTEGER NOT NULL CHECK(typeof(writer)=='integer'), ` +
	`mtime INTEGER NOT NULL CHECK(typeof(mtime)=='integer'), ` +
	`type INTEGER NOT NULL CHECK(typeof(type)=='integer'), ` +
	`name TEXT NOT NULL, ` +
	`data BLOB)`

// versionName is the name of the row that holds the database's version.
const versionName = "__version__"

// conn is one connection to a database file, or to one in memory.
type conn struct{ sqlitedb.Conn }

// open connects to a database file. mode is SQLite's: "ro", "rw" or "rwc".
func open(path, mode string) (conn, error) { return openThrough("", path, mode) }

// openThrough connects through a file layer; "": SQLite's own.
func openThrough(vfs, path, mode string) (conn, error) {
	options := url.Values{"mode": {mode}}
	if vfs != "" {
		options.Set("vfs", vfs)
	}
	c, err := sqlitedb.Open(path, options)
	return conn{c}, err
}

// openMemory makes an empty database in memory.
func openMemory(pageSize int64) (conn, error) {
	c, err := sqlitedb.OpenMemory()
	if err == nil {
		err = c.Do(fmt.Sprintf("PRAGMA page_size=%d", pageSize))
	}
	return conn{c}, err
}
