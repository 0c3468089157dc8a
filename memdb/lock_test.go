package memdb

import (
	"slices"
	"testing"
	"time"
)

const heldLock = "priv/lock/held"

func withLock(t *testing.T) *Tree {
	t.Helper()
	return plant(t, "priv/", "priv/lock/", heldLock+"/")
}

// since returns when the node first saw the lock in its present state,
// relative to t0, as seen at now after t0.
func since(t *testing.T, tr *Tree, path string, now time.Duration) time.Duration {
	t.Helper()
	l, ok := tr.ObserveLock(path, t0.Add(now))
	if !ok {
		t.Fatalf("%s is no lock", path)
	}
	return l.Since.Sub(t0)
}

func TestALocksAgeBeginsWithItsMkdir(t *testing.T) {
	tr := withLock(t)
	if s := since(t, tr, heldLock, time.Hour); s != 0 {
		t.Errorf("the lock's age began %v after its mkdir", s)
	}
	l, _ := tr.ObserveLock(heldLock, t0)
	e, _ := tr.Lookup(heldLock)
	if l.Name != "held" || l.Entry != e.Entry || l.Digest != e.Digest() {
		t.Errorf("the lock is %+v", l)
	}
}

func TestALockExpiresAfterMoreThan120Seconds(t *testing.T) {
	tr := withLock(t)
	for after, want := range map[time.Duration]bool{
		0: false, -time.Hour: false, 119 * time.Second: false, 120 * time.Second: false,
		120*time.Second + 1: true, time.Hour: true,
	} {
		now := t0.Add(after)
		if l, _ := tr.ObserveLock(heldLock, now); l.Expired(now) != want {
			t.Errorf("expired after %v: %v", after, !want)
		}
	}
}

func TestRenewingALockBeginsItsAgeAnew(t *testing.T) {
	tr := withLock(t)
	op := opMTime(heldLock, testMTime)
	op.Now = t0.Add(100 * time.Second)
	do(t, tr, op)
	if s := since(t, tr, heldLock, time.Hour); s != 100*time.Second {
		t.Errorf("the lock's age began at %v", s)
	}
}

func TestARefusedRenewalLeavesTheAgeAlone(t *testing.T) {
	tr := withLock(t)
	op := Op{Kind: OpMTime, Path: heldLock, Writer: 2, MTime: testMTime + 100, Now: t0.Add(100 * time.Second)}
	if _, err := tr.Apply(&op); err == nil {
		t.Fatal("another node renewed the lock")
	}
	if s := since(t, tr, heldLock, time.Hour); s != 0 {
		t.Errorf("the lock's age began at %v", s)
	}
}

func TestAnUnknownOrChangedLockCountsAsSeenNow(t *testing.T) {
	entries := withLock(t).Entries()
	tr := build(t, entries)
	if s := since(t, tr, heldLock, time.Minute); s != time.Minute {
		t.Errorf("a lock never seen before is known since %v", s)
	}
	if s := since(t, tr, heldLock, time.Hour); s != time.Minute {
		t.Errorf("the second look began it anew: %v", s)
	}
	// The lock changes without mkdir or mtime: a synchronisation brings it.
	e := entries[len(entries)-1]
	changed := slices.Clone(entries)
	changed[len(changed)-1] = NewEntry(e.Inode, e.Parent, e.Version, 9, e.MTime, e.Type, e.Name, nil)
	tr.Replace(build(t, changed))
	if s := since(t, tr, heldLock, 2*time.Hour); s != 2*time.Hour {
		t.Errorf("a changed lock is known since %v", s)
	}
}

func TestAnOperationWithoutAClockLeavesTheAgeToTheNextLook(t *testing.T) {
	tr := plant(t, "priv/", "priv/lock/")
	do(t, tr, Op{Kind: OpMkdir, Path: heldLock})
	now := t0.Add(time.Hour)
	if l, _ := tr.ObserveLock(heldLock, now); l.Expired(now) || !l.Since.Equal(now) {
		t.Errorf("the lock is known since %v", l.Since)
	}
}

func TestDeletingALockForgetsIt(t *testing.T) {
	tr := withLock(t)
	do(t, tr, opDelete(heldLock))
	if _, ok := tr.ObserveLock(heldLock, t0); ok || len(tr.locks) != 0 {
		t.Errorf("the lock is still known: %v", tr.locks)
	}
	again := opMkdir(heldLock)
	again.Now = t0.Add(time.Hour)
	do(t, tr, again)
	if s := since(t, tr, heldLock, 2*time.Hour); s != time.Hour {
		t.Errorf("the new lock is known since %v", s)
	}
	do(t, tr, opMkdir("empty"), opRename("empty", heldLock)) // replaced by another directory
	if s := since(t, tr, heldLock, 3*time.Hour); s != 3*time.Hour {
		t.Errorf("the lock that replaced it is known since %v", s)
	}
}

