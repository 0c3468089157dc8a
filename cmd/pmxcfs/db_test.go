package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"pmxcfs/cmd/internal/dbtool"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// pmxcfs runs the program with arguments.
func pmxcfs(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(append([]string{"pmxcfs"}, args...), &out, &errs)
	return status, out.String(), errs.String()
}

// mustRun runs the program, which must succeed.
func mustRun(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	status, stdout, stderr := pmxcfs(t, args...)
	if status != exit.OK {
		t.Fatalf("pmxcfs %s: status %d\n%s%s", strings.Join(args, " "), status, stdout, stderr)
	}
	return stdout
}

// recording unpacks a database that the stock daemon wrote.
func recording(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "memdb", "sqlite", "testdata", name+".db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// plant makes a database with a version row, a directory (inode 2), a file in
// it (inode 3), and what further statements make of that. Its table has no checks.
func plant(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, q := range append([]string{
		"PRAGMA journal_mode=WAL",
		"CREATE TABLE tree (inode INTEGER PRIMARY KEY, parent, version, writer, mtime, type, name TEXT, data BLOB)",
		"INSERT INTO tree VALUES (0,0,20,1,1000,8,'__version__',NULL), (2,0,2,1,1000,4,'dir',NULL), (3,2,3,1,1000,8,'file',x'74657874')",
	}, statements...) {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// fingerprint is what a directory holds: each file with its time and hash.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %v %x\n", path, info.Mode(), info.ModTime(), sha256.Sum256(data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// files returns what is below a directory: mode, time and content by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		m[rel] = fmt.Sprintf("%v %d", info.Mode(), info.ModTime().Unix())
		if !e.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			m[rel] += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func treeOf(t *testing.T, path string) *memdb.Tree {
	t.Helper()
	contents, err := sqlite.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	tree, dups, err := memdb.Build(contents.Entries)
	if err != nil || len(dups) > 0 {
		t.Fatal(err, dups)
	}
	return tree
}

func TestCheckFindsNothingInSoundDatabases(t *testing.T) {
	for name, want := range map[string]string{"varied": "is sound: 365 entries at version 775\n", "trace": "is sound: "} {
		path := recording(t, name)
		before := fingerprint(t, filepath.Dir(path))
		if out := mustRun(t, "db", "check", path); !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %s", name, out)
		}
		if after := fingerprint(t, filepath.Dir(path)); after != before {
			t.Errorf("check left traces:\n%s\nbefore:\n%s", after, before)
		}
	}
}

// brokenDatabases are statements that break a database, and what check says.
var brokenDatabases = map[string]struct{ statement, says string }{
	"empty name":          {"INSERT INTO tree VALUES (7,2,7,1,1,8,'',NULL)", `error: inode 7 (""): the name is empty`},
	"directory with data": {"INSERT INTO tree VALUES (7,2,7,1,1,4,'x',x'01')", `error: inode 7 ("x"): a directory with 1 bytes of data`},
	"type":                {"INSERT INTO tree VALUES (7,2,7,1,1,5,'x',NULL)", `error: inode 7 ("x"): type 5 is neither`},
	"inode 0":             {"UPDATE tree SET name='x' WHERE inode=0", `error: inode 0 ("x"): inode 0 must be the version row`},
	"no version row":      {"DELETE FROM tree WHERE inode=0", `error: inode 0 ("__version__"): the version row is missing; 3, the greatest`},
	"negative inode":      {"UPDATE tree SET inode=-5 WHERE inode=3", `error: inode 18446744073709551611 ("file"): the inode is negative: -5 in the file`},
	"negative mtime":      {"UPDATE tree SET mtime=-1 WHERE inode=3", `error: inode 3 ("file"): column mtime, -1, does not fit 32 bits`},
	"version ahead":       {"UPDATE tree SET version=21 WHERE inode=3", `error: inode 3 ("file"): the version, 21, is greater than the database's version 20`},
	"no rows":             {"DELETE FROM tree", `error: inode 0 (""): the`},
	"parent is a file":    {"INSERT INTO tree VALUES (7,3,7,1,1,8,'x',NULL)", `error: inode 7 ("x"): the parent, inode 3 ("file"), is not a directory`},
	"no parent":           {"INSERT INTO tree VALUES (7,99,7,1,1,8,'x',NULL)", `error: inode 7 ("x"): the parent, inode 99, does not exist`},
	"loop":                {"INSERT INTO tree VALUES (7,8,7,1,1,4,'x',NULL),(8,7,8,1,1,4,'y',NULL)", `the directory contains itself`},
	"duplicate name":      {"INSERT INTO tree VALUES (7,2,7,1,1,8,'file',NULL)", `error: inode 7 ("file"): the name exists twice in directory 2: also inode 3`},
	"wrong type":          {"INSERT INTO tree VALUES (7,'two',7,1,1,8,'x',NULL)", `error: inode 7 ("x"): column parent is not an integer but the text "two"`},
	"duplicate VMID": {"INSERT INTO tree VALUES (7,0,7,1,1,4,'nodes',NULL), (8,7,8,1,1,4,'n',NULL), (9,8,9,1,1,4,'lxc',NULL), (10,8,10,1,1,4,'qemu-server',NULL), " +
		"(11,9,15,1,1,8,'100.conf',NULL), (12,10,14,1,1,8,'100.conf',NULL)",
		`error: VMID 100 is claimed by "nodes/n/lxc/100.conf" and "nodes/n/qemu-server/100.conf"`},
}

// loadable are those of brokenDatabases that the daemon starts on, as the stock one
// does: they can be dumped and exported.
var loadable = map[string]bool{"duplicate VMID": true, "no version row": true, "negative inode": true, "negative mtime": true, "version ahead": true}

func TestBrokenDatabasesAreReportedRepairedAndLeftAlone(t *testing.T) {
	for name, test := range brokenDatabases {
		t.Run(name, func(t *testing.T) {
			path := plant(t, test.statement)
			before := fingerprint(t, filepath.Dir(path))

			status, out, _ := pmxcfs(t, "db", "check", path)
			if status != exit.Failure || !strings.Contains(out, test.says) || !strings.Contains(out, path+" is not sound: ") {
				t.Errorf("check: status %d, %s", status, out)
			}
			newPath := filepath.Join(t.TempDir(), "new.db")
			out = mustRun(t, "db", "repair", path, newPath)
			if !strings.Contains(out, "repaired: inode ") || !strings.Contains(out, newPath+" is sound") {
				t.Errorf("repair says %s", out)
			}
			mustRun(t, "db", "check", newPath)
			treeOf(t, newPath)
			if status, _, errs := pmxcfs(t, "db", "dump", path); status != exit.Failure && !loadable[name] {
				t.Errorf("dump: status %d, %s", status, errs)
			}
			exported := filepath.Join(t.TempDir(), "x")
			if status, _, errs := pmxcfs(t, "db", "export", path, exported); !loadable[name] && (status != exit.Failure || !strings.Contains(errs, path)) {
				t.Errorf("export: status %d, %s", status, errs)
			}
			if after := fingerprint(t, filepath.Dir(path)); after != before {
				t.Errorf("traces were left:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

func TestDamagedFileIsReportedAndRepaired(t *testing.T) {
	path := recording(t, "varied")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for i := 6 * page; i < 8*page; i++ {
		b[i] = 0xa5
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := fingerprint(t, filepath.Dir(path))
	status, out, _ := pmxcfs(t, "db", "check", path)
	if status != exit.Failure || !strings.Contains(out, "SQLite finds the file damaged") {
		t.Errorf("check: status %d, %s", status, out)
	}
	newPath := filepath.Join(t.TempDir(), "new.db")
	out = mustRun(t, "db", "repair", "-D", path, newPath)
	if !strings.Contains(out, "damaged: ") || !strings.Contains(out, "recovered: ") {
		t.Errorf("repair says %s", out)
	}
	mustRun(t, "db", "check", newPath)
	if _, n := treeOf(t, newPath).Usage(); n < 250 {
		t.Errorf("only %d of 365 entries survived two damaged pages", n)
	}
	if after := fingerprint(t, filepath.Dir(path)); after != before {
		t.Error("the damaged file was touched")
	}
}

func TestRepairOfASoundDatabaseCopiesIt(t *testing.T) {
	path := recording(t, "varied")
	newPath := filepath.Join(t.TempDir(), "new.db")
	if out := mustRun(t, "db", "repair", path, newPath); !strings.Contains(out, "nothing had to be repaired") {
		t.Errorf("repair says %s", out)
	}
	if got, want := treeOf(t, newPath).Checksum(), treeOf(t, path).Checksum(); got != want {
		t.Errorf("checksum %x, want %x", got, want)
	}
}

func TestExportAndImportKeepTheTree(t *testing.T) {
	for _, name := range []string{"varied", "trace"} {
		path := recording(t, name)
		work := t.TempDir()
		first, second := filepath.Join(work, "first"), filepath.Join(work, "second")
		newPath := filepath.Join(work, "new.db")
		mustRun(t, "db", "export", path, first)
		mustRun(t, "db", "import", first, newPath)
		mustRun(t, "db", "check", newPath)
		mustRun(t, "db", "-D", newPath, "export", second)

		old, now := treeOf(t, path), treeOf(t, newPath)
		if _, n := old.Usage(); len(files(t, first)) != n-1 {
			t.Errorf("%s: %d files of %d entries", name, len(files(t, first)), n)
		}
		for _, e := range old.Entries()[1:] {
			p, _ := old.Path(e.Inode)
			info, ok := now.Lookup(p)
			if !ok || info.Type != e.Type || info.MTime != e.MTime || !bytes.Equal(info.Data(), e.Data()) {
				t.Errorf("%s: %q is not the same after export and import", name, p)
			}
			st, err := os.Lstat(filepath.Join(first, p))
			if err != nil {
				t.Fatal(err)
			}
			want := map[bool]map[bool]fs.FileMode{
				false: {false: 0o640, true: fs.ModeDir | 0o755},
				true:  {false: 0o600, true: fs.ModeDir | 0o700},
			}[memdb.IsPrivate(p)][e.IsDir()]
			if st.Mode() != want {
				t.Errorf("%s: %q has the mode %v, want %v", name, p, st.Mode(), want)
			}
		}
		if a, b := fmt.Sprint(files(t, first)), fmt.Sprint(files(t, second)); a != b {
			t.Errorf("%s: the second export differs", name)
		}
		// The same directory gives the same database.
		again := filepath.Join(work, "again.db")
		mustRun(t, "db", "import", second, again)
		if a, b := treeOf(t, again).Checksum(), now.Checksum(); a != b {
			t.Errorf("%s: importing again gives another tree", name)
		}
	}
}

func TestNothingExistingIsOverwritten(t *testing.T) {
	path := recording(t, "trace")
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{taken, dangling} {
		for _, args := range [][]string{
			{"db", "repair", path, target},
			{"db", "import", tree, target},
			{"db", "-D", path, "backup", target},
		} {
			status, _, errs := pmxcfs(t, args...)
			if status != exit.Failure || !strings.Contains(errs, target) || !strings.Contains(errs, "exists") {
				t.Errorf("%v: status %d, %s", args, status, errs)
			}
		}
	}
	if status, _, errs := pmxcfs(t, "db", "export", path, dir); status != exit.Failure || !strings.Contains(errs, "not empty") {
		t.Errorf("export into a directory with files: status %d, %s", status, errs)
	}
	if status, _, errs := pmxcfs(t, "db", "export", path, taken); status != exit.Failure || !strings.Contains(errs, taken) {
		t.Errorf("export onto a file: status %d, %s", status, errs)
	}
	list, err := os.ReadDir(dir)
	if b, _ := os.ReadFile(taken); string(b) != "precious" || err != nil || len(list) != 2 {
		t.Errorf("the directory has %v, the file %q", list, b)
	}
}

func TestExportStaysInItsDirectory(t *testing.T) {
	path := plant(t,
		"INSERT INTO tree VALUES (7,0,7,1,1,8,'../escaped','a'), (8,0,8,1,1,4,'..',NULL), (9,8,9,1,1,8,'x','b'), (10,2,10,1,1,8,'.','c'), (11,2,11,1,1,8,'a/b','d'), (12,2,12,1,1,8,printf('%.300c','n'),'e')",
		"INSERT INTO tree VALUES (13,2,13,1,1,8,CAST(x'6e00' AS TEXT),'f'), (14,2,14,1,1,8,CAST(x'ff0a' AS TEXT),'g')")
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	status, _, errs := pmxcfs(t, "db", "export", path, target)
	if status != exit.OK || strings.Count(errs, "can't be a file's name") != 6 {
		t.Errorf("status %d, %s", status, errs)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%v", list)
	}
	contents := make(map[string]bool)
	for name := range files(t, target) {
		if b, err := os.ReadFile(filepath.Join(target, name)); err == nil {
			contents[string(b)] = true
		}
	}
	for _, c := range []string{"a", "b", "c", "d", "e", "f", "g", "text"} {
		if !contents[c] {
			t.Errorf("the content %q was not exported", c)
		}
	}
}

func TestImportRefusesWhatADatabaseCannotHold(t *testing.T) {
	tests := map[string]struct {
		make func(dir string) error
		says string
	}{
		"symbolic link": {func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "bad")) }, "bad: a symbolic link"},
		"link to a dir": {func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "bad")) }, "bad: a symbolic link"},
		"pipe":          {func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "bad"), 0o600) }, "bad: neither a file nor a directory"},
		"too large": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "bad"), make([]byte, memdb.MaxFileSize+1), 0o600)
		}, "bad: larger than 1048576 bytes"},
		"duplicate VMID": {func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "nodes/a/lxc"), 0o700), os.MkdirAll(filepath.Join(dir, "nodes/b/lxc"), 0o700),
				os.WriteFile(filepath.Join(dir, "nodes/a/lxc/100.conf"), nil, 0o600), os.WriteFile(filepath.Join(dir, "nodes/b/lxc/100.conf"), nil, 0o600))
		}, "VMID 100 is claimed by nodes/a/lxc/100.conf and nodes/b/lxc/100.conf"},
		"too much": {func(dir string) error {
			for i := range 129 { // files without blocks on the disk
				path := filepath.Join(dir, fmt.Sprint(i))
				if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, memdb.MaxFileSize)); err != nil {
					return err
				}
			}
			return nil
		}, "more than 134217728 bytes together"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir, target := t.TempDir(), filepath.Join(t.TempDir(), "new.db")
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "good"), []byte("x"), 0o600), test.make(dir)); err != nil {
				t.Fatal(err)
			}
			status, _, errs := pmxcfs(t, "db", "import", dir, target)
			if status != exit.Failure || !strings.Contains(errs, test.says) {
				t.Errorf("status %d, %s", status, errs)
			}
			if list, _ := os.ReadDir(filepath.Dir(target)); len(list) != 0 {
				t.Errorf("left: %v", list)
			}
		})
	}
}

