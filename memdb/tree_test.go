package memdb

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func names(list []*Entry) (names []string) {
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

func TestReadDirIsSortedAndPresent(t *testing.T) {
	tr := plant(t, "d/", "d/b", "d/a", "d/B", "d/ä", "d/a b/", "d/10", "d/9", "f=x")
	d, _ := tr.Lookup("d")
	want := func(want ...string) {
		t.Helper()
		list, ok := tr.ReadDir(d.Inode)
		if got := names(list); !ok || !slices.Equal(got, want) {
			t.Errorf("the directory lists %q (%v), want %q", got, ok, want)
		}
		for _, e := range list {
			if now, _ := tr.Get(e.Inode); now.Entry != e {
				t.Errorf("%q is listed in an old state", e.Name)
			}
		}
		checkSound(t, tr)
	}
	want("10", "9", "B", "a", "a b", "b", "ä")
	do(t, tr, opCreate("d/c"))
	want("10", "9", "B", "a", "a b", "b", "c", "ä")
	do(t, tr, opDelete("d/9"))
	want("10", "B", "a", "a b", "b", "c", "ä")
	do(t, tr, opRename("d/10", "d/z"))
	want("B", "a", "a b", "b", "c", "z", "ä")
	do(t, tr, opRename("f", "d/a"))
	want("B", "a", "a b", "b", "c", "z", "ä")
	do(t, tr, opWrite("d/a", 0, "y"))
	want("B", "a", "a b", "b", "c", "z", "ä")
	do(t, tr, opRename("d/B", "B"))
	want("a", "a b", "b", "c", "z", "ä")

	given, _ := tr.ReadDir(d.Inode)
	kept := slices.Clone(given)
	do(t, tr, opDelete("d/a"), opWrite("d/b", 0, "new"))
	if !slices.Equal(given, kept) {
		t.Error("a listing that was given out has changed")
	}
	clear(given) // the caller's own
	want("a b", "b", "c", "z", "ä")
}

func TestReadDirOfWhatIsNoDirectory(t *testing.T) {
	tr := plant(t, "f", "d/")
	f, _ := tr.Lookup("f")
	for _, inode := range []uint64{f.Inode, 99, 1 << 63} {
		if list, ok := tr.ReadDir(inode); ok || list != nil {
			t.Errorf("inode %d lists %v", inode, list)
		}
	}
	d, _ := tr.Lookup("d")
	if list, ok := tr.ReadDir(d.Inode); !ok || len(list) != 0 {
		t.Errorf("an empty directory lists %v, %v", list, ok)
	}
	if list, ok := tr.ReadDir(RootInode); !ok || !slices.Equal(names(list), []string{"d", "f"}) {
		t.Errorf("the root lists %v, %v", names(list), ok)
	}
}

func TestEntriesAreFoundByInodeNameAndPath(t *testing.T) {
	tr := plant(t, "nodes/", "nodes/a/", "nodes/a/priv/", "nodes/a/priv/key=k", "nodes/a/cfg=c", "priv/", "priv/x=1", "nodes/priv/", "nodes/priv/y/")
	for path, private := range map[string]bool{
		"": false, "nodes": false, "nodes/a": false, "nodes/a/priv": true, "nodes/a/priv/key": true,
		"nodes/a/cfg": false, "priv": true, "priv/x": true, "nodes/priv": false, "nodes/priv/y": false,
	} {
		e, ok := tr.Lookup(path)
		if !ok {
			t.Errorf("%q is not found", path)
			continue
		}
		if got, ok := tr.Path(e.Inode); !ok || got != path {
			t.Errorf("the path of %q is %q", path, got)
		}
		if e.Private != private || IsPrivate(path) != private {
			t.Errorf("%q is private: %v by its place, %v by its path", path, e.Private, IsPrivate(path))
		}
		if got, ok := tr.Get(e.Inode); !ok || got != e {
			t.Errorf("Get finds %+v for %q", got, path)
		}
		if path != "" {
			if got, ok := tr.Child(e.Parent, e.Name); !ok || got != e {
				t.Errorf("Child finds %+v for %q", got, path)
			}
		}
		if got, ok := tr.Lookup(path); !ok || got != e {
			t.Errorf("Lookup finds %+v for %q", got, path)
		}
		if got, at, ok := tr.Locate(e.Inode); !ok || got != e || at != path {
			t.Errorf("Locate finds %+v at %q for %q", got, at, path)
		}
	}
	f, _ := tr.Lookup("priv/x")
	for _, path := range []string{"x", "nodes/b", "priv/x/y", ".", "..", "./priv", "priv/.", "priv/../priv", "Priv"} {
		if e, ok := tr.Lookup(path); ok {
			t.Errorf("%q is found: %+v", path, e)
		}
	}
	for _, c := range []struct {
		dir  uint64
		name string
	}{{RootInode, "x"}, {RootInode, ""}, {RootInode, "priv/x"}, {f.Inode, "y"}, {99, "x"}} {
		if e, ok := tr.Child(c.dir, c.name); ok {
			t.Errorf("%q is found in %d: %+v", c.name, c.dir, e)
		}
	}
	if _, ok := tr.Get(99); ok {
		t.Error("Get finds an inode that there is not")
	}
	if _, ok := tr.Path(99); ok {
		t.Error("Path finds an inode that there is not")
	}
}

func TestEntriesAscendByInodeFromTheRoot(t *testing.T) {
	tr := plant(t, "a/", "b", "c", "d")
	do(t, tr, opDelete("b"), opRename("d", "a/d"))
	var got []uint64
	for _, e := range tr.Entries() {
		got = append(got, e.Inode)
	}
	if want := []uint64{0, 2, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("inodes are %v, want %v", got, want)
	}
}

func TestTheOrderForgetsManyDeletedEntries(t *testing.T) {
	tr := plant(t, "stays")
	for range 20_000 {
		do(t, tr, opCreate("x"), opDelete("x"))
	}
	if len(tr.order) > 4096 {
		t.Errorf("two entries, %d in the order", len(tr.order))
	}
	checkSound(t, tr)
}

func TestCheckHoldsTheLimits(t *testing.T) {
	tr := plant(t, "d/", "f=12345", "empty")
	full := func(op Op) bool {
		t.Helper()
		before := pictureOf(tr)
		err := tr.Check(&op)
		if d := before.exactDiff(pictureOf(tr)); d != "" {
			t.Fatalf("Check changed the tree: %s", d)
		}
		return errors.Is(err, syscall.ENOSPC)
	}
	set := func(left int64) { tr.mu.Lock(); tr.bytes = MaxTreeBytes - left; tr.mu.Unlock() }
	for _, c := range []struct {
		name string
		left int64
		op   Op
		full bool
	}{
		{"a byte more where one is left", 1, opWrite("f", 5, "x"), false},
		{"two bytes more where one is left", 1, opWrite("f", 5, "xy"), true},
		{"as much as is left", 100, opWrite("f", 0, strings.Repeat("x", 105)), false},
		{"more than is left", 100, opWrite("f", 0, strings.Repeat("x", 106)), true},
		{"within a file", 0, opWrite("f", 0, "xyz"), false},
		{"within a file of a tree beyond its limit", -100, opWrite("f", 0, "xyz"), false},
		{"replacing by less, beyond the limit", -100, opReplace("f", "xyz"), false},
		{"replacing by as much", 0, opReplace("f", "54321"), false},
		{"replacing by more", 0, opReplace("f", "654321"), true},
		{"a gap", 1, opWrite("f", 7, ""), true},
		{"shrinking", 0, opTruncate("f", 1), false},
		{"growing", 0, opTruncate("f", 6), true},
		{"growing an empty file", 3, opTruncate("empty", 4), true},
		{"the first byte of a file", 0, opWrite("empty", 0, "x"), true},
		{"nothing", 0, opWrite("empty", 0, ""), false},
		{"what is refused anyway needs no room", 0, opWrite("d", 0, "x"), false},
		{"what is too large anyway needs no room", 0, opWrite("f", MaxFileSize, "x"), false},
		{"a new file needs no bytes", 0, opCreate("new"), false},
		{"a new directory needs no bytes", 0, opMkdir("new"), false},
		{"delete", -5, opDelete("f"), false},
		{"rename", -5, opRename("f", "g"), false},
		{"mtime", -5, opMTime("f", 1), false},
	} {
		set(c.left)
		if got := full(c.op); got != c.full {
			t.Errorf("%s: no room: %v, want %v", c.name, got, c.full)
		}
		if c.full { // but what was delivered is applied
			if _, err := tr.ApplyWithin(&c.op); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: applied within the limits: %v", c.name, err)
			}
			again := plant(t, "d/", "f=12345", "empty")
			again.bytes = tr.bytes
			do(t, again, c.op)
		}
	}
}

