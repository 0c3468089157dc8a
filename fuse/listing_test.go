package fuse

import (
	"sync/atomic"
	"testing"

	"pmxcfs/memdb"
)

// A listing is read from the tree, the tree changes, the kernel is told to drop what it has of the
// listing, and only then gets it.
func TestAListingOnItsWayIsNotKeptWhenAChangeOvertakesIt(t *testing.T) {
	m := mountNode(t, nil, true)
	m.mkdir("d")
	m.write("d/a", "x")
	listInodes(t, m.path("d"))
	for _, c := range []struct {
		op   memdb.Op
		want int
	}{
		{memdb.Op{Kind: memdb.OpCreate, Path: "d/b"}, 2 + 2},
		{memdb.Op{Kind: memdb.OpDelete, Path: "d/a"}, 2 + 1},
	} {
		m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: "d/other"}) // so that it is read again
		m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: "d/other"})
		soon(t, "the kernel is told", func() bool { return m.fs.notify.pending.Load() == 0 })
		told := func() uint64 {
			a := &m.fs.notify.answers[noticeContent]
			return a.done.Load() + a.unknown.Load()
		}
		var done atomic.Bool
		answering := func() {
			if done.Swap(true) {
				return
			}
			before := told()
			m.foreign(c.op)
			soon(t, "the kernel is told", func() bool { return told() > before })
		}
		m.answer.Store(&answering)
		listInodes(t, m.path("d"))
		if !done.Load() {
			t.Fatal("the listing was not read")
		}
		for range 3 {
			if n := len(listInodes(t, m.path("d"))); n != c.want {
				t.Errorf("after %v of %s there are %d entries, not %d", c.op.Kind, c.op.Path, n, c.want)
			}
		}
	}
}

func TestListingsThatMayBeKept(t *testing.T) {
	l := newListings()
	open := func(want bool) uint64 {
		t.Helper()
		changes, keep := l.open(7)
		if keep != want {
			t.Errorf("kept: %v", keep)
		}
		return changes
	}
	a := open(false) // unknown
	b := open(true)
	l.changed(7)
	c := open(false) // a and b are older
	l.close(7, a)
	d := open(false)
	l.close(7, b)
	e := open(false) // what a and b were answered may have come after c and d were opened
	f := open(true)
	for _, x := range []uint64{c, d, e, f} {
		l.close(7, x)
	}
	l.close(7, open(true))
	l.changed(7)
	l.changed(8)
	l.close(7, open(false))
	l.close(7, open(true))
	l.note([]memdb.Change{
		{Inode: 9, Old: memdb.NewEntry(9, inodeOf(7), 9, 0, 0, memdb.TypeFile, "x", nil), New: memdb.NewEntry(9, inodeOf(7), 10, 0, 0, memdb.TypeFile, "x", nil)},
		{Inode: 0, Old: memdb.NewEntry(0, 0, 9, 0, 0, memdb.TypeDir, "", nil), New: memdb.NewEntry(0, 0, 10, 0, 0, memdb.TypeDir, "", nil)},
	})
	l.close(7, open(true)) // a write changes no listing
	l.note([]memdb.Change{{Inode: 9, Old: memdb.NewEntry(9, inodeOf(7), 9, 0, 0, memdb.TypeFile, "x", nil)}})
	l.close(7, open(false))
	l.forget(7)
	open(false)
}
