package memdb

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func rootEntry() *Entry { return NewEntry(0, 0, 1000, 0, 0, TypeDir, "", nil) }

func dirEntry(inode, parent uint64, name string) *Entry {
	return NewEntry(inode, parent, inode, 0, 0, TypeDir, name, nil)
}

func fileEntry(inode, parent uint64, name string) *Entry {
	return NewEntry(inode, parent, inode, 0, 0, TypeFile, name, []byte("x"))
}

func TestBrokenRowsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		fatal bool
		rows  []*Entry
		want  []string
	}{
		{"no rows", true, []*Entry{}, []string{`inode 0 (""): the root is missing`}},
		{"no root", true, []*Entry{fileEntry(2, 3, "f"), dirEntry(3, 0, "d")},
			[]string{`inode 0 (""): the root is missing`, `inode 3 ("d"): the parent, inode 0, does not exist`}},
		{"a root with a name", true, []*Entry{dirEntry(0, 0, "x")}, []string{`inode 0 ("x"): the root is not a directory without a name`}},
		{"a root that is a file", true, []*Entry{NewEntry(0, 0, 1, 0, 0, TypeFile, "", nil)}, []string{`inode 0 (""): the root is not a directory without a name`}},
		{"a root in a directory", true, []*Entry{dirEntry(0, 2, ""), dirEntry(2, 0, "d")}, []string{
			`inode 0 (""): the root is not a directory without a name`, `inode 2 ("d"): the inode is greater than the database's version 0`,
			`inode 2 ("d"): the version, 2, is greater than the database's version 0`}},
		{"a root with data", true, []*Entry{NewEntry(0, 0, 1, 0, 0, TypeDir, "", []byte("xy"))}, []string{`inode 0 (""): a directory with 2 bytes of data`}},
		{"an empty name", true, []*Entry{rootEntry(), fileEntry(2, 0, "")}, []string{`inode 2 (""): the name is empty`}},
		{"a directory with data", true, []*Entry{rootEntry(), NewEntry(2, 0, 2, 0, 0, TypeDir, "d", []byte("abc"))},
			[]string{`inode 2 ("d"): a directory with 3 bytes of data`}},
		{"a type that there is not", true, []*Entry{rootEntry(), NewEntry(2, 0, 2, 0, 0, 10, "l", nil)},
			[]string{`inode 2 ("l"): type 10 is neither file (8) nor directory (4)`}},
		{"type 0", true, []*Entry{rootEntry(), NewEntry(2, 0, 2, 0, 0, 0, "l", nil)},
			[]string{`inode 2 ("l"): type 0 is neither file (8) nor directory (4)`}},
		{"a parent that is a file", true, []*Entry{rootEntry(), fileEntry(2, 0, "f"), fileEntry(3, 2, "g")},
			[]string{`inode 3 ("g"): the parent, inode 2 ("f"), is not a directory`}},
		{"an entry that is its own parent, and a file", true, []*Entry{rootEntry(), fileEntry(2, 2, "f")},
			[]string{`inode 2 ("f"): the parent, inode 2 ("f"), is not a directory`, `inode 2 ("f"): the directory contains itself`}},
		{"a parent that does not exist", true, []*Entry{rootEntry(), fileEntry(2, 7, "f")},
			[]string{`inode 2 ("f"): the parent, inode 7, does not exist`}},
		{"a name twice", true, []*Entry{rootEntry(), fileEntry(2, 0, "f"), dirEntry(3, 0, "f")},
			[]string{`inode 3 ("f"): the name exists twice in directory 0: also inode 2`}},
		{"an inode twice", true, []*Entry{rootEntry(), fileEntry(2, 0, "f"), fileEntry(2, 0, "g")},
			[]string{`inode 2 ("g"): the inode occurs twice`}},
		{"the root twice", true, []*Entry{rootEntry(), rootEntry()}, []string{`inode 0 (""): the inode occurs twice`}},
		{"a directory that is its own parent", true, []*Entry{rootEntry(), dirEntry(2, 2, "d")},
			[]string{`inode 2 ("d"): the directory contains itself`}},
		{"a loop of two", true, []*Entry{rootEntry(), dirEntry(2, 3, "d"), dirEntry(3, 2, "e"), fileEntry(4, 3, "f")},
			[]string{`inode 2 ("d"): the directory contains itself`}},
		{"a loop that a file leads into", true, []*Entry{rootEntry(), fileEntry(5, 2, "f"), dirEntry(2, 3, "d"), dirEntry(3, 4, "e"), dirEntry(4, 2, "g")},
			[]string{`inode 2 ("d"): the directory contains itself`}},
		{"two loops", true, []*Entry{rootEntry(), dirEntry(2, 3, "d"), dirEntry(3, 2, "e"), dirEntry(5, 5, "x")},
			[]string{`inode 2 ("d"): the directory contains itself`, `inode 5 ("x"): the directory contains itself`}},
		{"several at once", true, []*Entry{rootEntry(), fileEntry(2, 9, ""), NewEntry(3, 0, 3, 0, 0, 1, "t", nil)},
			[]string{`inode 2 (""): the name is empty`, `inode 2 (""): the parent, inode 9, does not exist`, `inode 3 ("t"): type 1 is neither file (8) nor directory (4)`}},

		{"a name with a slash", false, []*Entry{rootEntry(), fileEntry(2, 0, "a/b")}, []string{`inode 2 ("a/b"): the name can't be reached through a mount`}},
		{"a name of dots", false, []*Entry{rootEntry(), fileEntry(2, 0, "..")}, []string{`inode 2 (".."): the name can't be reached through a mount`}},
		{"a name with a NUL", false, []*Entry{rootEntry(), fileEntry(2, 0, "a\x00")}, []string{`inode 2 ("a\x00"): the name can't be reached through a mount`}},
		{"a name that is too long", false, []*Entry{rootEntry(), fileEntry(2, 0, strings.Repeat("n", 256))},
			[]string{`inode 2 ("` + strings.Repeat("n", 256) + `"): the name has 256 bytes, more than 255`}},
		{"a file that is too large", false, []*Entry{rootEntry(), NewEntry(2, 0, 2, 0, 0, TypeFile, "f", make([]byte, MaxFileSize+1))},
			[]string{`inode 2 ("f"): a file of 1048577 bytes, more than 1048576`}},
		{"an inode ahead of the database", false, []*Entry{rootEntry(), fileEntry(1001, 0, "f")},
			[]string{`inode 1001 ("f"): the inode is greater than the database's version 1000`, `inode 1001 ("f"): the version, 1001, is greater than the database's version 1000`}},
		{"a negative inode", false, []*Entry{rootEntry(), NewEntry(1<<64-5, 0, 2, 0, 0, TypeFile, "f", nil)},
			[]string{`inode 18446744073709551611 ("f"): the inode is negative: -5 in the file`}},
		{"a negative version", false, []*Entry{rootEntry(), NewEntry(2, 0, 1<<64-5, 0, 0, TypeFile, "f", nil)},
			[]string{`inode 2 ("f"): the version, -5 in the file, is not between 0 and 4611686018427387903`}},
		{"a version ahead of the database's", false, []*Entry{rootEntry(), NewEntry(2, 0, 1001, 0, 0, TypeFile, "f", nil)},
			[]string{`inode 2 ("f"): the version, 1001, is greater than the database's version 1000`}},
		{"an inode that a mount shows inode 1 by", true, []*Entry{NewEntry(0, 0, MaxVersion, 0, 0, TypeDir, "", nil), NewEntry(1<<62, 0, 2, 0, 0, TypeFile, "f", nil)},
			[]string{`inode 4611686018427387904 ("f"): the inode is one of those that a mount uses for itself, from 4611686018427387904 on`}},
		{"an inode that a mount shows a special file by", true, []*Entry{rootEntry(), NewEntry(1<<63+3, 0, 2, 0, 0, TypeFile, "f", nil)},
			[]string{`inode 9223372036854775811 ("f"): the inode is one of those that a mount uses for itself, from 4611686018427387904 on`}},
		{"a version of 0", true, []*Entry{NewEntry(0, 0, 0, 0, 0, TypeDir, "", nil)},
			[]string{`inode 0 (""): the database's version is 0, which is not between 1 and 4611686018427387903`}},
		{"a version that is too great", true, []*Entry{NewEntry(0, 0, MaxVersion+1, 0, 0, TypeDir, "", nil)},
			[]string{`inode 0 (""): the database's version is 4611686018427387904, which is not between 1 and 4611686018427387903`}},
		{"a negative version of the database", true, []*Entry{NewEntry(0, 0, 1<<64-1, 0, 0, TypeDir, "", nil)},
			[]string{`inode 0 (""): the database's version is -1, which is not between 1 and 4611686018427387903`}},
		{"nothing wrong", false, []*Entry{rootEntry(), fileEntry(9, 8, "f"), dirEntry(8, 1000, "d"), dirEntry(1000, 0, "f"),
			NewEntry(4, 0, 2, 0, 0, TypeFile, strings.Repeat("n", 255), make([]byte, MaxFileSize))}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			fatal := false
			for _, p := range Check(c.rows) {
				got = append(got, p.String())
				fatal = fatal || p.Fatal
				if p.Fatal && !p.Unsound {
					t.Errorf("%v is fatal, but sound", p)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("problems are %q, want %q", got, c.want)
			}
			if fatal != c.fatal {
				t.Errorf("fatal: %v", fatal)
			}
			tr, _, err := Build(c.rows)
			if !c.fatal {
				if err != nil {
					t.Fatal(err)
				}
				checkSound(t, tr)
				return
			}
			var le *LoadError
			if !errors.As(err, &le) || tr != nil {
				t.Fatalf("Build answers %v", err)
			}
			for _, p := range le.Problems {
				if !p.Fatal {
					t.Errorf("the error lists the warning %v", p)
				}
			}
			if !strings.Contains(err.Error(), le.Problems[0].String()) {
				t.Errorf("the error does not name the row: %v", err)
			}
			if n := len(le.Problems); n > 1 && !strings.HasSuffix(err.Error(), "(and "+itoa(uint64(n-1))+" more)") {
				t.Errorf("the error does not count %d problems: %v", n, err)
			}
		})
	}
}