func TestImportTakesLimitsAndTimesAsTheyAre(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "new.db")
	name := strings.Repeat("n", 255)
	if err := os.WriteFile(filepath.Join(dir, name), make([]byte, memdb.MaxFileSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, mtime := range map[string]int64{name: 1_234_567_890, "before": -5, "far": 1 << 33} {
		path := filepath.Join(dir, file)
		if file != name {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, time.Unix(mtime, 0), time.Unix(mtime, 0)); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "db", "import", dir, target)
	tree := treeOf(t, target)
	for file, want := range map[string]uint32{name: 1_234_567_890, "before": 0, "far": 1<<32 - 1} {
		if e, ok := tree.Lookup(file); !ok || e.MTime != want {
			t.Errorf("%.10s: %v, want the time %d", file, e.Entry, want)
		}
	}
	if root := tree.Root(); root.Version != 4 {
		t.Errorf("the version is %d", root.Version)
	}
}

func TestCreatePmxcfsDB(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "config.db")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "priv"), 0o700), os.WriteFile(filepath.Join(dir, "priv/key"), []byte("k"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if status := dbtool.CreateMain([]string{"/usr/bin/create_pmxcfs_db", dir, target}, &out, &errs); status != 0 || out.Len()+errs.Len() > 0 {
		t.Errorf("status %d, %s%s", status, &out, &errs)
	}
	if e, ok := treeOf(t, target).Lookup("priv/key"); !ok || string(e.Data()) != "k" {
		t.Errorf("%v", e)
	}
	if st, err := os.Stat(target); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{dir, target}, exit.Failure}, {[]string{dir + "/absent", target + "2"}, exit.Failure},
		{nil, exit.Usage}, {[]string{dir}, exit.Usage}, {[]string{dir, target, "x"}, exit.Usage}, {[]string{"-x", "y"}, exit.Usage},
		{[]string{"--help"}, exit.OK},
	} {
		out.Reset()
		errs.Reset()
		if status := dbtool.CreateMain(append([]string{"create_pmxcfs_db"}, test.args...), &out, &errs); status != test.want || out.Len()+errs.Len() == 0 {
			t.Errorf("%v: status %d, %s%s", test.args, status, &out, &errs)
		}
	}
}

func TestCommandsWorkBesideAnOpenDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	db, entries, _, err := sqlite.Open(sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tree, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	do := func(op memdb.Op) {
		t.Helper()
		res, err := tree.Apply(&op)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Commit(res.Changes); err != nil {
			t.Fatal(err)
		}
	}
	do(memdb.Op{Kind: memdb.OpCreate, Path: "file"})
	do(memdb.Op{Kind: memdb.OpWrite, Path: "file", Data: []byte("content")})

	work := t.TempDir()
	backup := filepath.Join(work, "backup.db")
	if out := mustRun(t, "db", "--database", path, "backup", backup); !strings.Contains(out, "holds 2 entries at version 3") {
		t.Errorf("backup says %s", out)
	}
	if got, want := treeOf(t, backup).Checksum(), tree.Checksum(); got != want {
		t.Error("the backup differs from the tree")
	}
	mustRun(t, "db", "-D", path, "check")
	mustRun(t, "db", "check", "-D", path)
	mustRun(t, "db", "export", path, filepath.Join(work, "exported"))
	if out := mustRun(t, "db", "dump", path); !strings.Contains(out, "/file") {
		t.Errorf("dump says %s", out)
	}
	mustRun(t, "db", "repair", path, filepath.Join(work, "repaired.db"))
	do(memdb.Op{Kind: memdb.OpDelete, Path: "file"})
	if got := treeOf(t, path); got.Checksum() != tree.Checksum() {
		t.Error("the daemon can't write any more")
	}
}

