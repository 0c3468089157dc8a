package memdb

import (
	"testing"
	"time"
)

// counted is what Stats should say, by looking at everything.
func counted(tree *Tree, now time.Time) Stats {
	list, _ := tree.Guests()
	bytes, entries := tree.Usage()
	f := Stats{Version: tree.Root().Version, Entries: entries, Bytes: bytes, Guests: len(list)}
	for _, l := range tree.ObserveLocks(now) {
		f.Locks++
		if l.Expired(now) {
			f.ExpiredLocks++
		}
		if f.OldestLock.IsZero() || l.Since.Before(f.OldestLock) {
			f.OldestLock = l.Since
		}
	}
	return f
}

func TestFiguresFollowEveryChange(t *testing.T) {
	tree := New()
	now := time.Unix(1_000_000, 0)
	var done Delta
	check := func(what string) {
		t.Helper()
		if got, want := tree.Stats(now), counted(tree, now); got != want {
			t.Errorf("after %s: %+v, want %+v", what, got, want)
		}
	}
	apply := func(op Op) {
		t.Helper()
		op.Now, op.MTime = now, uint32(now.Unix())
		res, err := tree.Apply(&op)
		if err != nil {
			t.Fatal(err)
		}
		done.Add(res.Changes)
		check(op.Kind.String() + " of " + op.Path)
		now = now.Add(time.Second)
	}
	check("nothing")
	for _, dir := range []string{"nodes", "nodes/a", "nodes/a/qemu-server", "priv", "priv/lock", "priv/lock/one", "priv/lock/two"} {
		apply(Op{Kind: OpMkdir, Path: dir})
	}
	apply(Op{Kind: OpCreate, Path: "nodes/a/qemu-server/100.conf"})
	apply(Op{Kind: OpWrite, Path: "nodes/a/qemu-server/100.conf", Data: []byte("memory: 512\n")})
	now = now.Add(LockTimeout - time.Second/2) // both locks have expired now
	check("two minutes")
	if f := tree.Stats(now); f.Locks != 2 || f.ExpiredLocks != 2 || f.Guests != 1 || f.Bytes != 12 {
		t.Errorf("%+v", f)
	}
	apply(Op{Kind: OpMTime, Path: "priv/lock/two"}) // renewed
	apply(Op{Kind: OpDelete, Path: "priv/lock/one"})
	apply(Op{Kind: OpRename, Path: "nodes/a/qemu-server/100.conf", To: "nodes/a/x"})
	tree.Revert(&done)
	check("taking all back")

	other := New()
	for _, dir := range []string{"priv", "priv/lock", "priv/lock/three"} {
		if _, err := other.Apply(&Op{Kind: OpMkdir, Path: dir, Now: now}); err != nil {
			t.Fatal(err)
		}
	}
	tree.Replace(other)
	tree.ObserveLocks(now) // as whoever replaces a tree does
	check("a synchronisation")
	if f := tree.Stats(now); f.Locks != 1 || f.Entries != 4 {
		t.Errorf("%+v", f)
	}
}

func TestFiguresAreReadWhileAWriterHoldsTheTree(t *testing.T) {
	tree := New()
	tree.mu.Lock()
	defer tree.mu.Unlock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		if f := tree.Stats(time.Now()); f.Version != 1 || f.Entries != 1 || tree.Version() != 1 || tree.Changes() != 1 {
			t.Errorf("%+v, %d changes", f, tree.Changes())
		}
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("they wait for a writer")
	}
}

func TestChangesIsAnotherAfterEachChange(t *testing.T) {
	tree := New()
	last := tree.Changes()
	another := func(what string) {
		t.Helper()
		if now := tree.Changes(); now == last {
			t.Errorf("the same after %s", what)
		} else {
			last = now
		}
	}
	var done Delta
	res, err := tree.Apply(&Op{Kind: OpCreate, Path: "f"})
	if err != nil {
		t.Fatal(err)
	}
	done.Add(res.Changes)
	another("a change")
	tree.Revert(&done)
	another("taking it back")
	tree.Replace(New())
	another("putting another in its place")
	if _, err := tree.Apply(&Op{Kind: OpDelete, Path: "f"}); err == nil || tree.Changes() != last {
		t.Error("another after a change that was refused")
	}
}
