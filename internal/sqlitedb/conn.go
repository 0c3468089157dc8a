// Package sqlitedb has connections to SQLite files as every part of the project opens them: one
// that a goroutine has for itself, and that trusts no file, since it may come from anywhere. SQLite's
// defensive mode is on, a file's schema is not trusted to call functions, and what a
// statement or a value may take is limited.
package sqlitedb

// #include "defend.h"
import "C"

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// Conn is a connection to a file. It is not safe for concurrent use.
type Conn struct{ *sqlite3.SQLiteConn }

// defendConnections turns on SQLite's defensive mode, for which the driver has no call.
var defendConnections = sync.OnceValue(func() error {
	if code := C.defend_connections(); code != 0 {
		return fmt.Errorf("turning on SQLite's defensive mode: error %d", code)
	}
	return nil
})

// Open connects to a file. The options are those of SQLite's URIs: mode ("ro", "rw" or "rwc"), vfs,
// immutable.
func Open(path string, options url.Values) (Conn, error) {
	options.Set("_busy_timeout", "10000")
	return open("file:"+(&url.URL{Path: path}).EscapedPath(), options)
}

// OpenMemory makes an empty database in memory.
func OpenMemory() (Conn, error) { return open("file::memory:", url.Values{}) }

func open(name string, options url.Values) (Conn, error) {
	if err := defendConnections(); err != nil {
		return Conn{}, err
	}
	options.Set("_mutex", "no")
	d, err := (&sqlite3.SQLiteDriver{}).Open(name + "?" + options.Encode())
	if err != nil {
		return Conn{}, err
	}
	c := Conn{d.(*sqlite3.SQLiteConn)}
	if err := c.harden(); err != nil {
		return Conn{}, errors.Join(err, c.Close())
	}
	return c, nil
}

// harden limits what SQLite does for a file's schema. The limits are several times those that
// the project's own tables and statements need.
func (c Conn) harden() error {
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
		if err := c.Do(pragma); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	return nil
}

// Close ends the connection, if there is one.
func (c Conn) Close() error {
	if c.SQLiteConn == nil {
		return nil
	}
	return c.SQLiteConn.Close()
}

// Do executes a statement; without parameters, several.
func (c Conn) Do(query string, args ...driver.Value) error {
	_, err := c.Exec(query, args)
	return err
}

// Each calls f with each row of a query's result. The row's values belong to f, the slice does
// not.
func (c Conn) Each(query string, f func(row []driver.Value) error, args ...driver.Value) (err error) {
	rows, err := c.Query(query, args)
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

// Number returns the first column of a result's only row; 0: there is none, or it is no whole number.
func (c Conn) Number(query string, args ...driver.Value) (n int64, err error) {
	err = c.Each(query, func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	}, args...)
	return n, err
}

// Stmt is a prepared statement with room for its parameters.
type Stmt struct {
	*sqlite3.SQLiteStmt
	args []driver.NamedValue
}

// Prepare returns a statement that can be executed again and again.
func (c Conn) Prepare(query string) (*Stmt, error) {
	s, err := c.SQLiteConn.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", query, err)
	}
	args := make([]driver.NamedValue, s.NumInput())
	for i := range args {
		args[i].Ordinal = i + 1
	}
	return &Stmt{s.(*sqlite3.SQLiteStmt), args}, nil
}

func (s *Stmt) run(args []driver.Value) (driver.Result, error) {
	for i, v := range args {
		s.args[i].Value = v
	}
	res, err := s.ExecContext(context.Background(), s.args)
	for i := range s.args {
		s.args[i].Value = nil
	}
	return res, err
}

// Run executes the statement and returns how many rows it changed. It keeps none of args.
func (s *Stmt) Run(args ...driver.Value) (changed int64, err error) {
	res, err := s.run(args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Insert is Run of a statement that inserts a row, and returns that row's id.
func (s *Stmt) Insert(args ...driver.Value) (id int64, err error) {
	res, err := s.run(args)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// Row returns the columns of the result's first row; nil: there is none.
func (s *Stmt) Row(columns int, args ...driver.Value) (row []driver.Value, err error) {
	for i, v := range args {
		s.args[i].Value = v
	}
	rows, err := s.QueryContext(context.Background(), s.args)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row = make([]driver.Value, columns)
	switch err := rows.Next(row); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return row, nil
}
