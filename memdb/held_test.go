package memdb_test

import (
	"testing"
	"time"

	"pmxcfs/memdb"
)

func TestHeldLocksLooksAndChangesNothing(t *testing.T) {
	tree := memdb.New()
	begin := time.Unix(1_800_000_000, 0)
	for _, dir := range []string{"priv", "priv/lock", "priv/lock/b", "priv/lock/a"} {
		op := &memdb.Op{Kind: memdb.OpMkdir, Path: dir, Writer: 2, MTime: uint32(begin.Unix()), Now: begin}
		if _, err := tree.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tree.Apply(&memdb.Op{Kind: memdb.OpCreate, Path: "priv/lock/file", Now: begin}); err != nil {
		t.Fatal(err)
	}
	later := begin.Add(memdb.LockTimeout + time.Second)
	held := tree.HeldLocks(later)
	if len(held) != 2 || held[0].Name != "a" || held[1].Name != "b" {
		t.Fatalf("locks %v, want a and b", held)
	}
	for _, l := range held {
		if !l.Since.Equal(begin) || !l.Expired(later) || l.Entry.Writer != 2 {
			t.Errorf("%s: since %v, expired %v, of node %d", l.Name, l.Since, l.Expired(later), l.Entry.Writer)
		}
		if seen, _ := tree.ObserveLock("priv/lock/"+l.Name, later); seen.Since != l.Since || seen.Digest != l.Digest {
			t.Errorf("%s: looking changed what is known of it: %v", l.Name, seen)
		}
	}
	// Renewed without a time: nobody has noted that state yet.
	if _, err := tree.Apply(&memdb.Op{Kind: memdb.OpMTime, Path: "priv/lock/a", Writer: 2, MTime: uint32(later.Unix())}); err != nil {
		t.Fatal(err)
	}
	if l := tree.HeldLocks(later)[0]; !l.Since.Equal(later) || l.Expired(later) {
		t.Errorf("after a renewal since %v", l.Since)
	}
	if got := memdb.New().HeldLocks(later); len(got) != 0 {
		t.Errorf("an empty tree has locks: %v", got)
	}
}
