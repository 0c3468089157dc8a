package sqlite

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"database/sql/driver"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmxcfs/memdb"
)

var t0 = time.Unix(1_700_000_000, 0)

// testdata returns a file from testdata, unpacked.
func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return b
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		tb.Fatal(err)
	}
	b, err = io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// unpack writes a database from testdata to a file of its own.
func unpack(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "config.db")
	if err := os.WriteFile(path, testdata(tb, name), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// store is a tree with its file, as the daemon has them.
type store struct {
	tb   testing.TB
	path string
	tree *memdb.Tree
	db   *DB
	log  bytes.Buffer
}

// openStore opens a database; the test closes it, or the cleanup does.
func openStore(tb testing.TB, path string) *store {
	tb.Helper()
	s := &store{tb: tb, path: path}
	db, entries, _, err := Open(Config{Path: path, Clock: func() time.Time { return t0 }, Rest: time.Hour,
		Log: slog.New(slog.NewTextHandler(&s.log, nil))})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	s.db = db
	if s.tree, _, err = memdb.Build(entries); err != nil {
		tb.Fatal(err)
	}
	return s
}

func newStore(tb testing.TB) *store {
	tb.Helper()
	return openStore(tb, filepath.Join(tb.TempDir(), "config.db"))
}

// commit applies operations, which must be allowed, and stores them in one
// transaction. If that fails, the tree goes back.
func (s *store) commit(ops ...memdb.Op) error {
	s.tb.Helper()
	var d memdb.Delta
	for i := range ops {
		res, err := s.tree.Apply(&ops[i])
		if err != nil {
			s.tb.Fatal(err)
		}
		d.Add(res.Changes)
	}
	err := s.db.Commit(d.Changes())
	if err != nil {
		s.tree.Revert(&d)
	}
	return err
}

func (s *store) mustCommit(ops ...memdb.Op) {
	s.tb.Helper()
	if err := s.commit(ops...); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *store) close() {
	s.tb.Helper()
	if err := s.db.Close(); err != nil {
		s.tb.Fatal(err)
	}
}

// verify fails the test unless the file holds exactly the tree.
func (s *store) verify() {
	s.tb.Helper()
	contents, err := Read(s.path)
	if err != nil {
		s.tb.Fatal(err)
	}
	if len(contents.Problems) > 0 {
		s.tb.Fatalf("the file has problems: %v", contents.Problems)
	}
	sameEntries(s.tb, contents.Entries, s.tree.Entries())
}

func sameEntries(tb testing.TB, got, want []*memdb.Entry) {
	tb.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			tb.Fatalf("the file lacks %s", describe(want[i]))
		case i >= len(want):
			tb.Fatalf("the file has %s, which the tree has not", describe(got[i]))
		case describe(got[i]) != describe(want[i]) || !bytes.Equal(got[i].Data(), want[i].Data()):
			tb.Fatalf("the file has %s, the tree %s", describe(got[i]), describe(want[i]))
		}
	}
}

func describe(e *memdb.Entry) string {
	return fmt.Sprintf("%v inode %d parent %d version %d writer %d mtime %d name %q, %d bytes %.8x",
		e.Type, e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Name, e.Size(), sha256.Sum256(e.Data()))
}

func mkdir(path string) memdb.Op {
	return memdb.Op{Kind: memdb.OpMkdir, Path: path, Writer: 1, MTime: 1000, Now: t0}
}

func create(path string) memdb.Op {
	return memdb.Op{Kind: memdb.OpCreate, Path: path, Writer: 1, MTime: 1000, Now: t0}
}

func write(path string, data []byte) memdb.Op {
	return memdb.Op{Kind: memdb.OpWrite, Path: path, Data: data, Truncate: true, Writer: 1, MTime: 1001, Now: t0}
}

func remove(path string) memdb.Op {
	return memdb.Op{Kind: memdb.OpDelete, Path: path, Writer: 1, MTime: 1002, Now: t0}
}

func rename(from, to string) memdb.Op {
	return memdb.Op{Kind: memdb.OpRename, Path: from, To: to, Writer: 1, MTime: 1003, Now: t0}
}

// sqlExec runs statements on a file, as another program would.
func sqlExec(tb testing.TB, path string, statements ...string) {
	tb.Helper()
	c, err := open(path, "rwc")
	if err != nil {
		tb.Fatal(err)
	}
	for _, q := range statements {
		if err := c.Do(q); err != nil {
			tb.Fatalf("%s: %v", q, err)
		}
	}
	if err := c.Close(); err != nil {
		tb.Fatal(err)
	}
}

// sqlValue returns the only value of a query's only row.
func sqlValue(tb testing.TB, path, query string) (v any) {
	tb.Helper()
	c, err := open(path, "rw")
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	if err := c.Each(query, func(row []driver.Value) error { v = row[0]; return nil }); err != nil {
		tb.Fatal(err)
	}
	return v
}

// fingerprint is what a directory holds: each file with its hash.
func fingerprint(tb testing.TB, dir string) string {
	tb.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v %v %x\n", e.Name(), info.Mode(), info.ModTime(), sha256.Sum256(data))
	}
	return b.String()
}
