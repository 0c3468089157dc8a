package memdb

import (
	"slices"
	"testing"
)

func TestReplaceShowsTheNewTreeAndReportsWhatDiffers(t *testing.T) {
	tr := plant(t, "same=1", "gone=2", "changed=3", "d/", "d/moved")
	old := map[string]Info{}
	for _, path := range []string{"", "same", "gone", "changed", "d", "d/moved"} {
		old[path], _ = tr.Lookup(path)
	}
	var copies []*Entry // as if they had come from a peer or a file
	for _, e := range tr.Entries() {
		copies = append(copies, NewEntry(e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, slices.Clone(e.Data())))
	}
	for name, entries := range map[string][]*Entry{"shared entries": tr.Entries(), "copied entries": copies} {
		t.Run(name, func(t *testing.T) {
			tr := build(t, tr.Entries())
			next := build(t, entries)
			do(t, next, opDelete("gone"), opWrite("changed", 0, "4"), opRename("d/moved", "moved"), opCreate("new"))
			want := pictureOf(next)
			changes := tr.Replace(next)
			checkSound(t, tr)
			if d := want.diff(pictureOf(tr)); d != "" {
				t.Errorf("the tree is not the new one: %s", d)
			}
			var got []string
			for i, c := range changes {
				if i > 0 && changes[i-1].Inode >= c.Inode {
					t.Error("changes don't ascend")
				}
				now, _ := tr.Get(c.Inode)
				if c.New != now.Entry {
					t.Errorf("the change of inode %d shows %+v", c.Inode, c.New)
				}
				switch {
				case c.Old == nil:
					got = append(got, "+"+c.New.Name)
				case c.New == nil:
					got = append(got, "-"+c.Old.Name)
				default:
					got = append(got, c.New.Name)
				}
				if c.Old != nil && c.Old.Name != "" && c.Old.Name != "moved" && c.Old != old[c.Old.Name].Entry {
					t.Errorf("the change of %q does not show what was there", c.Old.Name)
				}
			}
			if want := []string{"", "-gone", "changed", "moved", "+new"}; !slices.Equal(got, want) {
				t.Errorf("what differs is %q, want %q", got, want)
			}
			do(t, tr, opCreate("after"), opWrite("changed", 1, "5"))
			checkSound(t, tr)
		})
	}
}

func TestReplaceByTheSameReportsNothing(t *testing.T) {
	tr := plant(t, "a/", "a/b=c")
	if changes := tr.Replace(build(t, tr.Entries())); len(changes) != 0 {
		t.Errorf("%v", changes)
	}
}

func TestReplaceSeesEachFieldThatDiffers(t *testing.T) {
	root := NewEntry(0, 0, 9, 0, 0, TypeDir, "", nil)
	dir := NewEntry(2, 0, 2, 0, 0, TypeDir, "d", nil)
	base := func() *Entry { return NewEntry(5, 0, 6, 1, 2, TypeFile, "n", []byte("x")) }
	for name, e := range map[string]*Entry{
		"parent": NewEntry(5, 2, 6, 1, 2, TypeFile, "n", []byte("x")), "version": NewEntry(5, 0, 7, 1, 2, TypeFile, "n", []byte("x")),
		"writer": NewEntry(5, 0, 6, 2, 2, TypeFile, "n", []byte("x")), "mtime": NewEntry(5, 0, 6, 1, 3, TypeFile, "n", []byte("x")),
		"type": NewEntry(5, 0, 6, 1, 2, TypeDir, "n", nil), "name": NewEntry(5, 0, 6, 1, 2, TypeFile, "m", []byte("x")),
		"content": NewEntry(5, 0, 6, 1, 2, TypeFile, "n", []byte("y")), "size": NewEntry(5, 0, 6, 1, 2, TypeFile, "n", []byte("xx")),
	} {
		tr := build(t, []*Entry{root, dir, base()})
		if changes := tr.Replace(build(t, []*Entry{root, dir, e})); len(changes) != 1 || changes[0].New != e {
			t.Errorf("another %s: %v", name, changes)
		}
	}
}

func TestReplaceStillGivesSpareRoomBack(t *testing.T) {
	tr := plant(t, "f=x")
	do(t, tr, opWrite("f", 1, string(make([]byte, 1000))))
	tr.Replace(build(t, tr.Entries()))
	tr.Trim()
	tr.Trim()
	if e := tr.find("f").e; cap(e.data) > 2000 {
		t.Errorf("a file of %d bytes keeps %d", e.Size(), cap(e.data))
	}
	checkSound(t, tr)
}
