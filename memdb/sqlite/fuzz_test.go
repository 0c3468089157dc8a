package sqlite

import (
	"bytes"
	"database/sql/driver"
	"os"
	"path/filepath"
	"testing"

	"pmxcfs/memdb"
)

// value makes a column's value of a fuzzer's input.
func value(kind byte, n int64, b []byte) driver.Value {
	switch kind % 6 {
	case 0:
		return nil
	case 1:
		return float64(n) / 3
	case 2:
		return string(b)
	case 3:
		return b
	}
	return n
}

func FuzzParseRow(f *testing.F) {
	f.Add([]byte{4, 4, 4, 4, 4, 4, 2, 0}, int64(0), int64(0), int64(7), int64(1), int64(1), int64(8), "__version__", []byte(nil))
	f.Add([]byte{4, 4, 4, 4, 4, 4, 2, 3}, int64(5), int64(2), int64(7), int64(1), int64(1), int64(8), "100.conf", []byte("text"))
	f.Add([]byte{4, 4, 4, 4, 4, 4, 2, 0}, int64(6), int64(2), int64(7), int64(1), int64(1), int64(4), "dir", []byte(nil))
	f.Add([]byte{0, 1, 2, 3, 0, 1, 3, 4}, int64(-1), int64(1)<<62, int64(7), int64(-5), int64(1)<<33, int64(260), "x/y", []byte("z"))
	f.Fuzz(func(t *testing.T, kinds []byte, inode, parent, version, writer, mtime, typ int64, name string, data []byte) {
		if len(kinds) < 8 {
			return
		}
		var row Row
		for i, n := range []int64{inode, parent, version, writer, mtime, typ} {
			row[i] = value(kinds[i], n, data)
		}
		row[6] = value(kinds[6], inode, []byte(name))
		row[7] = value(kinds[7], inode, data)
		e, problems := parseRow(append(row[:], nil)) // no number as data
		fatals := len(fatal(problems))
		if (e == nil) != (fatals > 0) {
			t.Fatalf("entry %v, problems %v", e, problems)
		}
		for _, p := range problems {
			_ = p.String()
		}
		if e != nil {
			memdb.Check([]*memdb.Entry{e})
			if n, _ := row[0].(int64); e.Inode != uint64(n) {
				t.Fatalf("inode %d of row %v", e.Inode, row)
			}
		}
		// Whatever it is, it can be repaired.
		root := Row{int64(0), int64(0), int64(9), int64(1), int64(1), int64(8), versionName, nil}
		repaired(t, []Row{row})
		repaired(t, []Row{root, row, row})
	})
}

// FuzzDatabaseBytes reads files of random bytes, as the daemon and the commands
// do.
func FuzzDatabaseBytes(f *testing.F) {
	b := smallDatabase(f)
	f.Add(b)
	f.Add(b[:pageSize])
	f.Add([]byte{})
	f.Add([]byte("SQLite format 3\x00 and nothing more"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "config.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		contents, err := Read(path)
		if err == nil && !contents.Fatal() && len(contents.Entries) > 0 {
			if _, _, err := memdb.Build(contents.Entries); err != nil {
				t.Errorf("Read finds nothing wrong, Build does: %v", err)
			}
		}
		if _, err := IntegrityCheck(path); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		if rows, _, err := Recover(path); err == nil {
			repaired(t, rows)
		}
		db, _, _, err := Open(Config{Path: path})
		if err == nil {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// smallDatabase returns the bytes of a database with a few files, one of them
// on several pages.
func smallDatabase(tb testing.TB) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "small.db")
	entries := append(benchEntries(3), memdb.NewEntry(9, 0, 3, 1, 1, memdb.TypeFile, "long", bytes.Repeat([]byte("text"), 2500)))
	if err := Create(path, entries); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// FuzzSalvage looks for rows in random bytes.
func FuzzSalvage(f *testing.F) {
	b := smallDatabase(f)
	f.Add(b)
	f.Add(b[pageSize:])
	// A record whose header says that it is empty.
	page := make([]byte, 2*pageSize)
	copy(page[pageSize:], []byte{leafPage, 0, 0, 0, 1, 0, 0, 0, 0, 10, 2, 1, 0, 0})
	f.Add(page)
	f.Add([]byte("SQLite format 3\x00\x02\x00\x01\x01\x40"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, torn := salvage(b)
		if torn > len(rows) {
			t.Errorf("%d rows, %d torn", len(rows), torn)
		}
		total := 0
		for _, row := range rows {
			data, _ := bytesOf(row[7])
			total += len(data)
		}
		if total > 2*len(b) {
			t.Errorf("%d bytes of content in a file of %d", total, len(b))
		}
	})
}
