package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pmxcfs/memdb"
)

// looseSchema is the table without its checks, so that tests can put anything
// into it.
const looseSchema = "CREATE TABLE tree (inode INTEGER PRIMARY KEY, parent, version, writer, mtime, type, name TEXT, data BLOB)"

// plant makes a database with a version row, a directory (inode 2), a file in
// it (inode 3), and what further statements make of that.
func plant(tb testing.TB, statements ...string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "config.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	sqlExec(tb, path, append([]string{
		"PRAGMA journal_mode=WAL", looseSchema,
		"INSERT INTO tree VALUES (0,0,20,1,1000,8,'__version__',NULL), (2,0,2,1,1000,4,'dir',NULL), (3,2,3,1,1000,8,'file',x'74657874')",
	}, statements...)...)
	return path
}

// brokenRows are databases that must not be loaded: the statement that breaks
// them, and what the message must say.
var brokenRows = map[string]struct{ statement, says string }{
	"empty name":                {"INSERT INTO tree VALUES (7,2,7,1,1,8,'',NULL)", `inode 7 (""): the name is empty`},
	"null name":                 {"INSERT INTO tree VALUES (7,2,7,1,1,8,NULL,NULL)", `inode 7 (""): the name is empty`},
	"directory with data":       {"INSERT INTO tree VALUES (7,2,7,1,1,4,'x',x'01')", `inode 7 ("x"): a directory with 1 bytes of data`},
	"type":                      {"INSERT INTO tree VALUES (7,2,7,1,1,5,'x',NULL)", `inode 7 ("x"): type 5 is neither`},
	"type beyond 8 bits":        {"INSERT INTO tree VALUES (7,2,7,1,1,264,'x',NULL)", `inode 7 ("x"): type 264 is neither`},
	"text as type":              {"INSERT INTO tree VALUES (7,2,7,1,1,'dir','x',NULL)", `inode 7 ("x"): column type is not an integer but the text "dir"`},
	"inode 0 with another name": {"UPDATE tree SET name='x' WHERE inode=0", `inode 0 ("x"): inode 0 must be the version row`},
	"version row with data":     {"UPDATE tree SET data='x' WHERE inode=0", `inode 0 ("__version__"): the version row has 1 bytes`},
	"version row's parent":      {"UPDATE tree SET parent=2 WHERE inode=0", `inode 0 ("__version__"): the version row's parent is 2`},
	"version row's type":        {"UPDATE tree SET type=3 WHERE inode=0", `inode 0 ("__version__"): the version row's type is 3`},
	"version 0":                 {"UPDATE tree SET version=0 WHERE inode=0", `inode 0 (""): the database's version is 0`},
	"negative version":          {"UPDATE tree SET version=-1 WHERE inode=0", `inode 0 (""): the database's version is -1`},
	"version without successor": {"UPDATE tree SET version=4611686018427387904 WHERE inode=0", `inode 0 (""): the database's version is 4611686018427387904`},
	"inode of the mount":        {"INSERT INTO tree VALUES (4611686018427387904,2,7,1,1,8,'x',NULL)", `inode 4611686018427387904 ("x"): the inode is one of those that a mount uses`},
	"parent is a file":          {"INSERT INTO tree VALUES (7,3,7,1,1,8,'x',NULL)", `inode 7 ("x"): the parent, inode 3 ("file"), is not a directory`},
	"parent does not exist":     {"INSERT INTO tree VALUES (7,99,7,1,1,8,'x',NULL)", `inode 7 ("x"): the parent, inode 99, does not exist`},
	"own parent":                {"INSERT INTO tree VALUES (7,7,7,1,1,4,'x',NULL)", `inode 7 ("x"): the directory contains itself`},
	"loop":                      {"INSERT INTO tree VALUES (7,8,7,1,1,4,'x',NULL),(8,7,8,1,1,4,'y',NULL)", `the directory contains itself`},
	"duplicate name":            {"INSERT INTO tree VALUES (7,2,7,1,1,8,'file',NULL)", `inode 7 ("file"): the name exists twice in directory 2: also inode 3`},
	"text as parent":            {"INSERT INTO tree VALUES (7,'two',7,1,1,8,'x',NULL)", `inode 7 ("x"): column parent is not an integer but the text "two"`},
	"null as version":           {"INSERT INTO tree VALUES (7,2,NULL,1,1,8,'x',NULL)", `inode 7 ("x"): column version is not an integer but NULL`},
	"real as mtime":             {"INSERT INTO tree VALUES (7,2,7,1,1.5,8,'x',NULL)", `inode 7 ("x"): column mtime is not an integer but 1.5`},
	"blob as writer":            {"INSERT INTO tree VALUES (7,2,7,x'0102',1,8,'x',NULL)", `inode 7 ("x"): column writer is not an integer but a blob of 2 bytes`},
	"number as data of a dir":   {"INSERT INTO tree VALUES (7,2,7,1,1,4,'x',5)", `inode 7 ("x"): a directory with 1 bytes of data`},
}

