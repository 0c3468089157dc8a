package dcdb

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// laterApp returns an application whose changes stay out of the file for as long
// as nobody waits for them, unless after is over.
func laterApp(after time.Duration) (*app, *memFile) {
	a, file := emptyApp()
	a.saver.delay = after
	return a, file
}

func TestOthersChangesAreStoredWithTheNextOwnOne(t *testing.T) {
	a, file := laterApp(time.Hour)
	apply(t, a, opFrom(2, mkdir("a")))
	apply(t, a, opFrom(3, create("a/f")), opFrom(2, memdb.Op{Kind: memdb.OpWrite, Path: "a/f", Data: []byte("x")}))
	if _, ok := a.tree.Lookup("a/f"); !ok || file.commits != 0 {
		t.Errorf("it is in the tree: %v, after %d transactions", ok, file.commits)
	}
	apply(t, a, opFrom(2, mkdir("b")), opFrom(1, mkdir("c")))
	if file.commits != 1 || file.tree(t).Checksum() != a.tree.Checksum() {
		t.Errorf("%d transactions, and the file holds something else", file.commits)
	}
}

func TestOthersChangesAreStoredSoonByThemselves(t *testing.T) {
	a, file := laterApp(time.Millisecond)
	w := &timed{}
	a.saver.latencies = w
	apply(t, a, opFrom(2, mkdir("a")))
	testutil.WaitFor(t, "stored", func() bool { return file.tree(t).Checksum() == a.tree.Checksum() })
	testutil.WaitFor(t, "timed from its delivery on", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.least >= time.Millisecond
	})
}

func TestManyBytesAreNotKeptFromTheFile(t *testing.T) {
	a, file := laterApp(time.Hour)
	apply(t, a, opFrom(2, create("f")))
	for i := 0; file.commits == 0; i++ {
		if i > maxUnsaved>>19 {
			t.Fatalf("%d bytes were written and are not in the file", i<<19)
		}
		apply(t, a, opFrom(2, memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: make([]byte, 512<<10), Truncate: true}))
	}
}

func TestAWriteThatGoesOnIsStoredWhenItIsWaitedFor(t *testing.T) {
	a, file := laterApp(time.Hour)
	write := func(offset uint32) *success {
		t.Helper()
		r := apply(t, a, opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("abcd"), Offset: offset}))
		ok, _ := r[0].Value.(*success)
		if ok == nil {
			t.Fatalf("result %v", r[0])
		}
		return ok
	}
	apply(t, a, opFrom(1, create("f")))
	if first := write(0); first.commit != nil || file.commits != 2 {
		t.Errorf("the first write is not stored: %d transactions", file.commits)
	}
	var last *success
	for i := range uint32(10) {
		last = write(4 + 4*i)
	}
	if last.commit == nil || file.commits != 2 {
		t.Fatalf("%d transactions", file.commits)
	}
	if err := last.commit.Wait(nil); err != nil || file.commits != 3 || file.tree(t).Checksum() != a.tree.Checksum() {
		t.Errorf("%v; %d transactions", err, file.commits)
	}
}

func TestAWriteToACluster(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 2, nil)
	n := nodes[0]
	n.do(t, create("f"))
	n.app.saver.mu.Lock()
	n.app.saver.delay = time.Hour
	n.app.saver.mu.Unlock()
	appends := memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x"), Offset: 5}
	stored := func() bool { return n.file.tree(t).Checksum() == n.Tree().Checksum() }
	_, commit, err := n.Write(nil, &appends, false)
	if err != nil || commit == nil || stored() {
		t.Errorf("without waiting: %v; stored: %v", err, stored())
	}
	if _, commit, err := n.Write(nil, &appends, true); err != nil || commit != nil || !stored() {
		t.Errorf("waiting: %v; stored: %v", err, stored())
	}
	n.app.db.little.Store(true)
	if _, commit, err := n.Write(nil, &appends, false); err != nil || commit != nil || !stored() {
		t.Errorf("with little room: %v; stored: %v", err, stored())
	}
	if err := n.Writable(nil); err != nil {
		t.Error(err)
	}
	n.file.setFail(syscall.ENOSPC)
	if _, _, err := n.Write(nil, &appends, true); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if err := n.Writable(nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Writable: %v", err)
	}
	n.file.setFail(nil)
}

