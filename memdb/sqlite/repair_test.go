package sqlite

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/memdb"
)

// repaired repairs rows and fails the test unless a sound tree comes out that
// has all their contents.
func repaired(tb testing.TB, rows []Row) (*memdb.Tree, []Fix) {
	tb.Helper()
	entries, fixes := Repair(rows)
	for _, p := range memdb.Check(entries) {
		if p.Fatal || !strings.HasPrefix(p.What, "a file of ") && !strings.HasPrefix(p.What, "the name has ") {
			tb.Fatalf("after the repair: %v\nrows %v\nfixes %v", p, rows, fixes)
		}
	}
	tree, dups, err := memdb.Build(entries)
	if err != nil || len(dups) > 0 {
		tb.Fatalf("after the repair: %v %v", err, dups)
	}
	have := make(map[string]bool)
	for _, e := range entries {
		have[string(e.Data())] = true
	}
	for _, row := range rows {
		if data, ok := bytesOf(row[7]); ok && len(data) > 0 && !have[string(data)] {
			tb.Fatalf("the data of %v was lost; fixes %v", row, fixes)
		}
	}
	return tree, fixes
}

func TestRepairLeavesASoundDatabaseAsItIs(t *testing.T) {
	for _, name := range []string{"varied", "trace"} {
		path := unpack(t, name+".db.gz")
		rows, err := ReadRows(path)
		if err != nil {
			t.Fatal(err)
		}
		tree, fixes := repaired(t, rows)
		if len(fixes) > 0 {
			t.Errorf("%s: fixes %v", name, fixes)
		}
		contents, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, tree.Entries(), contents.Entries)
	}
}

func TestEveryBrokenRowIsRepaired(t *testing.T) {
	for name, test := range brokenRows {
		t.Run(name, func(t *testing.T) {
			rows, err := ReadRows(plant(t, test.statement))
			if err != nil {
				t.Fatal(err)
			}
			tree, fixes := repaired(t, rows)
			if len(fixes) < 2 { // the thing itself, and the root's time
				t.Errorf("fixes: %v", fixes)
			}
			if e, ok := tree.Lookup("dir/file"); name != "duplicate name" && (!ok || string(e.Data()) != "text") {
				t.Errorf("what was sound is gone; fixes %v", fixes)
			}
			if root := tree.Root(); root.Version > 20 {
				t.Errorf("the version was raised to %d", root.Version)
			}
		})
	}
}