func TestDumpListsEverything(t *testing.T) {
	path := plant(t, "INSERT INTO tree VALUES (7,0,9,5,86400,8,CAST(x'6f64640a' AS TEXT),CAST(x'6c696e650a01' AS BLOB)), (8,0,8,1,1,8,CAST(x'ff' AS TEXT),NULL)")
	want := `TYPE           INODE    VERSION WRITER CHANGED                  SIZE PATH
directory          0         20      1 1970-01-01T00:16:40Z        0 /
directory          2          2      1 1970-01-01T00:16:40Z        0 /dir
file               3          3      1 1970-01-01T00:16:40Z        4 /dir/file
	text
\ no newline at the end
file               7          9      5 1970-01-02T00:00:00Z        6 "/odd\n"
	line
	"\x01"
\ no newline at the end
file               8          8      1 1970-01-01T00:00:01Z        0 "/\xff"
`
	if out := mustRun(t, "db", "dump", "--content", path); out != want {
		t.Errorf("dump is\n%s\nwant\n%s", out, want)
	}
	if out := mustRun(t, "db", "dump", path); strings.Contains(out, "line") || strings.Count(out, "\n") != 6 {
		t.Errorf("without content:\n%s", out)
	}
}

func TestDumpAsJSONHoldsEverything(t *testing.T) {
	path := recording(t, "varied")
	tree := treeOf(t, path)
	var dump struct {
		Version uint64
		Entries []struct {
			Path                   string
			PathBytes              []byte `json:"path_base64"`
			Type                   string
			Inode, Parent, Version uint64
			Writer, MTime          uint32
			Size                   int
			Content                []byte
		}
	}
	if err := json.Unmarshal([]byte(mustRun(t, "db", "dump", "--json", "--content", path)), &dump); err != nil {
		t.Fatal(err)
	}
	if dump.Version != 775 || len(dump.Entries) != 365 {
		t.Errorf("version %d, %d entries", dump.Version, len(dump.Entries))
	}
	for _, d := range dump.Entries {
		p := d.Path
		if d.PathBytes != nil {
			p = string(d.PathBytes)
		}
		e, ok := tree.Lookup(memdb.CleanPath(p))
		if !ok || e.Inode != d.Inode || e.Parent != d.Parent || e.Version != d.Version || e.Writer != d.Writer ||
			e.MTime != d.MTime || e.Size() != d.Size || e.Type.String() != d.Type || !bytes.Equal(e.Data(), d.Content) {
			t.Errorf("%q: %+v", p, d)
		}
	}
	if out := mustRun(t, "db", "dump", "--json", path); strings.Contains(out, `"content"`) || !json.Valid([]byte(out)) {
		t.Error("without content there is content, or no JSON")
	}
}