func TestAChangeThatCannotBeStoredLaterIsTakenBackAndEndsTheMembership(t *testing.T) {
	a, file := laterApp(time.Millisecond)
	w := &lockedWatcher{}
	a.calls = newCalls(w)
	var left atomic.Pointer[error]
	a.failed = func(err error) { left.Store(&err) }
	apply(t, a, opFrom(1, create("f")))
	before := a.tree.Checksum()
	file.setFail(syscall.ENOSPC)
	r := apply(t, a, opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x"), Offset: 1}))
	commit := r[0].Value.(*success).commit
	testutil.WaitFor(t, "out of the group", func() bool { return left.Load() != nil })
	if err := commit.Wait(nil); !errors.Is(err, syscall.ENOSPC) || !errors.Is(*left.Load(), syscall.ENOSPC) {
		t.Errorf("the writer is told %v, the group %v", err, *left.Load())
	}
	if a.tree.Checksum() != before {
		t.Error("the tree shows what is not stored")
	}
	// The group has not heard of it: what it still delivers must not be applied on top.
	if r := a.Apply([]dfsm.Message{opFrom(2, mkdir("d"))}); !errors.Is(r.Err, syscall.ENOSPC) || r.Done != 0 {
		t.Errorf("Apply: %+v", r)
	}
	file.setFail(nil)
	if err := a.ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	apply(t, a, opFrom(1, mkdir("d")))
}

func TestAFileThatFailsLaterKeepsOnlyItsNodeOut(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 3, nil)
	nodes[0].do(t, mkdir("before"))
	alike(t, nodes...)
	bad := nodes[1]
	bad.file.setFail(syscall.EIO)
	nodes[0].do(t, mkdir("d")) // nobody waits for it on the bad node
	testutil.WaitFor(t, "out", func() bool { return len(nodes[0].Status().Group.Members) == 2 })
	if has(bad.Tree(), "d") {
		t.Error("it shows what it could not store")
	}
	bad.refused(t, mkdir("e"), syscall.EACCES)
	bad.file.setFail(nil)
	for _, n := range nodes {
		n.synced(t, 3)
	}
	alike(t, nodes...)
	if !has(bad.Tree(), "d") {
		t.Error("it is not up to date")
	}
}

func TestWhatNobodyWaitedForIsStoredAtTheEnd(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 2, nil)
	nodes[0].do(t, mkdir("d"))
	testutil.WaitFor(t, "there", func() bool { return has(nodes[1].Tree(), "d") })
	nodes[1].stop()
	if !has(nodes[1].file.tree(t), "d") {
		t.Error("it is not in the file after Close")
	}
}

func TestAStateIsOfWhatIsStored(t *testing.T) {
	a, file := laterApp(time.Hour)
	apply(t, a, opFrom(2, mkdir("a")))
	if _, err := a.State(); err != nil || file.tree(t).Checksum() != a.tree.Checksum() {
		t.Errorf("%v; the file holds something else", err)
	}
	apply(t, a, opFrom(2, mkdir("b")))
	file.setFail(syscall.ENOSPC)
	for range 2 { // at the failure, and after it
		if _, err := a.State(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("State: %v", err)
		}
	}
}

func TestAFileThatFailsWhileCorosyncIsAwayKeepsNobodyOut(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 2, nil)
	bad := nodes[1]
	bad.file.setFail(syscall.EIO)
	nodes[0].do(t, mkdir("d")) // its transaction there is still to come
	testutil.WaitFor(t, "applied", func() bool { return has(bad.Tree(), "d") || len(nodes[0].Status().Group.Members) == 1 })
	r.Set(func(b *grouptest.Bus) { b.Down = true })
	r.CutAll()
	testutil.WaitFor(t, "taken back", func() bool { return !has(bad.Tree(), "d") })
	bad.file.setFail(nil)
	r.Set(func(b *grouptest.Bus) { b.Down = false })
	for _, n := range nodes {
		n.synced(t, 2)
	}
	alike(t, nodes...)
}

func TestConfIsStoredBeforeItIsToldOf(t *testing.T) {
	a, file := laterApp(time.Hour)
	told := 0
	a.confChanged = func(bool) {
		told++
		if file.tree(t).Checksum() != a.tree.Checksum() {
			t.Error("the file does not hold it")
		}
	}
	apply(t, a, opFrom(2, create("corosync.conf")))
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

func TestNothingIsAppliedAfterClose(t *testing.T) {
	a, file := emptyApp()
	c := &Cluster{app: a}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r := a.Apply([]dfsm.Message{opFrom(2, mkdir("d"))}); r.Err == nil || r.Done != 0 || file.commits != 0 {
		t.Errorf("%+v", r)
	}
}