func TestRepairPutsThingsWhereItSays(t *testing.T) {
	tests := map[string]struct {
		statement string
		want      map[string]string // path → content; "dir" for a directory
	}{
		"orphan":             {"INSERT INTO tree VALUES (7,99,7,1,1,8,'x','orphan')", map[string]string{"priv/lost+found/x.inode-7": "orphan"}},
		"child of a file":    {"INSERT INTO tree VALUES (7,3,7,1,1,8,'x','child')", map[string]string{"priv/lost+found/x.inode-7": "child", "dir/file": "text"}},
		"child of an empty":  {"UPDATE tree SET data=NULL; INSERT INTO tree VALUES (7,3,7,1,1,8,'x','child')", map[string]string{"dir/file/x": "child"}},
		"younger duplicate":  {"INSERT INTO tree VALUES (7,2,7,1,1,8,'file','young')", map[string]string{"dir/file": "young", "priv/lost+found/file.inode-3": "text"}},
		"duplicate with sub": {"INSERT INTO tree VALUES (7,0,7,1,1,4,'dir',NULL)", map[string]string{"dir": "dir", "dir/file": "text"}},
		"two node directories": {"INSERT INTO tree VALUES (7,0,7,1,1,4,'nodes',NULL), (8,7,8,1,1,4,'n',NULL), (9,7,9,1,1,4,'n',NULL), " +
			"(10,8,10,1,1,4,'lxc',NULL), (11,9,11,1,1,4,'lxc',NULL), (12,10,12,1,1,8,'100.conf','a'), (13,10,13,1,1,8,'101.conf','b'), (14,11,14,1,1,8,'102.conf','c'), (15,11,15,1,1,8,'101.conf','young')",
			map[string]string{"nodes/n/lxc/100.conf": "a", "nodes/n/lxc/101.conf": "young", "nodes/n/lxc/102.conf": "c", "priv/lost+found/101.conf.inode-13": "b"}},
		"file beside a directory": {"INSERT INTO tree VALUES (7,0,7,1,1,8,'dir','young')", map[string]string{"dir/file": "text", "priv/lost+found/dir.inode-7": "young"}},
		"directory's data":        {"UPDATE tree SET data='odd' WHERE inode=2", map[string]string{"dir/file": "text", "priv/lost+found/dir.inode-2": "odd"}},
		"slash":                   {"INSERT INTO tree VALUES (7,2,7,1,1,8,'a/b','s')", map[string]string{"dir/a_b": "s"}},
		"long name":               {"INSERT INTO tree VALUES (7,2,7,1,1,8,printf('%.300c','n'),'s')", map[string]string{"dir/" + strings.Repeat("n", 300): "s"}},
		"name never shown":        {"INSERT INTO tree VALUES (7,2,7,1,1,8,printf('%.1025c','n'),'s')", map[string]string{"dir/" + strings.Repeat("n", 1024): "s"}},
		"empty name":              {"INSERT INTO tree VALUES (7,2,7,1,1,8,'','s')", map[string]string{"dir/inode-7": "s"}},
		"priv is a file":          {"INSERT INTO tree VALUES (7,0,7,1,1,8,'priv','s'), (8,99,8,1,1,8,'x','o')", map[string]string{"priv/lost+found/priv.inode-7": "s", "priv/lost+found/x.inode-8": "o"}},
		"two priv":                {"INSERT INTO tree VALUES (7,0,7,1,1,4,'priv',NULL), (8,0,8,1,1,4,'priv',NULL), (9,7,9,1,1,8,'key','k')", map[string]string{"priv/key": "k"}},
		"duplicate guest": {"INSERT INTO tree VALUES (7,0,7,1,1,4,'nodes',NULL), (8,7,8,1,1,4,'n',NULL), (9,8,9,1,1,4,'lxc',NULL), (10,8,10,1,1,4,'qemu-server',NULL), " +
			"(11,9,15,1,1,8,'100.conf','young'), (12,10,14,1,1,8,'100.conf','old')",
			map[string]string{"nodes/n/lxc/100.conf": "young", "priv/lost+found/100.conf.inode-12": "old"}},
		"type with children": {"UPDATE tree SET type=77 WHERE inode=2", map[string]string{"dir/file": "text"}},
		"beyond the version": {"INSERT INTO tree VALUES (70,0,70,1,1,4,'x',NULL), (71,70,71,1,1,8,'y','yy')", map[string]string{"x/y": "yy"}},
		"number as text":     {"UPDATE tree SET parent='2' WHERE inode=3", map[string]string{"dir/file": "text"}},
		"no version row":     {"DELETE FROM tree WHERE inode=0", map[string]string{"dir/file": "text"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var statements []string
			for q := range strings.SplitSeq(test.statement, "; ") {
				statements = append(statements, q)
			}
			rows, err := ReadRows(plant(t, statements...))
			if err != nil {
				t.Fatal(err)
			}
			tree, fixes := repaired(t, rows)
			for path, want := range test.want {
				e, ok := tree.Lookup(path)
				switch {
				case !ok:
					t.Errorf("%s is not there", path)
				case want == "dir" != e.IsDir(), want != "dir" && want != string(e.Data()):
					t.Errorf("%s is %s, %q", path, describe(e.Entry), e.Data())
				}
			}
			if t.Failed() {
				t.Logf("fixes %v", fixes)
			}
		})
	}
}

// randomRows returns rows that break every rule, out of a few values.
func randomRows(r *rand.Rand) []Row {
	rows := make([]Row, r.IntN(40))
	names := []any{"a", "b", "priv", "lost+found", "nodes", "n", "lxc", "qemu-server", "100.conf", "100.conf", "", ".", "x/y", nil, []byte("b"), int64(5), strings.Repeat("n", 300), "inode-3", "a.inode-3", versionName}
	number := func(common int) any {
		switch r.IntN(12) {
		case 0:
			return []any{nil, "7", "seven", 1.5, []byte("3"), int64(-1), int64(1) << 62, int64(-1) << 63}[r.IntN(8)]
		default:
			return int64(r.IntN(common))
		}
	}
	for i := range rows {
		var typ any = int64(4 + 4*r.IntN(2))
		if r.IntN(10) == 0 {
			typ = number(300)
		}
		var data any
		if r.IntN(2) == 0 {
			data = []any{[]byte(fmt.Sprint("content ", r.IntN(30))), fmt.Sprint("text ", r.IntN(30)), int64(3), 2.5}[r.IntN(4)]
		}
		rows[i] = Row{number(20), number(20), number(40), number(5), number(5000), typ, names[r.IntN(len(names))], data}
		if r.IntN(15) == 0 {
			rows[i] = Row{int64(0), int64(0), number(60), int64(1), int64(1), int64(8), versionName, nil}
		}
	}
	return rows
}

