package history

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"syscall"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// conn is a connection to a file, for one goroutine at a time.
type conn struct{ *sqlite3.SQLiteConn }

// dial connects to a file; options are those of SQLite's URIs.
func dial(path string, options url.Values) (conn, error) {
	options.Set("_mutex", "no")
	options.Set("_busy_timeout", "10000")
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + (&url.URL{Path: path}).EscapedPath() + "?" + options.Encode())
	if err != nil {
		return conn{}, err
	}
	k := conn{c.(*sqlite3.SQLiteConn)}
	for _, p := range []string{"PRAGMA trusted_schema=OFF", "PRAGMA cell_size_check=ON"} {
		if err := k.exec(p); err != nil {
			return conn{}, errors.Join(err, k.Close())
		}
	}
	return k, nil
}

func (c conn) exec(query string, args ...driver.Value) error {
	_, err := c.Exec(query, args)
	return err
}

// query calls f with each row of a result. The slice is used again, its values are not.
func (c conn) query(f func(row []driver.Value) error, query string, args ...driver.Value) (err error) {
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

// number returns the first column of a result's only row; 0: there is none, or it is NULL.
func (c conn) number(query string, args ...driver.Value) (n int64, err error) {
	err = c.query(func(row []driver.Value) error {
		n = integer(row[0])
		return nil
	}, query, args...)
	return n, err
}

func integer(v driver.Value) int64 { n, _ := v.(int64); return n }

// text is a value that may have come as either.
func text(v driver.Value) string {
	switch s := v.(type) {
	case string:
		return s
	case []byte:
		return string(s)
	}
	return ""
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

func (s *stmt) set(args []driver.Value) {
	for i, v := range args {
		s.args[i].Value = v
	}
}

// run executes the statement, and returns the id of the row that it has inserted.
func (s *stmt) run(args ...driver.Value) (int64, error) {
	s.set(args)
	res, err := s.ExecContext(context.Background(), s.args)
	for i := range s.args {
		s.args[i].Value = nil
	}
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// row returns the columns of the result's first row; nil: there is none.
func (s *stmt) row(columns int, args ...driver.Value) (row []driver.Value, err error) {
	s.set(args)
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

// damaged reports whether err says that a file is no sound database.
func damaged(err error) bool {
	if errors.Is(err, errSchema) {
		return true
	}
	var se sqlite3.Error
	return errors.As(err, &se) && (se.Code == sqlite3.ErrCorrupt || se.Code == sqlite3.ErrNotADB ||
		se.Code == sqlite3.ErrSchema || se.Code == sqlite3.ErrError || se.Code == sqlite3.ErrConstraint || se.Code == sqlite3.ErrMismatch)
}

// full reports whether err says that there is no room.
func full(err error) bool {
	var se sqlite3.Error
	return errors.As(err, &se) && (se.Code == sqlite3.ErrFull || se.SystemErrno == syscall.ENOSPC || se.SystemErrno == syscall.EDQUOT)
}