func TestOnlyDirectoriesInTheLockDirectoryAreLocks(t *testing.T) {
	tr := plant(t, "priv/", "priv/lock/", "priv/lock/file", "priv/lock/l/", "priv/lock/l/inner/", "other/")
	for _, path := range []string{"", "priv", "priv/lock", "priv/lock/", "priv/lock/file", "priv/lock/absent", "priv/lock/l/inner", "other"} {
		if l, ok := tr.ObserveLock(path, t0); ok {
			t.Errorf("%q is taken for the lock %v", path, l)
		}
		op := Op{Path: path}
		if e, ok := tr.Lookup(path); ok {
			if _, ok := tr.ReleaseLock(&op, e.Digest()); ok {
				t.Errorf("%q can be unlocked", path)
			}
		}
	}
	if _, ok := tr.ObserveLock("priv/lock/l", t0); !ok {
		t.Error("the lock is none")
	}
	if list := tr.ObserveLocks(t0); len(list) != 1 || list[0].Name != "l" || len(tr.locks) != 1 {
		t.Errorf("the locks are %v, noted %d", list, len(tr.locks))
	}
}

func TestLocksAreListedByNameWithTheirAges(t *testing.T) {
	tr := plant(t, "priv/", "priv/lock/")
	for i, name := range []string{"c", "a", "b"} {
		op := opMkdir("priv/lock/" + name)
		op.Now = t0.Add(time.Duration(i) * time.Second)
		do(t, tr, op)
	}
	var got []string
	for _, l := range tr.ObserveLocks(t0.Add(time.Hour)) {
		got = append(got, l.Name+" "+l.Since.Sub(t0).String())
		if e, _ := tr.Lookup(Join(LockDir, l.Name)); l.Entry != e.Entry || l.Digest != e.Digest() {
			t.Errorf("lock %s shows another entry", l.Name)
		}
	}
	if want := []string{"a 1s", "b 2s", "c 0s"}; !slices.Equal(got, want) {
		t.Errorf("the locks are %v, want %v", got, want)
	}
	if list := New().ObserveLocks(t0); len(list) != 0 {
		t.Errorf("a tree without a lock directory has locks: %v", list)
	}
}

func TestASynchronisationKeepsTheAgesOfUnchangedLocks(t *testing.T) {
	tr := plant(t, "priv/", "priv/lock/", "priv/lock/kept/", "priv/lock/gone/", "priv/lock/renewed/")
	next := build(t, tr.Entries())
	do(t, next, opDelete("priv/lock/gone"), opMTime("priv/lock/renewed", testMTime+1), opMkdir("priv/lock/new"))
	tr.Replace(next)
	now := t0.Add(time.Minute)
	list := tr.ObserveLocks(now)
	want := map[string]time.Time{"kept": t0, "renewed": now, "new": now}
	for _, l := range list {
		if !l.Since.Equal(want[l.Name]) {
			t.Errorf("%s is known since %v, want %v", l.Name, l.Since, want[l.Name])
		}
	}
	if len(list) != 3 || len(tr.locks) != 3 {
		t.Errorf("%d locks, %d noted", len(list), len(tr.locks))
	}
}

func TestUnlockDeletesALockInTheStateThatTheDigestNames(t *testing.T) {
	tr := withLock(t)
	e, _ := tr.Lookup(heldLock)
	old := e.Digest()
	do(t, tr, opMTime(heldLock, testMTime+1))
	before, root := pictureOf(tr), tr.Root()
	op := Op{Path: heldLock, Writer: 7, MTime: 77}
	if _, ok := tr.ReleaseLock(&op, old); ok {
		t.Error("a digest of an older state unlocks")
	}
	if _, ok := tr.ReleaseLock(&Op{Path: "priv/lock/absent"}, old); ok {
		t.Error("an absent lock can be unlocked")
	}
	if d := before.exactDiff(pictureOf(tr)); d != "" || tr.Root() != root {
		t.Errorf("a refused unlock changed the tree: %s", d)
	}
	e, _ = tr.Lookup(heldLock)
	res, ok := tr.ReleaseLock(&op, e.Digest())
	if !ok || len(res.Changes) != 2 || res.Changes[0] != (Change{e.Inode, e.Entry, nil}) {
		t.Fatalf("unlock: %v, %+v", ok, res)
	}
	if r := tr.Root(); r.Version != root.Version+1 || r.Writer != 7 || r.MTime != 77 {
		t.Errorf("the root is %+v", r)
	}
	if _, ok := tr.Lookup(heldLock); ok || len(tr.locks) != 0 {
		t.Error("the lock is still there")
	}
	if op.Kind != 0 {
		t.Error("Unlock changed the caller's operation")
	}
	checkSound(t, tr)
}

func TestUnlockLeavesALockWithEntries(t *testing.T) {
	tr := plant(t, "priv/", "priv/lock/", "priv/lock/l/", "priv/lock/l/x")
	e, _ := tr.Lookup("priv/lock/l")
	if _, ok := tr.ReleaseLock(&Op{Path: "priv/lock/l"}, e.Digest()); ok {
		t.Error("a directory with entries was unlocked")
	}
	checkSound(t, tr)
}
