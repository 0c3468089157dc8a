package sqlite

import (
	"bytes"
	"database/sql/driver"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	sqlite3 "github.com/mattn/go-sqlite3"

	"pmxcfs/internal/sqlitedb"
)

// What is written as SQL is the same database again.
func TestWriteSQLMakesTheSameDatabaseAgain(t *testing.T) {
	rows := func(c conn) (list [][]driver.Value) {
		t.Helper()
		if err := c.Each("SELECT *, typeof(data), typeof(name) FROM tree ORDER BY inode", func(row []driver.Value) error {
			list = append(list, append([]driver.Value(nil), row...))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	path := filepath.Join(t.TempDir(), "config.db")
	from, err := open(path, "rwc")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := from.Do(schema); err != nil {
		t.Fatal(err)
	}
	insert, err := from.Prepare("INSERT INTO tree VALUES(?,?,?,?,?,?,?,?)")
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range []struct {
		name string
		data driver.Value
	}{
		{versionName, nil},
		{"it's", []byte("line\nline; -- '\x00\xff")},
		{"new\nline", []byte{}},
		{"ü", bytes.Repeat([]byte("x"), 1<<20)},
		{"text", "not a blob"},
	} {
		if _, err := insert.Run(int64(i), int64(0), int64(i)<<40, int64(0), int64(1700000000), int64(8), v.name, v.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := insert.Close(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := WriteSQL(&text, path); err != nil {
		t.Fatal(err)
	}
	// As SQLite's own shell would read it: without the limits of this package.
	d, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	to := conn{sqlitedb.Conn{SQLiteConn: d.(*sqlite3.SQLiteConn)}}
	defer to.Close()
	if err := to.Do(text.String()); err != nil {
		t.Fatal(err)
	}
	if want, got := rows(from), rows(to); len(want) != 5 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d rows became\n%.300v", len(want), got)
	}
}

func TestWriteSQLOfNoDatabaseIsAnError(t *testing.T) {
	if err := WriteSQL(&bytes.Buffer{}, filepath.Join(t.TempDir(), "none.db")); err == nil {
		t.Error("it isn't")
	}
}