func TestBuildLeavesTheRowsAlone(t *testing.T) {
	rows := []*Entry{fileEntry(3, 2, "f"), rootEntry(), dirEntry(2, 0, "d")}
	order := slices.Clone(rows)
	tr := build(t, rows)
	if !slices.Equal(rows, order) {
		t.Error("Build sorted the caller's rows")
	}
	if !slices.Equal(tr.Entries(), []*Entry{rows[1], rows[2], rows[0]}) {
		t.Error("the tree holds other entries")
	}
}

func TestDuplicateGuestsAreReportedAndTheOlderKept(t *testing.T) {
	entries := plant(t, append(cluster, "nodes/a/lxc/100.conf", "nodes/a/lxc/101.conf", "nodes/b/lxc/x", "nodes/b/lxc/y")...).Entries()
	for i, e := range entries { // the newer configurations get the older ones' VMIDs
		switch e.Name {
		case "x":
			entries[i] = NewEntry(e.Inode, e.Parent, e.Version, 0, 0, TypeFile, "100.conf", nil)
		case "y":
			entries[i] = NewEntry(e.Inode, e.Parent, e.Version, 0, 0, TypeFile, "101.conf", nil)
		}
	}
	tr, dups, err := Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	want := []Duplicate{{100, "nodes/a/lxc/100.conf", "nodes/b/lxc/100.conf"}, {101, "nodes/a/lxc/101.conf", "nodes/b/lxc/101.conf"}}
	if !slices.Equal(dups, want) {
		t.Errorf("duplicates are %v", dups)
	}
	if msg := (&DuplicateError{dups}).Error(); msg != "VMID 100 is claimed by nodes/a/lxc/100.conf and nodes/b/lxc/100.conf; "+
		"VMID 101 is claimed by nodes/a/lxc/101.conf and nodes/b/lxc/101.conf" {
		t.Error(msg)
	}
	wantGuests(t, tr, 1, Guest{100, "a", GuestLXC, 1}, Guest{101, "a", GuestLXC, 2})
}

func TestOnlyFilesAreGuestsWhenTheListIsRebuilt(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/lxc/100.conf/", "nodes/a/lxc/101.conf")...)
	wantGuests(t, build(t, tr.Entries()), 1, Guest{101, "a", GuestLXC, 1})
}

func TestANameWithSlashesIsNoGuest(t *testing.T) {
	tr := build(t, []*Entry{rootEntry(), fileEntry(2, 0, "nodes/a/lxc/100.conf"), dirEntry(3, 0, "nodes/a"), fileEntry(4, 3, "lxc/101.conf")})
	wantGuests(t, tr, 0)
}