func TestRepairMakesAnyRowsSoundAndLosesNoContent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		rows := randomRows(r)
		tree, _ := repaired(t, rows)
		// What was repaired is sound: it comes through a second time unchanged.
		var again []Row
		for _, e := range tree.Entries() {
			row := Row{int64(e.Inode), int64(e.Parent), int64(e.Version), int64(e.Writer), int64(e.MTime), int64(e.Type), e.Name, nil}
			if e.Size() > 0 {
				row[7] = e.Data()
			}
			if e.Inode == memdb.RootInode {
				row[5], row[6] = int64(memdb.TypeFile), versionName
			}
			again = append(again, row)
		}
		if _, fixes := Repair(again); len(fixes) > 0 {
			t.Fatalf("repairing twice: %v\nrows %v", fixes, rows)
		}
	}
}

func TestRecoverFindsAllRowsOfAFileWithoutItsFirstPage(t *testing.T) {
	path := unpack(t, "varied.db.gz")
	want, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	b := testdata(t, "varied.db.gz")
	clear(b[:pageSize])
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !Damaged(err) {
		t.Fatalf("Read: %v", err)
	}
	before := fingerprint(t, filepath.Dir(path))
	rows, notes, err := Recover(path)
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	entries, _ := Repair(rows)
	compareWithoutRoot(t, entries, want.Entries)
	if after := fingerprint(t, filepath.Dir(path)); after != before {
		t.Error("the damaged file was touched")
	}
}

// compareWithoutRoot compares entries, but for the database's own.
func compareWithoutRoot(tb testing.TB, got, want []*memdb.Entry) {
	tb.Helper()
	sameEntries(tb, got[1:], want[1:])
}

func TestRecoverReadsTheLog(t *testing.T) {
	s := newStore(t)
	for i := range 200 {
		s.mustCommit(create(fmt.Sprint(i)), write(fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, i*100)))
	}
	killed := filepath.Join(t.TempDir(), "config.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(s.path+suffix, killed+suffix, nil); err != nil {
			t.Fatal(err)
		}
	}
	rows, notes, err := Recover(killed)
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	entries, _ := Repair(rows)
	sameEntries(t, entries, s.tree.Entries())
}

func TestRecoverKeepsWhatSurvivesRandomDamage(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	sound := testdata(t, "varied.db.gz")
	all, torn := salvage(sound)
	if len(all) != 365 || torn != 0 {
		t.Fatalf("%d rows of the sound file, %d torn", len(all), torn)
	}
	for range 20 {
		b := bytes.Clone(sound)
		const pages = 3
		for range pages {
			page := b[r.IntN(len(b)/pageSize)*pageSize:][:pageSize]
			for i := 0; i < len(page); i += 8 {
				binary.LittleEndian.PutUint64(page[i:], r.Uint64())
			}
		}
		rows, _ := salvage(b)
		if len(rows) < len(all)/2 {
			t.Errorf("of %d rows, only %d survived %d damaged pages of %d", len(all), len(rows), pages, len(b)/pageSize)
		}
		repaired(t, rows)
	}
}

func TestDeletedRowsDoNotComeBackFromFreePages(t *testing.T) {
	s := newStore(t)
	for i := range 300 {
		s.mustCommit(create(fmt.Sprint(i)), write(fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 1000)))
	}
	for i := range 290 {
		s.mustCommit(remove(fmt.Sprint(i)))
	}
	s.close()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint32(b[36:]) < 20 {
		t.Fatal("the file has hardly any free pages: this shows nothing")
	}
	rows, _ := salvage(b)
	if len(rows) != 11 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestTornFilesKeepTheirBeginning(t *testing.T) {
	s := newStore(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	s.mustCommit(create("x"), write("x", content))
	s.close()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	rows, torn := salvage(b[:len(b)-pageSize])
	i := slices.IndexFunc(rows, func(r Row) bool { return r[6] == "x" })
	if torn != 1 || i < 0 {
		t.Fatalf("%d torn, %d rows", torn, len(rows))
	}
	if got := rows[i][7].([]byte); len(got) < 4000 || !bytes.HasPrefix(content, got) {
		t.Errorf("%d bytes were kept", len(got))
	}
}
