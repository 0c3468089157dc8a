package dcdb

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/memdb"
)

// from makes a message that a node sent.
func from(node int, subtype uint16, payload []byte) dfsm.Message {
	return dfsm.Message{From: dfsm.Member{Node: corosync.NodeID(node), PID: 1}, Subtype: subtype, Time: 1000, Own: node == 1, Payload: payload}
}

func opFrom(node int, op memdb.Op) dfsm.Message { return from(node, uint16(op.Kind), encodeOp(&op)) }

func create(path string) memdb.Op { return memdb.Op{Kind: memdb.OpCreate, Path: path} }
func mkdir(path string) memdb.Op  { return memdb.Op{Kind: memdb.OpMkdir, Path: path} }

// apply has an application apply messages, all of which must take effect or be
// refused.
func apply(t *testing.T, a *app, batch ...dfsm.Message) []dfsm.Result {
	t.Helper()
	r := a.Apply(batch)
	if r.Err != nil || r.Done != len(batch) {
		t.Fatalf("Apply: %+v", r)
	}
	return r.Results
}

func dirs(t *testing.T, a *app, paths ...string) {
	t.Helper()
	for _, p := range paths {
		apply(t, a, opFrom(2, mkdir(p)))
	}
}

func emptyApp() (*app, *memFile) {
	tree := memdb.New()
	file := newMemFile(tree)
	return newTestApp(tree, file), file
}

// watcher is an observer that remembers.
type watcher struct {
	foreign []string // paths of operations that the kernel has to be told of
	own     []string
	resets  [][]memdb.Change
}

func (w *watcher) Applied(op *memdb.Op, _ []memdb.Change, foreign bool) {
	if foreign {
		w.foreign = append(w.foreign, op.Path)
	} else {
		w.own = append(w.own, op.Path)
	}
}
func (w *watcher) Reset(changes []memdb.Change) { w.resets = append(w.resets, slices.Clone(changes)) }

func TestABatchIsOneTransactionByItsSenders(t *testing.T) {
	a, file := emptyApp()
	apply(t, a, opFrom(1, mkdir("d")), opFrom(7, create("d/f")),
		opFrom(7, memdb.Op{Kind: memdb.OpWrite, Path: "d/f", Data: []byte("x")}),
		opFrom(3, memdb.Op{Kind: memdb.OpMTime, Path: "d", MTime: 77}))
	if file.commits != 1 {
		t.Errorf("%d transactions", file.commits)
	}
	if file.tree(t).Checksum() != a.tree.Checksum() {
		t.Error("the file does not hold the tree")
	}
	f, _ := a.tree.Lookup("d/f")
	d, _ := a.tree.Lookup("d")
	if f.Writer != 7 || f.MTime != 1000 || string(f.Data()) != "x" || d.Writer != 3 || d.MTime != 77 {
		t.Errorf("file %+v, directory %+v", f.Entry, d.Entry)
	}
}

func TestResultsAreErrnosForTheirSenders(t *testing.T) {
	a, file := emptyApp()
	dirs(t, a, "nodes", "nodes/a", "nodes/a/lxc", "nodes/b", "nodes/b/lxc", "priv", "priv/lock")
	before := file.commits
	got := apply(t, a,
		opFrom(1, create("nodes/a/lxc/100.conf")), opFrom(1, create("nodes/b/lxc/100.conf")), // a VMID twice
		opFrom(1, mkdir("priv/lock/x")), opFrom(1, mkdir("priv/lock/x")), // a lock twice
		opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "no", Data: []byte("x")}))
	want := []error{nil, syscall.EEXIST, nil, syscall.EEXIST, syscall.ENOENT}
	for i, w := range want {
		if _, ok := got[i].Value.(*success); ok != (w == nil) {
			t.Errorf("result %d is %v", i, got[i])
		}
		var pe *fs.PathError
		if w != nil && (!errors.Is(got[i].Err, w) || !errors.As(got[i].Err, &pe)) {
			t.Errorf("result %d is %v, want %v", i, got[i], w)
		}
	}
	if file.commits != before+1 {
		t.Errorf("%d transactions", file.commits-before)
	}
	// What is refused alone needs none.
	apply(t, a, opFrom(2, mkdir("nodes")))
	if file.commits != before+1 {
		t.Error("a refusal made a transaction")
	}
}

func TestAWriteWithoutQuorumIsRefusedAndMakesTheNodeLeave(t *testing.T) {
	a, file := emptyApp()
	a.quorate.Store(false)
	r := a.Apply([]dfsm.Message{opFrom(1, mkdir("d")), opFrom(1, mkdir("e"))})
	if r.Done != 1 || r.Results[0].Err != syscall.EACCES || !errors.Is(r.Err, errNotQuorate) || errors.Is(r.Err, dfsm.ErrFatal) {
		t.Errorf("Apply: %+v", r)
	}
	if _, ok := a.tree.Lookup("d"); ok || file.commits != 0 {
		t.Error("it was applied")
	}
}

