package sqlitedb

import (
	"database/sql/driver"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func rw() url.Values { return url.Values{"mode": {"rwc"}} }

func TestNoConnectionTrustsAFile(t *testing.T) {
	file, err := Open(filepath.Join(t.TempDir(), "a #?% b.db"), rw())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	memory, err := OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for name, c := range map[string]Conn{"file": file, "memory": memory} {
		if err := errors.Join(c.Do("CREATE TABLE t (x)"), c.Do("PRAGMA writable_schema=ON")); err != nil {
			t.Fatal(name, err)
		}
		if err := c.Do("UPDATE sqlite_schema SET sql='CREATE TABLE t (y)'"); err == nil {
			t.Errorf("%s: the schema can be changed as text", name)
		}
		for pragma, want := range map[string]int64{"trusted_schema": 0, "cell_size_check": 1} {
			if n, err := c.Number("PRAGMA " + pragma); err != nil || n != want {
				t.Errorf("%s: %s is %d: %v", name, pragma, n, err)
			}
		}
		if err := c.Do("ATTACH ':memory:' AS other"); err == nil {
			t.Errorf("%s: another file can be attached", name)
		}
		if err := c.Do("INSERT INTO t VALUES (zeroblob(100000000))"); err == nil {
			t.Errorf("%s: a value may have 100 MB", name)
		}
		if err := c.Do("SELECT 1" + strings.Repeat("+1", 100)); err == nil {
			t.Errorf("%s: an expression may be a hundred deep", name)
		}
	}
}

func TestStatements(t *testing.T) {
	c, err := OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do("CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (7, 'seven')"); err != nil {
		t.Fatal(err)
	}
	prepare := func(query string) *Stmt {
		s, err := c.Prepare(query)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	insert, update, find := prepare("INSERT INTO t (x) VALUES (?)"), prepare("UPDATE t SET x=?"), prepare("SELECT x, id FROM t WHERE id=?")
	if id, err := insert.Insert([]byte("eight")); err != nil || id != 8 {
		t.Errorf("inserted as %d: %v", id, err)
	}
	if n, err := update.Run("x"); err != nil || n != 2 {
		t.Errorf("%d changed: %v", n, err)
	}
	if row, err := find.Row(2, int64(8)); err != nil || !slices.Equal(row, []driver.Value{"x", int64(8)}) {
		t.Errorf("%v %v", row, err)
	}
	if row, err := find.Row(2, int64(9)); err != nil || row != nil {
		t.Errorf("of nothing: %v %v", row, err)
	}
	var list []int64
	stop := errors.New("stop")
	err = c.Each("SELECT id FROM t WHERE id>? ORDER BY id", func(row []driver.Value) error {
		list = append(list, row[0].(int64))
		return stop
	}, int64(1))
	if !errors.Is(err, stop) || !slices.Equal(list, []int64{7}) {
		t.Errorf("%v %v", list, err)
	}
	if err := c.Do("PRAGMA max_page_count=2"); err != nil {
		t.Fatal(err)
	}
	if _, err := insert.Insert(make([]byte, 1<<20)); !NoRoom(err) {
		t.Errorf("a megabyte into two pages: %v", err)
	}
	if err := (Conn{}).Close(); err != nil {
		t.Error(err)
	}
}
