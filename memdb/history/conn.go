package history

import (
	"database/sql/driver"
	"errors"
	"net/url"

	sqlite3 "github.com/mattn/go-sqlite3"

	"pmxcfs/internal/sqlitedb"
)

// conn is a connection to a file, for one goroutine at a time.
type conn struct{ sqlitedb.Conn }

// dial connects to a file; options are those of SQLite's URIs.
func dial(path string, options url.Values) (conn, error) {
	c, err := sqlitedb.Open(path, options)
	return conn{c}, err
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

// damaged reports whether err says that a file is no sound database.
func damaged(err error) bool {
	if errors.Is(err, errSchema) {
		return true
	}
	var se sqlite3.Error
	return errors.As(err, &se) && (se.Code == sqlite3.ErrCorrupt || se.Code == sqlite3.ErrNotADB ||
		se.Code == sqlite3.ErrSchema || se.Code == sqlite3.ErrError || se.Code == sqlite3.ErrConstraint || se.Code == sqlite3.ErrMismatch)
}