func TestAMalformedMessageMakesTheNodeLeaveAfterWhatCameBefore(t *testing.T) {
	good := func(op memdb.Op) []byte { return encodeOp(&op) }
	bad := []struct {
		name    string
		subtype uint16
		payload []byte
	}{
		{"empty", 1, nil},
		{"short header", 5, make([]byte, opHeader-1)},
		{"one byte too many", 5, append(good(create("x")), 0)},
		{"one byte missing", 5, good(create("x"))[:opHeader+1]},
		{"path without end", 5, func() []byte { b := good(create("xy")); b[len(b)-1] = 'z'; return b }()},
		{"to without end", 4, func() []byte {
			b := good(memdb.Op{Kind: memdb.OpRename, Path: "a", To: "b"})
			b[len(b)-1] = 'z'
			return b
		}()},
		{"lengths that overflow", 1, func() []byte {
			b := good(memdb.Op{Kind: memdb.OpWrite, Path: "a", Data: []byte("b")})
			copy(b, []byte{0xff, 0xff, 0xff, 0xff})
			return b
		}()},
		{"unlock of a digest only", 8, make([]byte, unlockHeader)},
		{"unlock without end", 7, append(make([]byte, unlockHeader), 'a')},
		{"type 0", 0, good(create("x"))},
		{"type 9", 9, good(create("x"))},
	}
	for _, b := range bad {
		a, file := emptyApp()
		r := a.Apply([]dfsm.Message{opFrom(2, mkdir("d")), from(3, b.subtype, b.payload), opFrom(2, mkdir("e"))})
		var me *malformedError
		if r.Done != 1 || !errors.As(r.Err, &me) || errors.Is(r.Err, dfsm.ErrFatal) {
			t.Errorf("%s: %+v", b.name, r)
		}
		if _, ok := file.tree(t).Lookup("d"); !ok {
			t.Errorf("%s: what came before is not stored", b.name)
		}
		if _, ok := a.tree.Lookup("e"); ok {
			t.Errorf("%s: what comes after is applied", b.name)
		}
	}
}

