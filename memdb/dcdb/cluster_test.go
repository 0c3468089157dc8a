package dcdb

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// do carries out an operation that must succeed.
func (n *testNode) do(t *testing.T, op memdb.Op) memdb.Change {
	t.Helper()
	c, err := n.Do(nil, &op)
	if err != nil {
		t.Fatalf("%v %s: %v", op.Kind, op.Path, err)
	}
	return c
}

// refused checks that an operation is answered with an errno.
func (n *testNode) refused(t *testing.T, op memdb.Op, want syscall.Errno) {
	t.Helper()
	_, err := n.Do(nil, &op)
	var errno syscall.Errno
	var pe *fs.PathError
	if !errors.As(err, &errno) || errno != want || !errors.As(err, &pe) || pe.Path != op.Path {
		t.Errorf("%v %s: %v, want %v", op.Kind, op.Path, err, want)
	}
}

func TestAChangeIsOnAllNodesAndItsResultWithTheCaller(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 3, nil)
	for i, n := range nodes {
		path := fmt.Sprintf("f%d", i)
		c := n.do(t, create(path))
		if c.New == nil || c.New.Name != path || c.New.Writer != uint32(i+1) || c.Old != nil {
			t.Errorf("create answers %+v", c)
		}
		if got := n.file.tree(t); !has(got, path) {
			t.Errorf("%s is not in the file when Do returns", path)
		}
		c, commit, err := n.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte("abc")}, false)
		if err != nil || string(c.New.Data()) != "abc" || commit != nil {
			t.Errorf("write answers %+v, %v, %v", c, commit, err)
		}
		n.refused(t, create(path), syscall.EEXIST)
		n.refused(t, create("no/such"), syscall.ENOENT)
		if own, foreign := n.watch.told(path); !own || foreign {
			t.Errorf("%s: own %v, foreign %v", path, own, foreign)
		}
	}
	alike(t, nodes...)
	if own, foreign := nodes[2].watch.told("f0"); own || !foreign {
		t.Error("the kernel of another node is not told")
	}
	if err := nodes[0].Sync(nil); err != nil {
		t.Error(err)
	}
}

func has(tree *memdb.Tree, path string) bool {
	_, ok := tree.Lookup(path)
	return ok
}

func TestNothingIsSentWithoutQuorum(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, nil)[0]
	n.SetQuorate(false)
	n.refused(t, mkdir("d"), syscall.EACCES)
	if n.Quorate() || len(r.normals()) != 0 {
		t.Error("something was sent")
	}
	n.SetQuorate(true)
	n.do(t, mkdir("d"))
}

func TestWithoutAConnectionAChangeIsRefused(t *testing.T) {
	r := newRing()
	r.Down = true
	n := r.start(t, 1, nil)
	n.refused(t, mkdir("d"), syscall.EACCES)
	r.Set(func(b *grouptest.Bus) { b.Down = false })
	n.synced(t, 1)
	n.do(t, mkdir("d"))
	n.stop()
	n.refused(t, mkdir("e"), syscall.EACCES)
}

func TestWhatAPeerCouldNotDigestIsNotSent(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, nil)[0]
	for _, d := range []string{"full", "full/x", "empty"} {
		n.do(t, mkdir(d))
	}
	n.do(t, create("f"))
	sent := len(r.normals())
	n.refused(t, memdb.Op{Kind: memdb.OpRename, Path: "full", To: "empty"}, syscall.ENOTEMPTY)
	n.refused(t, memdb.Op{Kind: memdb.OpRename, Path: "empty", To: "full"}, syscall.ENOTEMPTY)
	n.refused(t, memdb.Op{Kind: memdb.OpRename, Path: "empty", To: "empty/in"}, syscall.EINVAL)
	n.refused(t, memdb.Op{Kind: memdb.OpWrite, Path: "f", Offset: memdb.MaxFileSize, Data: []byte("x")}, syscall.EFBIG)
	n.refused(t, create("a\x00b"), syscall.EINVAL)
	if len(r.normals()) != sent {
		t.Error("something was sent")
	}
	// Refused by the present tree, but this node may be the last to see a change.
	n.refused(t, memdb.Op{Kind: memdb.OpDelete, Path: "full"}, syscall.ENOTEMPTY)
	n.refused(t, create("f"), syscall.EEXIST)
	if len(r.normals()) != sent+2 {
		t.Error("it was not sent")
	}
}

func TestAFullTreeIsNotWrittenTo(t *testing.T) {
	r := newRing()
	block := make([]byte, memdb.MaxFileSize)
	entries := []*memdb.Entry{memdb.NewEntry(0, 0, 1000, 1, 1, memdb.TypeDir, "", nil)}
	for i := range uint64(memdb.MaxTreeBytes / memdb.MaxFileSize) {
		entries = append(entries, memdb.NewEntry(i+2, 0, i+2, 1, 1, memdb.TypeFile, fmt.Sprint("f", i), block))
	}
	n := r.startAll(t, 1, func(cfg *ClusterConfig) { cfg.Tree = build(t, entries) })[0]
	n.do(t, create("new"))
	sent := len(r.normals())
	n.refused(t, memdb.Op{Kind: memdb.OpWrite, Path: "new", Data: []byte("x")}, syscall.ENOSPC)
	if len(r.normals()) != sent {
		t.Error("something was sent")
	}
}

