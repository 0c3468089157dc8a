package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	sqlite3 "github.com/mattn/go-sqlite3"
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

// conn is one connection to a file. It is not safe for concurrent use.
type conn struct{ *sqlite3.SQLiteConn }

// open connects to a database file. mode is SQLite's: "ro", "rw" or "rwc".
func open(path, mode string) (conn, error) { return openThrough("", path, mode) }

// openThrough connects through a file layer; "": SQLite's own.
func openThrough(vfs, path, mode string) (conn, error) {
	query := url.Values{
		"mode":          {mode},
		"_mutex":        {"no"},
		"_busy_timeout": {"10000"},
	}
	if vfs != "" {
		query.Set("vfs", vfs)
	}
	if err := defendConnections(); err != nil {
		return conn{}, err
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode()
	c, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return conn{}, err
	}
	return conn{c.(*sqlite3.SQLiteConn)}.harden()
}

// openMemory makes an empty database in memory.
func openMemory(pageSize int64) (conn, error) {
	if err := defendConnections(); err != nil {
		return conn{}, err
	}
	driver, err := (&sqlite3.SQLiteDriver{}).Open("file::memory:?_mutex=no")
	if err != nil {
		return conn{}, err
	}
	c, err := conn{driver.(*sqlite3.SQLiteConn)}.harden()
	if err == nil {
		err = c.exec(fmt.Sprintf("PRAGMA page_size=%d", pageSize))
	}
	return c, err
}

// harden limits what SQLite does for a file's schema, since the file may come from
// anywhere. The limits are several times those that the one table needs.
func (c conn) harden() (conn, error) {
	for id, limit := range map[int]int{
		sqlite3.SQLITE_LIMIT_LENGTH:          64 << 20,
		sqlite3.SQLITE_LIMIT_SQL_LENGTH:      64 << 10,
		sqlite3.SQLITE_LIMIT_COLUMN:          64,
		sqlite3.SQLITE_LIMIT_EXPR_DEPTH:      64,
		sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 4,
		sqlite3.SQLITE_LIMIT_VDBE_OP:         25_000,
		sqlite3.SQLITE_LIMIT_FUNCTION_ARG:    8,
		sqlite3.SQLITE_LIMIT_ATTACHED:        0,
		sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH:   1,
	} {
		c.SetLimit(id, limit)
	}
	for _, pragma := range []string{"PRAGMA trusted_schema=OFF", "PRAGMA cell_size_check=ON"} {
		if err := c.exec(pragma); err != nil {
			return conn{}, errors.Join(fmt.Errorf("%s: %w", pragma, err), c.Close())
		}
	}
	return c, nil
}

// exec runs statements without parameters.
func (c conn) exec(query string) error {
	_, err := c.Exec(query, nil)
	return err
}

// Close ends the connection, if there is one.
func (c conn) Close() error {
	if c.SQLiteConn == nil {
		return nil
	}
	return c.SQLiteConn.Close()
}

// stmt is a prepared statement with room for its parameters.
type stmt struct {
	*sqlite3.SQLiteStmt
	args []driver.NamedValue
}

func (c conn) prepare(query string) (*stmt, error) {
	s, err := c.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", query, err)
	}
	args := make([]driver.NamedValue, s.NumInput())
	for i := range args {
		args[i].Ordinal = i + 1
	}
	return &stmt{s.(*sqlite3.SQLiteStmt), args}, nil
}

// run executes the statement and returns how many rows it changed. It keeps
// none of args.
func (s *stmt) run(args ...driver.Value) (int64, error) {
	for i, v := range args {
		s.args[i].Value = v
	}
	res, err := s.ExecContext(context.Background(), s.args)
	for i := range s.args {
		s.args[i].Value = nil
	}
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// query calls f with each row of a query's result. The row's values belong to
// f, the slice does not.
func (c conn) query(query string, f func(row []driver.Value) error) (err error) {
	rows, err := c.Query(query, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
}