func TestAStringEndsAtItsFirstNUL(t *testing.T) {
	op := create("ab")
	b := encodeOp(&op)
	b[opHeader+1] = 0 // a peer in C takes it for "a"
	got, err := decodeOp(memdb.OpCreate, b)
	if err != nil || got.Path != "a" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWithoutQuorumOrFileNothingIsShown(t *testing.T) {
	a, file := emptyApp()
	w := &watcher{}
	a.calls = newCalls(w)
	dirs(t, a, "d")
	before := a.tree.Checksum()
	file.setFail(syscall.ENOSPC)
	r := a.Apply([]dfsm.Message{opFrom(1, mkdir("e")), opFrom(1, mkdir("d")), opFrom(2, mkdir("f"))})
	if r.Done != 3 || !errors.Is(r.Err, syscall.ENOSPC) || errors.Is(r.Err, dfsm.ErrFatal) {
		t.Fatalf("Apply: %+v", r)
	}
	if !errors.Is(r.Results[0].Err, syscall.ENOSPC) || !errors.Is(r.Results[1].Err, syscall.EEXIST) {
		t.Errorf("results %v", r.Results)
	}
	if a.tree.Checksum() != before || len(w.resets) != 1 || len(w.resets[0]) != 3 {
		t.Errorf("the tree shows what is not stored, or nobody was told: %v", w.resets)
	}
	if err := a.ready(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("ready: %v", err)
	}
	file.setFail(nil)
	if err := a.ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	apply(t, a, opFrom(1, mkdir("e")))
}

func TestADatabaseThatFailsAgainAtOnceIsLeftAloneForLonger(t *testing.T) {
	a, file := emptyApp()
	now := time.Unix(1000, 0)
	a.clock = func() time.Time { return now }
	for _, wait := range []time.Duration{0, 5, 10, 20, 40, 60, 60} {
		file.setFail(syscall.EIO)
		a.Apply([]dfsm.Message{opFrom(2, mkdir("d"))})
		file.setFail(nil)
		if wait > 0 {
			now = now.Add(wait*time.Second - 1)
			if a.ready() == nil {
				t.Fatalf("ready before %d s", wait)
			}
			now = now.Add(1)
		}
		if err := a.ready(); err != nil {
			t.Fatalf("not ready after %d s: %v", wait, err)
		}
	}
	now = now.Add(time.Hour)
	file.setFail(syscall.EIO)
	a.Apply([]dfsm.Message{opFrom(2, mkdir("d"))})
	file.setFail(nil)
	if err := a.ready(); err != nil {
		t.Errorf("a failure an hour later is treated as one at once: %v", err)
	}
}

func TestOnlyTheLowestNodeBreaksAnExpiredLock(t *testing.T) {
	now := time.Unix(1000, 0)
	newLock := func() (*app, memdb.Digest, *[][]byte) {
		a, _ := emptyApp()
		a.clock = func() time.Time { return now }
		var posted [][]byte
		a.post = func(subtype uint16, payload []byte) {
			if subtype != msgUnlock {
				t.Errorf("posts %d", subtype)
			}
			posted = append(posted, payload)
		}
		dirs(t, a, "priv", "priv/lock", "priv/lock/l")
		lock, _ := a.tree.ObserveLock("priv/lock/l", now)
		return a, lock.Digest, &posted
	}
	two := []dfsm.Member{{Node: 1, PID: 1}, {Node: 2, PID: 1}}
	try := func(a *app, digest memdb.Digest) {
		apply(t, a, from(2, msgUnlockRequest, encodeUnlock("priv/lock/l", digest)))
	}

	a, digest, posted := newLock()
	a.ViewChanged(two)
	now = now.Add(memdb.LockTimeout)
	try(a, digest)
	try(a, memdb.Digest{1})
	if len(*posted) != 0 {
		t.Error("a lock that is not expired is broken")
	}
	now = now.Add(time.Second)
	try(a, memdb.Digest{1})
	if len(*posted) != 0 {
		t.Error("a lock in another state is broken")
	}
	a.self = func() dfsm.Member { return two[1] }
	try(a, digest)
	if len(*posted) != 0 {
		t.Error("node 2 breaks it")
	}
	a.self = func() dfsm.Member { return two[0] }
	try(a, digest)
	if len(*posted) != 1 {
		t.Fatal("node 1 does not break it")
	}
	// The unlock deletes it on all nodes, if it is still the same lock.
	apply(t, a, from(1, msgUnlock, encodeUnlock("priv/lock/l", memdb.Digest{1})))
	if _, ok := a.tree.Lookup("priv/lock/l"); !ok {
		t.Error("an unlock with another digest deletes the lock")
	}
	w := &watcher{}
	a.calls = newCalls(w)
	apply(t, a, from(1, msgUnlock, (*posted)[0]))
	if _, ok := a.tree.Lookup("priv/lock/l"); ok {
		t.Error("the lock is still there")
	}
	if len(w.foreign) != 1 {
		t.Error("the kernel is not told")
	}
}

func TestChangesOfCorosyncConfAreTold(t *testing.T) {
	var told []bool
	a, _ := emptyApp()
	a.confChanged = func(own bool) { told = append(told, own) }
	dirs(t, a, "d")
	for _, batch := range [][]dfsm.Message{
		{opFrom(2, create("corosync.conf"))},
		{opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "corosync.conf", Data: []byte("x")})},
		{opFrom(2, create("n")), opFrom(1, memdb.Op{Kind: memdb.OpRename, Path: "n", To: "corosync.conf"})},
		{opFrom(1, create("corosync.conf"))}, // refused
		{opFrom(1, create("d/corosync.conf"))},
		{opFrom(1, memdb.Op{Kind: memdb.OpRename, Path: "corosync.conf", To: "away"})},
	} {
		apply(t, a, batch...)
	}
	if !slices.Equal(told, []bool{false, true, true}) {
		t.Errorf("told %v", told)
	}
}

func TestWhatAWaitingCallMadeIsItsOwnToTell(t *testing.T) {
	w := &watcher{}
	a, _ := emptyApp()
	a.calls = newCalls(w)
	op := mkdir("mine")
	payload := encodeOp(&op)

	// A call that gets its result tells the kernel itself.
	c := a.calls.begin(uint16(op.Kind), payload)
	apply(t, a, opFrom(1, op))
	a.calls.end(c, true)
	if !slices.Equal(w.own, []string{"mine"}) || len(w.foreign) != 0 {
		t.Fatalf("own %v, foreign %v", w.own, w.foreign)
	}
	// The same from another node, or when nobody waits any more, or for
	// something else, is news for it.
	apply(t, a, opFrom(2, memdb.Op{Kind: memdb.OpDelete, Path: "mine"}))
	c = a.calls.begin(uint16(op.Kind), payload)
	a.calls.end(c, false)
	apply(t, a, opFrom(1, op))
	c = a.calls.begin(uint16(op.Kind), payload)
	apply(t, a, opFrom(1, mkdir("other")))
	a.calls.end(c, false)
	if !slices.Equal(w.own, []string{"mine"}) || !slices.Equal(w.foreign, []string{"mine", "mine", "other"}) {
		t.Fatalf("own %v, foreign %v", w.own, w.foreign)
	}
	// A call that gives up just when its change is made leaves it to be told.
	apply(t, a, opFrom(2, memdb.Op{Kind: memdb.OpDelete, Path: "mine"}))
	w.own, w.foreign = nil, nil
	c = a.calls.begin(uint16(op.Kind), payload)
	apply(t, a, opFrom(1, op))
	a.calls.end(c, false)
	if !slices.Equal(w.own, []string{"mine"}) || !slices.Equal(w.foreign, []string{"mine"}) {
		t.Errorf("own %v, foreign %v", w.own, w.foreign)
	}
	if len(a.calls.waiting) != 0 {
		t.Error("calls are left over")
	}
}