func TestBrokenRowsAreNamedAndTheFileIsLeftAlone(t *testing.T) {
	for name, test := range brokenRows {
		t.Run(name, func(t *testing.T) {
			path := plant(t, test.statement)
			before := fingerprint(t, filepath.Dir(path))

			contents, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			if !contents.Fatal() || !strings.Contains(fmt.Sprint(contents.Problems), test.says) {
				t.Errorf("Read finds %v, not %s", contents.Problems, test.says)
			}
			_, _, _, err = Open(Config{Path: path})
			var le *memdb.LoadError
			if !errors.As(err, &le) || !strings.Contains(fmt.Sprint(le.Problems), test.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v, not %s", err, test.says)
			}
			if after := fingerprint(t, filepath.Dir(path)); after != before {
				t.Errorf("the directory holds\n%s, before\n%s", after, before)
			}
		})
	}
}

func TestOddRowsAreWarnedAboutAndLoad(t *testing.T) {
	for statement, says := range map[string]string{
		"INSERT INTO tree VALUES (7,2,7,1,5000000000,8,'x',NULL)":        "column mtime, 5000000000, does not fit 32 bits",
		"INSERT INTO tree VALUES (7,2,7,-1,1,8,'x',NULL)":                "column writer, -1, does not fit 32 bits",
		"INSERT INTO tree VALUES (7,2,7,1,1,8,'a/b',NULL)":               "can't be reached through a mount",
		"INSERT INTO tree VALUES (7,2,7,1,1,8,'..',NULL)":                "can't be reached through a mount",
		"INSERT INTO tree VALUES (70,2,7,1,1,8,'x',NULL)":                "greater than the database's version 20",
		"INSERT INTO tree VALUES (7,2,7,1,1,8,'x',zeroblob(1048577))":    "a file of 1048577 bytes",
		"INSERT INTO tree VALUES (7,2,7,1,1,8,printf('%.300c','n'),'x')": "the name has 300 bytes",
	} {
		path := plant(t, statement)
		contents, err := Read(path)
		if err != nil || contents.Fatal() || !strings.Contains(fmt.Sprint(contents.Problems), says) {
			t.Errorf("%s: %v, %v", statement, contents.Problems, err)
		}
		s := openStore(t, path)
		if !strings.Contains(s.log.String(), strings.ReplaceAll(says, `"`, `\"`)) || !strings.Contains(s.log.String(), "inode") {
			t.Errorf("%s: the log says %q", statement, s.log.String())
		}
		s.close()
	}
}

// TestImpossibleNumbersLoadButAreNotSound has what nobody but a hand or a damaged
// page writes, and the stock daemon loads.
func TestImpossibleNumbersLoadButAreNotSound(t *testing.T) {
	for statement, says := range map[string]string{
		"UPDATE tree SET inode=-5 WHERE inode=3":            "the inode is negative: -5 in the file",
		"UPDATE tree SET version=-5 WHERE inode=3":          "the version, -5 in the file, is not between",
		"UPDATE tree SET version=21 WHERE inode=3":          "the version, 21, is greater than the database's version 20",
		"UPDATE tree SET mtime=-5 WHERE inode=3":            "column mtime, -5, does not fit 32 bits",
		"UPDATE tree SET mtime=4294967296 WHERE inode=0":    "column mtime, 4294967296, does not fit 32 bits",
		"UPDATE tree SET writer=4294967296 WHERE inode=3":   "column writer, 4294967296, does not fit 32 bits",
		"UPDATE tree SET inode=70, version=2 WHERE inode=3": "the inode is greater than the database's version 20",
		"UPDATE tree SET data=5 WHERE inode=3":              `the data is not a blob but a number; it is taken for the text "5"`,
		"DELETE FROM tree WHERE inode=0":                    "the version row is missing; 3, the greatest number",
	} {
		path := plant(t, statement)
		contents, err := Read(path)
		if err != nil || contents.Fatal() || len(contents.Unsound()) != 1 || !strings.Contains(fmt.Sprint(contents.Unsound()), says) {
			t.Errorf("%s: %v, %v", statement, contents.Problems, err)
			continue
		}
		rows, err := ReadRows(path)
		if err != nil {
			t.Fatal(err)
		}
		tree, fixes := repaired(t, rows)
		if e, ok := tree.Lookup("dir/file"); len(fixes) == 0 || !ok || string(e.Data()) != string(contents.Entries[len(contents.Entries)-1].Data()) {
			t.Errorf("%s: repair: %v", statement, fixes)
		}
		s := openStore(t, path)
		s.mustCommit(create("dir/next"))
		s.close()
	}
}