func TestAnEmptyFileGrowsByZerosThatAreSent(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, nil)[0]
	n.do(t, create("f"))
	n.do(t, memdb.Op{Kind: memdb.OpWrite, Path: "f", Offset: 5, Truncate: true})
	n.do(t, memdb.Op{Kind: memdb.OpWrite, Path: "f", Offset: 3, Truncate: true}) // shrinks: as it is
	list := r.normals()
	grow, err := decodeOp(memdb.OpWrite, list[1].Payload)
	if err != nil || grow.Offset != 0 || len(grow.Data) != 5 || !grow.Truncate {
		t.Errorf("sent was %+v, %v", grow, err)
	}
	shrink, err := decodeOp(memdb.OpWrite, list[2].Payload)
	if err != nil || shrink.Offset != 3 || len(shrink.Data) != 0 || !shrink.Truncate {
		t.Errorf("sent was %+v, %v", shrink, err)
	}
	if e, _ := n.Tree().Lookup("f"); e.Size() != 3 {
		t.Errorf("the size is %d", e.Size())
	}
}

// givenUp releases a ring that held a change back whose caller has given up: it
// is made all the same, and then the kernel must be told.
func (r *ring) givenUp(t *testing.T, n *testNode, path string) {
	t.Helper()
	r.hold(false)
	testutil.WaitFor(t, "applied", func() bool { return has(n.Tree(), path) })
	testutil.WaitFor(t, "told", func() bool { _, foreign := n.watch.told(path); return foreign })
}

func TestAChangeThatDoesNotComeBackIsGivenUp(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, func(cfg *ClusterConfig) { cfg.Timeout = 30 * time.Millisecond })[0]
	r.hold(true)
	path := ""
	for i := 0; len(r.normals()) == 0; i++ { // on a busy machine it may not even be sent in that time
		path = fmt.Sprint("late", i)
		n.refused(t, mkdir(path), syscall.ETIMEDOUT)
	}
	if !n.logs.contain("a change was not delivered in time") || n.Stats().Timeouts.Load() == 0 {
		t.Error("nobody hears of it")
	}
	r.givenUp(t, n, path)
}

func TestAnInterruptedCallReturnsSoon(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, nil)[0]
	r.hold(true)
	cancel := make(chan struct{})
	go func() {
		testutil.WaitFor(t, "sent", func() bool { return len(r.normals()) > 0 })
		close(cancel)
	}()
	op := mkdir("d")
	if _, err := n.Do(cancel, &op); err != syscall.EINTR {
		t.Errorf("Do: %v", err)
	}
	if n.Stats().Interrupts.Load() != 1 {
		t.Error("it is not counted")
	}
	r.givenUp(t, n, "d")
}

// Any signal that a process handles interrupts its calls.
func TestAnInterruptIsNothingIfTheChangeComesBackSoon(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, nil)[0]
	cancel := make(chan struct{})
	close(cancel)
	op := mkdir("d")
	if c, err := n.Do(cancel, &op); err != nil || c.New == nil {
		t.Errorf("Do: %+v, %v", c, err)
	}
}

func TestOneOfManyTakesALock(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 3, nil)
	nodes[0].do(t, mkdir("priv"))
	nodes[0].do(t, mkdir("priv/lock"))
	for round := range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for _, n := range nodes {
			for range 2 {
				wg.Go(func() {
					op := mkdir(fmt.Sprint("priv/lock/", round))
					switch _, err := n.Do(nil, &op); {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, syscall.EEXIST):
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d took the lock", won.Load())
		}
	}
	alike(t, nodes...)
}

func TestAnExpiredLockIsBrokenByAnyNode(t *testing.T) {
	var now atomic.Int64
	now.Store(1000)
	r := newRing()
	nodes := r.startAll(t, 3, func(cfg *ClusterConfig) {
		cfg.Clock = func() time.Time { return time.Unix(now.Load(), 0) }
	})
	for _, d := range []string{"priv", "priv/lock", "priv/lock/l"} {
		nodes[1].do(t, mkdir(d))
	}
	alike(t, nodes...)
	ask := memdb.Op{Kind: memdb.OpMTime, Path: "priv/lock/l"}
	nodes[2].refused(t, ask, syscall.EACCES)
	alike(t, nodes...)
	if !has(nodes[0].Tree(), "priv/lock/l") {
		t.Fatal("a young lock is broken")
	}
	now.Add(121)
	// The lock may be gone when the new time arrives.
	if _, err := nodes[2].Do(nil, &ask); !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("asking for an expired lock answers %v", err)
	}
	for _, n := range nodes {
		testutil.WaitFor(t, "broken", func() bool { return !has(n.Tree(), "priv/lock/l") })
	}
	alike(t, nodes...)
	nodes[0].do(t, mkdir("priv/lock/l"))
}