func TestDumpShowsWhatCannotBeReached(t *testing.T) {
	path := plant(t, "INSERT INTO tree VALUES (7,99,7,1,1,8,'orphan',NULL), (8,9,8,1,1,4,'x',NULL), (9,8,9,1,1,4,'y',NULL)")
	status, out, errs := pmxcfs(t, "db", "dump", path)
	if status != exit.Failure || !strings.Contains(out, "/<inode 99>/orphan") || !strings.Contains(out, "/dir/file") || !strings.Contains(errs, "inode 99") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

func TestWrongUsageHasAStatusOfItsOwn(t *testing.T) {
	for _, args := range [][]string{
		{"db"}, {"db", "frobnicate"}, {"db", "--frobnicate"}, {"db", "check", "--frobnicate"}, {"db", "check", "a", "b"},
		{"db", "repair"}, {"db", "repair", "a", "b", "c"}, {"db", "export"}, {"db", "import"}, {"db", "import", "a"},
		{"db", "backup"}, {"db", "backup", "a", "b"}, {"db", "check", "file", "--json"},
		{"db", "check", ""}, {"db", "export", ""}, {"db", "import", "", "a"}, {"db", "check", "-D", ""}, {"db", "--database=", "dump"},
		{"--database", "", "db", "check"}, {"--root", "", "db", "check"}, {"--root", "", "db", "backup", "a"},
	} {
		status, out, errs := pmxcfs(t, args...)
		if status != exit.Usage || !strings.HasPrefix(errs, "pmxcfs: db") || strings.Count(errs, "\n") != 1 || out != "" {
			t.Errorf("%v: status %d, %q, %q", args, status, out, errs)
		}
	}
	for _, args := range [][]string{{"db", "check", "/nonexistent/config.db"}, {"db", "check", "/dev/null"}, {"db", "check", t.TempDir()}} {
		if status, _, errs := pmxcfs(t, args...); status != exit.Failure || !strings.Contains(errs, args[2]) {
			t.Errorf("%v: status %d, %q", args, status, errs)
		}
	}
}

func TestDatabasePathComesFromTheInnermostOption(t *testing.T) {
	path, other := recording(t, "varied"), recording(t, "trace")
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib/pve-cluster"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "db", "repair", path, filepath.Join(root, "var/lib/pve-cluster/config.db"))
	for _, args := range [][]string{
		{"db", "check", path},
		{"db", "check", "-D", path},
		{"db", "-D", path, "check"},
		{"--database", path, "db", "check"},
		{"--database", other, "db", "-D", path, "check"},
		{"--database", other, "db", "check", "--database", path},
		{"db", "-D", other, "check", path},
		{"--root", root, "db", "check"},
	} {
		if out := mustRun(t, args...); !strings.Contains(out, "365 entries") {
			t.Errorf("%v: %s", args, out)
		}
	}
	t.Setenv("PMXCFS_DATABASE", path)
	if out := mustRun(t, "db", "check"); !strings.Contains(out, "365 entries") {
		t.Errorf("by the environment: %s", out)
	}
	for _, args := range [][]string{{"db", "check", "-D", other}, {"db", "-D", other, "check"}, {"--database", other, "db", "check"}} {
		if out := mustRun(t, args...); strings.Contains(out, "365 entries") {
			t.Errorf("%v: an option does not override the environment: %s", args, out)
		}
	}
}

func TestEachCommandExplainsItself(t *testing.T) {
	for _, c := range dbtool.Command().Subcommands {
		out := mustRun(t, "db", c.Name, "--help")
		if !strings.Contains(out, c.ArgsUsage) || !strings.Contains(out, c.Usage) || !strings.Contains(out, "--database") {
			t.Errorf("%s: %s", c.Name, out)
		}
	}
	if out := mustRun(t, "db", "--help"); !slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool { return strings.Contains(l, "repair") }) {
		t.Errorf("%s", out)
	}
}

