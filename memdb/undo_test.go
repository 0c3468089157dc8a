package memdb

import (
	"slices"
	"testing"
)

// revertsTo applies ops, reverts them in one Delta, and compares.
func revertsTo(t *testing.T, tr *Tree, ops ...Op) {
	t.Helper()
	before, inodes := pictureOf(tr), tr.Entries()
	var d Delta
	for _, op := range ops {
		d.Add(do(t, tr, op).Changes)
	}
	checkDelta(t, &d)
	tr.Revert(&d)
	checkSound(t, tr)
	if diff := before.diff(pictureOf(tr)); diff != "" {
		t.Errorf("after Revert: %s", diff)
	}
	if !slices.Equal(inodes, tr.Entries()) {
		t.Error("Revert made new entries instead of putting the old ones back")
	}
	// And the tree still works.
	do(t, tr, opMkdir("after"), opCreate("after/x"), opWrite("after/x", 0, "y"))
	checkSound(t, tr)
}

// checkDelta fails the test if an inode occurs twice, or the root doesn't.
func checkDelta(t *testing.T, d *Delta) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, c := range d.Changes() {
		if seen[c.Inode] {
			t.Errorf("inode %d occurs twice in the delta", c.Inode)
		}
		seen[c.Inode] = true
		if c.Old != nil && c.Old.Inode != c.Inode || c.New != nil && c.New.Inode != c.Inode {
			t.Errorf("the change of inode %d is about another", c.Inode)
		}
	}
	if d.Len() != len(d.Changes()) || d.Len() > 0 && !seen[RootInode] {
		t.Errorf("the delta has %d of %d changes, the root among them: %v", d.Len(), len(d.Changes()), seen[RootInode])
	}
}

func TestRevertPutsTheTreeBack(t *testing.T) {
	base := append([]string{"f=content", "g=other", "d/", "d/x=1", "e/", "priv/", "priv/lock/", "priv/lock/l/"}, cluster...)
	base = append(base, "nodes/a/qemu-server/100.conf=vm")
	guest, moved := "nodes/a/qemu-server/100.conf", "nodes/b/qemu-server/100.conf"
	for _, c := range []struct {
		name string
		ops  []Op
	}{
		{"nothing", nil},
		{"create", []Op{opCreate("new")}},
		{"mkdir and entries in it", []Op{opMkdir("n"), opCreate("n/a"), opWrite("n/a", 0, "x"), opMkdir("n/m"), opCreate("n/m/b")}},
		{"write", []Op{opWrite("f", 3, "xx"), opWrite("f", 0, "y"), opTruncate("f", 100)}},
		{"append in place", []Op{opWrite("f", 7, "xx"), opWrite("f", 9, "yy"), opWrite("f", 11, "zz")}},
		{"mtime", []Op{opMTime("f", 5), opMTime("d", 6)}},
		{"delete of a file", []Op{opDelete("f")}},
		{"delete of a directory and its entries", []Op{opDelete("d/x"), opDelete("d")}},
		{"rename", []Op{opRename("f", "d/f")}},
		{"rename there and back", []Op{opRename("f", "d/f"), opRename("d/f", "f")}},
		{"rename onto a file", []Op{opRename("f", "g")}},
		{"rename onto an empty directory", []Op{opRename("f", "e")}},
		{"rename in a circle", []Op{opRename("f", "tmp"), opRename("g", "f"), opRename("tmp", "g")}},
		{"rename into a new directory", []Op{opMkdir("n"), opRename("f", "n/f"), opRename("g", "n/g")}},
		{"rename out of a directory that is deleted", []Op{opRename("d/x", "x"), opDelete("d")}},
		{"rename of a directory into a new one that takes its name", []Op{opDelete("d/x"), opMkdir("n"), opRename("d", "n/d"), opRename("n/d", "d2"), opRename("n", "d")}},
		{"delete and create of the same name", []Op{opDelete("f"), opCreate("f"), opWrite("f", 0, "new")}},
		{"delete and create over and over", []Op{opDelete("f"), opCreate("f"), opDelete("f"), opMkdir("f"), opCreate("f/x"), opDelete("f/x"), opDelete("f"), opCreate("f")}},
		{"a name that another entry takes", []Op{opRename("f", "h"), opCreate("f"), opRename("f", "i"), opRename("g", "f"), opDelete("h")}},
		{"a directory gone and there again with its entries", []Op{opDelete("d/x"), opDelete("d"), opMkdir("d"), opCreate("d/x")}},
		{"what came and went", []Op{opCreate("t"), opWrite("t", 0, "x"), opDelete("t")}},
		{"temporary file and rename", []Op{opCreate("f.tmp"), opWrite("f.tmp", 0, "new"), opRename("f.tmp", "f")}},
		{"a guest moved", []Op{opRename(guest, moved)}},
		{"a guest deleted", []Op{opDelete(guest)}},
		{"a guest deleted and created elsewhere", []Op{opDelete(guest), opCreate(moved)}},
		{"a guest created", []Op{opCreate("nodes/b/lxc/101.conf")}},
		{"a lock released", []Op{opDelete("priv/lock/l")}},
		{"a lock taken", []Op{opMkdir("priv/lock/m")}},
	} {
		t.Run(c.name, func(t *testing.T) { revertsTo(t, plant(t, base...), c.ops...) })
	}
}