func TestAFailingFileKeepsOnlyItsNodeOut(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 3, nil)
	nodes[0].do(t, mkdir("before"))
	alike(t, nodes...)
	bad := nodes[1]
	bad.file.setFail(syscall.ENOSPC)
	bad.refused(t, mkdir("d"), syscall.ENOSPC)
	if has(bad.Tree(), "d") {
		t.Error("it shows what it has not stored")
	}
	if !errors.Is(bad.Status().Database, syscall.ENOSPC) {
		t.Errorf("status %v", bad.Status().Database)
	}
	nodes[0].synced(t, 2)
	if !has(nodes[0].Tree(), "d") || !has(bad.Tree(), "before") {
		t.Error("the others have lost it, or reads are stopped")
	}
	nodes[2].do(t, mkdir("meanwhile"))
	bad.refused(t, mkdir("e"), syscall.EACCES)
	bad.file.setFail(nil)
	for _, n := range nodes {
		n.synced(t, 3)
	}
	alike(t, nodes...)
	if !has(bad.Tree(), "meanwhile") || bad.Status().Database != nil {
		t.Error("it is not up to date")
	}
	bad.do(t, mkdir("e"))
	alike(t, nodes...)
}

func TestManyCallsFromAllNodesAreInFlight(t *testing.T) {
	r := newRing()
	nodes := r.startAll(t, 3, nil)
	const callers, each = 16, 40
	var wg sync.WaitGroup
	for i, n := range nodes {
		for c := range callers {
			wg.Go(func() {
				dir := fmt.Sprintf("n%d-%d", i, c)
				op := mkdir(dir)
				if _, err := n.Do(nil, &op); err != nil {
					t.Error(err)
				}
				for k := range each {
					f := create(fmt.Sprintf("%s/f%d", dir, k))
					if _, err := n.Do(nil, &f); err != nil {
						t.Error(err)
					}
					if _, _, err := n.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: f.Path, Data: []byte(f.Path)}, false); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	alike(t, nodes...)
	if _, entries := nodes[0].Tree().Usage(); entries != 1+3*callers*(each+1) {
		t.Errorf("%d entries", entries)
	}
	// Together they need fewer transactions than there are changes.
	if changes := 3 * callers * (2*each + 1); nodes[0].file.commits > changes/2 {
		t.Errorf("%d transactions for %d changes", nodes[0].file.commits, changes)
	}
}

func TestANewerProtocolEndsWritingHere(t *testing.T) {
	r := newRing()
	n := r.startAll(t, 1, nil)[0]
	n.do(t, mkdir("d"))
	newer := wire.Message{Header: wire.Header{Type: wire.Normal, Subtype: 2, Version: ProtocolVersion + 1}, Count: 1}
	r.mu.Lock()
	r.Send(dfsm.Member{Node: 1, PID: 1001}, newer.Encode())
	r.mu.Unlock()
	testutil.WaitFor(t, "out", func() bool { return n.Status().Group.Mode == dfsm.ModeVersionError })
	n.refused(t, mkdir("e"), syscall.EIO)
	if !has(n.Tree(), "d") {
		t.Error("reads are stopped")
	}
}

func TestTheLogTellsASync(t *testing.T) {
	r := newRing()
	first := r.startAll(t, 1, nil)[0]
	first.do(t, mkdir("d"))
	second := r.start(t, 2, nil)
	second.synced(t, 2)
	first.synced(t, 2)
	for text, n := range map[string]*testNode{
		"starting data syncronisation":                             first,
		"received all states":                                      first,
		"leader is 1/1001":                                         second,
		"synced members: 1/1001":                                   second,
		"start sending inode updates":                              first,
		"sent all (2) updates":                                     first,
		"waiting for updates from leader":                          second,
		"update complete - trying to commit (got 2 inode updates)": second,
		"all data is up to date":                                   second,
	} {
		if !n.logs.contain(text) {
			t.Errorf("%q is not logged, but\n%s", text, strings.Join(n.logs.text, "\n"))
		}
	}
	if n := second.Stats().Syncs.Load(); n != 1 {
		t.Errorf("brought up to date %d times", n)
	}
	// Counted by what began it, as each of them saw it.
	counted := func(what string, by *[group.SyncReasons]Volume, reason group.SyncReason, entries int64) {
		t.Helper()
		for r := range by {
			want := int64(0)
			if group.SyncReason(r) == reason {
				want = entries
			}
			if n, size := by[r].Entries.Load(), by[r].Bytes.Load(); n != want || (size > 0) != (n > 0) {
				t.Errorf("%s, %v: %d entries of %d bytes, want %d", what, group.SyncReason(r), n, size, want)
			}
		}
	}
	counted("sent", &first.Stats().Sent, group.SyncMemberJoin, 2)
	counted("received", &second.Stats().Received, group.SyncOwnJoin, 2)
	counted("received by the leader", &first.Stats().Received, group.SyncMemberJoin, 0)
	third := r.start(t, 3, nil)
	third.synced(t, 3)
	counted("sent to the next", &first.Stats().Sent, group.SyncMemberJoin, 4)
	counted("received by the next", &third.Stats().Received, group.SyncOwnJoin, 2)
	counted("received by who is in step", &second.Stats().Received, group.SyncOwnJoin, 2)
}