// TestDeepChainsAndCyclesAreListedInBoundedRoom has 20,000 directories, each in the
// other, with and without an end.
func TestDeepChainsAndCyclesAreListedInBoundedRoom(t *testing.T) {
	const chain = "INSERT INTO tree WITH RECURSIVE c(n) AS (SELECT 21 UNION ALL SELECT n+1 FROM c WHERE n<20020) SELECT n, CASE n WHEN 21 THEN 0 ELSE n-1 END, n, 0, 0, 4, 'directory', NULL FROM c"
	for name, test := range map[string]struct {
		statements []string
		status     int
	}{
		"chain": {[]string{chain, "UPDATE tree SET version=30000 WHERE inode=0"}, exit.OK},
		"cycle": {[]string{chain, "UPDATE tree SET version=30000 WHERE inode=0", "UPDATE tree SET parent=20020 WHERE inode=21"}, exit.Failure},
	} {
		t.Run(name, func(t *testing.T) {
			path := plant(t, test.statements...)
			status, out, errs := pmxcfs(t, "db", "dump", path)
			if status != test.status {
				t.Errorf("dump: status %d, %s", status, errs)
			}
			if n := strings.Count(out, "\n"); n != 20004 {
				t.Errorf("%d lines", n)
			}
			if len(out) > 20004*1200 {
				t.Errorf("%d bytes", len(out))
			}
			dir := filepath.Join(t.TempDir(), "x")
			status, _, errs = pmxcfs(t, "db", "export", path, dir)
			if status != exit.Failure || test.status == exit.OK && !strings.Contains(errs, "more than 500 directories deep") {
				t.Errorf("export: status %d, %s", status, errs)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("the export has begun")
			}
		})
	}
}