func TestRevertedInodesAreGivenOutAgain(t *testing.T) {
	tr := plant(t, "a")
	for range 3 {
		var d Delta
		d.Add(do(t, tr, opCreate("x")).Changes)
		d.Add(do(t, tr, opWrite("x", 0, "1")).Changes)
		d.Add(do(t, tr, opCreate("y")).Changes)
		tr.Revert(&d)
		checkSound(t, tr)
	}
	e := do(t, tr, opCreate("z")).Change().New
	if e.Inode != 3 {
		t.Errorf("the new inode is %d", e.Inode)
	}
	do(t, tr, opCreate("w"), opCreate("v"))
	checkSound(t, tr)
}

func TestRevertAfterTheOrderWasPutTogether(t *testing.T) {
	tr := plant(t, "first")
	for i := range uint64(3000) {
		do(t, tr, opCreate("f"+itoa(i)))
	}
	before := pictureOf(tr)
	var d Delta
	for i := range uint64(2990) {
		d.Add(do(t, tr, opDelete("f"+itoa(i))).Changes)
	}
	if len(tr.order) > 2000 {
		t.Fatalf("%d in the order: it was not put together", len(tr.order))
	}
	tr.Revert(&d)
	checkSound(t, tr)
	if diff := before.diff(pictureOf(tr)); diff != "" {
		t.Error(diff)
	}
}

func TestRevertGivesTheVMListANewVersion(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/lxc/100.conf")...)
	var d Delta
	d.Add(do(t, tr, opDelete("nodes/a/lxc/100.conf")).Changes)
	during := tr.GuestsVersion()
	tr.Revert(&d)
	wantGuests(t, tr, during+1, Guest{100, "a", GuestLXC, 2})
}

func TestDeltaKeepsTheFirstAndTheLastState(t *testing.T) {
	for _, n := range []int{1, 4, 100} { // short deltas are searched, long ones looked up
		tr := plant(t, "f=first")
		first, _ := tr.Lookup("f")
		var d Delta
		for i := range n {
			d.Add(do(t, tr, opReplace("f", itoa(uint64(i)))).Changes)
			d.Add(do(t, tr, opCreate("n"+itoa(uint64(i)))).Changes)
		}
		d.Add(do(t, tr, opCreate("t")).Changes)
		d.Add(do(t, tr, opDelete("t")).Changes)
		checkDelta(t, &d)
		if d.Len() != n+3 { // f, the root, n new ones, one that came and went
			t.Errorf("%d writes: %d inodes concerned", n, d.Len())
		}
		last, _ := tr.Lookup("f")
		i := slices.IndexFunc(d.Changes(), func(c Change) bool { return c.Inode == first.Inode })
		if c := d.Changes()[i]; c.Old != first.Entry || c.New != last.Entry {
			t.Errorf("%d writes: the delta has %+v", n, c)
		}
		if c := d.Changes()[d.Len()-1]; c.Old != nil || c.New != nil {
			t.Errorf("%d writes: what came and went is %+v", n, c)
		}
	}
}