// TestNumbersAsDataAreTheTextThatTheStockDaemonReads has the texts from SQLite's
// sqlite3_column_blob, by which the stock daemon reads them.
func TestNumbersAsDataAreTheTextThatTheStockDaemonReads(t *testing.T) {
	for number, want := range map[string]string{"12345": "12345", "-7": "-7", "1.5": "1.5", "1e20": "1.0e+20", "2.0": "2.0", "0.1": "0.1"} {
		s := openStore(t, plant(t, "UPDATE tree SET data="+number+" WHERE inode=3"))
		if e, _ := s.tree.Lookup("dir/file"); string(e.Data()) != want {
			t.Errorf("%s is read as %q, want %q", number, e.Data(), want)
		}
		if !strings.Contains(s.log.String(), "the data is not a blob but a number") {
			t.Errorf("the log says %q", s.log.String())
		}
		rows, err := ReadRows(s.path)
		if err != nil {
			t.Fatal(err)
		}
		if tree, _ := repaired(t, rows); true {
			if e, _ := tree.Lookup("dir/file"); string(e.Data()) != want {
				t.Errorf("%s is repaired to %q, want %q", number, e.Data(), want)
			}
		}
		if typ := sqlValue(t, s.path, "SELECT typeof(data) FROM tree WHERE inode=3"); typ == "blob" {
			t.Errorf("%s: the row was written without a change", number)
		}
		s.mustCommit(create("elsewhere"))
		if typ := sqlValue(t, s.path, "SELECT typeof(data) FROM tree WHERE inode=3"); typ != "blob" {
			t.Errorf("%s: after the next change, the data is of type %v", number, typ)
		}
		s.verify()
		s.close()
	}
}

func TestAMissingVersionRowIsMadeAnew(t *testing.T) {
	s := openStore(t, plant(t, "DELETE FROM tree WHERE inode=0", "INSERT INTO tree VALUES (7,2,11,1,2000,8,'x',NULL)"))
	if root := s.tree.Root(); root.Version != 11 || root.MTime != 2000 {
		t.Errorf("the root is %s", describe(root))
	}
	if !strings.Contains(s.log.String(), "the version row is missing") {
		t.Errorf("the log says %q", s.log.String())
	}
	s.mustCommit(create("new"))
	if e, _ := s.tree.Lookup("new"); e.Inode != 12 {
		t.Errorf("the next inode is %d", e.Inode)
	}
	s.verify()
	s.close()
	openStore(t, s.path).verify()
}

func TestVersionRowOfEitherTypeIsAccepted(t *testing.T) {
	for _, typ := range []int{4, 8} { // the stock daemon leaves 4 after a synchronisation
		s := openStore(t, plant(t, fmt.Sprintf("UPDATE tree SET type=%d WHERE inode=0", typ)))
		if root := s.tree.Root(); root.Version != 20 || !root.IsDir() {
			t.Errorf("type %d: %s", typ, describe(root))
		}
	}
}

func TestTextAsDataIsContent(t *testing.T) {
	s := openStore(t, plant(t, "UPDATE tree SET data='other' WHERE inode=3"))
	if e, _ := s.tree.Lookup("dir/file"); string(e.Data()) != "other" {
		t.Errorf("%q", e.Data())
	}
}

func TestFilesThatAreNoDatabaseAreRefusedUnchanged(t *testing.T) {
	for name, test := range map[string]struct {
		content func(tb testing.TB, path string)
		says    string
	}{
		"text": {func(tb testing.TB, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
				tb.Fatal(err)
			}
		}, "not a database"},
		"another program's": {func(tb testing.TB, path string) {
			sqlExec(tb, path, "CREATE TABLE other (x)")
		}, "has no table tree"},
		"other columns": {func(tb testing.TB, path string) {
			sqlExec(tb, path, "CREATE TABLE tree (inode, x)")
		}, `its columns are ["inode" "x"]`},
		"cut short": {func(tb testing.TB, path string) {
			b := testdata(tb, "varied.db.gz")
			if err := os.WriteFile(path, b[:len(b)/2], 0o600); err != nil {
				tb.Fatal(err)
			}
		}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			test.content(t, path)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			before := fingerprint(t, filepath.Dir(path))
			for call, f := range map[string]func() error{
				"Open": func() error { _, _, _, err := Open(Config{Path: path}); return err },
				"Read": func() error { _, err := Read(path); return err },
			} {
				if err := f(); err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: %v", call, err)
				}
			}
			if after := fingerprint(t, filepath.Dir(path)); after != before {
				t.Errorf("the directory holds\n%s, before\n%s", after, before)
			}
		})
	}
}

func TestBrokenDatabaseKeepsItsLog(t *testing.T) {
	// After a kill, part of the database is in the log; what can't be loaded is
	// not brought together either.
	path := plant(t)
	c, err := open(path, "rw")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"PRAGMA wal_autocheckpoint=0", "UPDATE tree SET parent=99 WHERE inode=3"} {
		if err := c.Do(q); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	killed := filepath.Join(dir, "config.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(path+suffix, killed+suffix, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		var all string
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(killed + suffix)
			if err != nil {
				t.Fatal(err)
			}
			all += string(b)
		}
		return all
	}
	before := read()
	if _, _, _, err := Open(Config{Path: killed}); err == nil || !strings.Contains(err.Error(), "inode 99") {
		t.Errorf("Open: %v", err)
	}
	if read() != before {
		t.Error("the file or its log has changed")
	}
}