func TestCheckHoldsTheLimitOfEntries(t *testing.T) {
	entries := []*Entry{NewEntry(0, 0, MaxEntries, 0, 0, TypeDir, "", nil)}
	for i := uint64(1); i < MaxEntries-1; i++ {
		entries = append(entries, NewEntry(i, 0, i, 0, 0, TypeFile, "f"+itoa(i), nil))
	}
	tr, _, err := Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	mkdir, create := opMkdir("last"), opCreate("more")
	if err := tr.Check(&mkdir); err != nil {
		t.Errorf("one entry is left: %v", err)
	}
	do(t, tr, opMkdir("last"))
	if _, n := tr.Usage(); n != MaxEntries {
		t.Fatalf("%d entries", n)
	}
	for _, op := range []Op{opMkdir("more"), create} {
		if err := tr.Check(&op); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v in a full tree: %v", op.Kind, err)
		}
	}
	exists := opMkdir("last")
	if err := tr.Check(&exists); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("mkdir of what exists in a full tree: %v", err)
	}
	write := opWrite("f1", 0, "x")
	if err := tr.Check(&write); err != nil {
		t.Errorf("write in a tree full of entries: %v", err)
	}
	do(t, tr, opCreate("delivered"))
	if _, n := tr.Usage(); n != MaxEntries+1 {
		t.Errorf("%d entries after a delivered create", n)
	}
}
