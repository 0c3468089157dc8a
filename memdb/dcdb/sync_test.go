package dcdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/memdb"
)

// states are what the applications send in a sync; the one at self is who asks.
func states(t testing.TB, self int, apps ...*app) (all []dfsm.MemberState) {
	t.Helper()
	for i, a := range apps {
		state, err := a.State()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, dfsm.MemberState{Member: dfsm.Member{Node: corosync.NodeID(i + 1), PID: 1}, Self: i == self, State: state})
	}
	return all
}

// syncAll carries out a sync, and returns who led and the inodes that were sent.
func syncAll(t testing.TB, apps ...*app) (leader int, sent []uint64) {
	t.Helper()
	leader = -1
	var behind []int
	var payloads [][]byte
	for i, a := range apps {
		s, err := a.ProcessStates(states(t, i, apps...))
		if err != nil {
			t.Fatal(err)
		}
		if s.Leader {
			if leader >= 0 {
				t.Fatalf("both %d and %d lead", leader, i)
			}
			leader = i
			for p, ok := s.Updates.Next(); ok; p, ok = s.Updates.Next() {
				payloads = append(payloads, bytes.Clone(p))
				sent = append(sent, binary.LittleEndian.Uint64(p[8:]))
			}
		}
		if !s.Synced[i] {
			behind = append(behind, i)
		}
	}
	for _, i := range behind {
		if err := apps[i].ApplyUpdates(payloads); err != nil {
			t.Fatal(err)
		}
		if err := apps[i].Commit(); err != nil {
			t.Fatal(err)
		}
		apps[i].Cleanup()
	}
	return leader, sent
}

// grow makes random changes.
func grow(a *app, rnd *rand.Rand, n int) {
	for range n {
		path := fmt.Sprintf("f%d", rnd.IntN(30))
		dir := fmt.Sprintf("d%d", rnd.IntN(4))
		if rnd.IntN(2) == 0 {
			path = dir + "/" + path
		}
		var op memdb.Op
		switch rnd.IntN(6) {
		case 0:
			op = mkdir(dir)
		case 1, 2:
			op = create(path)
		case 3:
			op = memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(fmt.Sprint(rnd.IntN(1000)))}
		case 4:
			op = memdb.Op{Kind: memdb.OpDelete, Path: path}
		case 5:
			op = memdb.Op{Kind: memdb.OpRename, Path: path, To: fmt.Sprintf("f%d", rnd.IntN(30))}
		}
		a.Apply([]dfsm.Message{opFrom(1+rnd.IntN(5), op)})
	}
}

func TestASyncMakesAnyTreesAlike(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		var apps []*app
		var files []*memFile
		for range 2 + rnd.IntN(3) {
			a, f := emptyApp()
			apps, files = append(apps, a), append(files, f)
		}
		// A common past, then each goes its own way, or nowhere.
		common := rnd.Uint64()
		for _, a := range apps {
			grow(a, rand.New(rand.NewPCG(common, 2)), 60)
			grow(a, rnd, rnd.IntN(2)*rnd.IntN(40))
		}
		w := &watcher{}
		apps[0].calls = newCalls(w)
		before := apps[0].tree.Entries()
		differs := slices.ContainsFunc(apps, func(a *app) bool { return !bytes.Equal(a.tree.Index(), apps[0].tree.Index()) })

		_, sent := syncAll(t, apps...)
		for i, a := range apps {
			if a.tree.Checksum() != apps[0].tree.Checksum() {
				t.Fatalf("tree %d differs after the sync", i)
			}
			if files[i].tree(t).Checksum() != a.tree.Checksum() {
				t.Fatalf("file %d differs from its tree", i)
			}
		}
		if !differs && len(sent) > 0 {
			t.Errorf("%d updates are sent though all are alike", len(sent))
		}
		if s := slices.Clone(sent); len(slices.Compact(slices.Sorted(slices.Values(s)))) != len(sent) {
			t.Errorf("an entry is sent twice: %v", sent)
		}
		checkTold(t, w, before, apps[0].tree.Entries())
		// Life goes on alike.
		for _, a := range apps {
			grow(a, rand.New(rand.NewPCG(common, 3)), 20)
			if a.tree.Checksum() != apps[0].tree.Checksum() {
				t.Fatal("the trees part again")
			}
		}
	}
}

// checkTold checks that an observer was told exactly what differs.
func checkTold(t *testing.T, w *watcher, before, after []*memdb.Entry) {
	t.Helper()
	old, now := map[uint64]*memdb.Entry{}, map[uint64]*memdb.Entry{}
	for _, e := range before {
		old[e.Inode] = e
	}
	for _, e := range after {
		now[e.Inode] = e
	}
	want := 0
	for inode, e := range now {
		if o := old[inode]; o == nil || o.Digest() != e.Digest() {
			want++
		}
	}
	for inode := range old {
		if now[inode] == nil {
			want++
		}
	}
	var told []memdb.Change
	for _, r := range w.resets {
		told = append(told, r...)
	}
	if len(told) != want {
		t.Errorf("%d differences told, there are %d", len(told), want)
	}
	for _, c := range told { // as if the way back had been taken back
		if c.Old != now[c.Inode] || c.New != old[c.Inode] {
			t.Errorf("told of inode %d: %v, %v", c.Inode, c.Old, c.New)
		}
	}
}

func TestTheLeaderIsTheGreatestVersionThenTheYoungestThenTheFirst(t *testing.T) {
	with := func(version uint64, mtime uint32, name string) *app {
		tree := build(t, []*memdb.Entry{
			memdb.NewEntry(0, 0, version, 1, mtime, memdb.TypeDir, "", nil),
			memdb.NewEntry(2, 0, 2, 1, 5, memdb.TypeFile, name, nil),
		})
		return newTestApp(tree, newMemFile(tree))
	}
	for _, c := range []struct {
		apps   []*app
		leader int
	}{
		{[]*app{with(5, 9, "a"), with(6, 1, "b"), with(4, 9, "c")}, 1},
		{[]*app{with(5, 1, "a"), with(5, 2, "b"), with(5, 3, "c")}, 2},
		{[]*app{with(5, 1, "a"), with(5, 3, "b"), with(5, 3, "c")}, 1},
		{[]*app{with(5, 1, "a"), with(5, 1, "a")}, 0},
		{[]*app{with(1<<40, 1, "a"), with(5, 2, "b")}, 0},
	} {
		if got, _ := syncAll(t, c.apps...); got != c.leader {
			t.Errorf("%d leads, not %d", got, c.leader)
		}
	}
}

func TestLockNotesOutliveASync(t *testing.T) {
	leader, _ := emptyApp()
	behind, _ := emptyApp()
	now := time.Unix(1000, 0)
	behind.clock = func() time.Time { return now }
	for _, a := range []*app{leader, behind} {
		dirs(t, a, "priv", "priv/lock", "priv/lock/old")
	}
	dirs(t, leader, "priv/lock/new")
	now = now.Add(time.Minute)
	syncAll(t, leader, behind)
	old, _ := behind.tree.ObserveLock("priv/lock/old", now)
	young, _ := behind.tree.ObserveLock("priv/lock/new", now)
	if !old.Since.Equal(time.Unix(1000, 0)) || !young.Since.Equal(now) {
		t.Errorf("the old lock counts from %v, the new one from %v", old.Since, young.Since)
	}
}

func TestOnlyWhatSomebodyLacksIsSent(t *testing.T) {
	leader, _ := emptyApp()
	var others []*app
	for range 2 {
		a, _ := emptyApp()
		others = append(others, a)
	}
	all := append([]*app{leader}, others...)
	for _, a := range all {
		dirs(t, a, "a", "b", "c")
	}
	apply(t, leader, opFrom(1, create("x")))
	apply(t, leader, opFrom(1, memdb.Op{Kind: memdb.OpMTime, Path: "b", MTime: 5}))
	_, sent := syncAll(t, all...)
	if !slices.Equal(sent, []uint64{0, 3, 5}) { // the root, b, x
		t.Errorf("sent were %v", sent)
	}
}

// behindBy returns a leader and a node that is behind, in the middle of a sync,
// and what the leader has sent.
func behindBy(t *testing.T) (leader, a *app, file *memFile, payloads [][]byte) {
	t.Helper()
	leader, _ = emptyApp()
	a, file = emptyApp()
	dirs(t, a, "mine")
	dirs(t, leader, "x", "y", "z")
	s, err := leader.ProcessStates(states(t, 0, leader, a))
	if err != nil {
		t.Fatal(err)
	}
	for p, ok := s.Updates.Next(); ok; p, ok = s.Updates.Next() {
		payloads = append(payloads, bytes.Clone(p))
	}
	if _, err := a.ProcessStates(states(t, 1, leader, a)); err != nil {
		t.Fatal(err)
	}
	return leader, a, file, payloads
}

func TestACommitThatDoesNotMakeTheLeadersTreeIsFatal(t *testing.T) {
	for name, spoil := range map[string]func(a *app, payloads [][]byte) [][]byte{
		"an update is missing": func(_ *app, p [][]byte) [][]byte { return p[:len(p)-1] },
		"an update is another": func(_ *app, p [][]byte) [][]byte { p[1][28]++; return p },
		"the index lies": func(a *app, p [][]byte) [][]byte {
			a.sync.leader = bytes.Clone(a.sync.leader)
			a.sync.leader[0]++
			return p
		},
	} {
		_, a, file, payloads := behindBy(t)
		before := a.tree.Checksum()
		if err := a.ApplyUpdates(spoil(a, payloads)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := a.Commit(); !errors.Is(err, dfsm.ErrFatal) || !errors.Is(err, errMismatch) {
			t.Errorf("%s: %v", name, err)
		}
		if a.tree.Checksum() != before || file.tree(t).Checksum() != before {
			t.Errorf("%s: the tree or the file is another", name)
		}
	}
}

// What a database could not be loaded from must not be followed: no node would start again.
func TestALeaderThatNobodyCouldLoadIsNotFollowed(t *testing.T) {
	for _, tree := range [][]*memdb.Entry{
		{memdb.NewEntry(0, 0, 1<<63, 1, 1, memdb.TypeDir, "", nil)},
		{memdb.NewEntry(0, 0, memdb.MaxVersion+1, 1, 1, memdb.TypeDir, "", nil)},
		{memdb.NewEntry(0, 0, 1<<61, 1, 1, memdb.TypeDir, "", nil), memdb.NewEntry(1<<62, 0, 5, 1, 1, memdb.TypeFile, "f", nil)},
		{memdb.NewEntry(0, 0, 1<<61, 1, 1, memdb.TypeDir, "", nil), memdb.NewEntry(1<<63, 0, 5, 1, 1, memdb.TypeFile, "f", nil)},
	} {
		a, file := emptyApp()
		apply(t, a, opFrom(1, mkdir("d")))
		before := a.tree.Checksum()
		all := append(states(t, 0, a), dfsm.MemberState{Member: dfsm.Member{Node: 2, PID: 1}, State: memdb.EncodeIndex(tree)})
		if _, err := a.ProcessStates(all); err == nil || errors.Is(err, dfsm.ErrFatal) {
			t.Errorf("version %d, last inode %d: %v", tree[0].Version, tree[len(tree)-1].Inode, err)
		}
		if a.sync != nil || a.tree.Checksum() != before || file.tree(t).Checksum() != before {
			t.Error("something has changed")
		}
	}
}

func TestStrayUpdatesDoNotMatter(t *testing.T) {
	leader, a, _, payloads := behindBy(t)
	stray := appendUpdate(nil, memdb.NewEntry(99, 0, 99, 1, 1, memdb.TypeFile, "stray", []byte("x")))
	other := appendUpdate(nil, memdb.NewEntry(2, 0, 99, 1, 1, memdb.TypeFile, "other", []byte("x")))
	for range 3 {
		if err := a.ApplyUpdates([][]byte{stray, other}); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.sync.updates) != 0 {
		t.Error("they are gathered")
	}
	if err := errors.Join(a.ApplyUpdates(payloads), a.ApplyUpdates([][]byte{other}), a.Commit()); err != nil {
		t.Fatal(err)
	}
	if a.tree.Checksum() != leader.tree.Checksum() {
		t.Error("the tree is not the leader's")
	}
}

func TestAFullDiskAtTheCommitIsNotFatal(t *testing.T) {
	leader, a, file, payloads := behindBy(t)
	before := a.tree.Checksum()
	if err := a.ApplyUpdates(payloads); err != nil {
		t.Fatal(err)
	}
	file.setFail(syscall.ENOSPC)
	if err := a.Commit(); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, dfsm.ErrFatal) {
		t.Fatal(err)
	}
	if a.tree.Checksum() != before || a.ready() == nil {
		t.Error("the tree is another, or the group is joined again")
	}
	a.Cleanup()
	file.setFail(nil)
	if err := a.ready(); err != nil {
		t.Fatal(err)
	}
	syncAll(t, leader, a)
	if a.tree.Checksum() != leader.tree.Checksum() || file.tree(t).Checksum() != leader.tree.Checksum() {
		t.Error("the next sync does not bring it up to date")
	}
}

func TestMalformedStatesAndUpdatesAreRefused(t *testing.T) {
	leader, a, _, payloads := behindBy(t)
	for _, cut := range []int{0, 31, 33, 100} {
		s := states(t, 0, leader, a)
		s[1].State = s[1].State[:min(cut, len(s[1].State)-1)]
		var ie *memdb.IndexError
		if _, err := leader.ProcessStates(s); !errors.As(err, &ie) || errors.Is(err, dfsm.ErrFatal) {
			t.Errorf("a state of %d bytes: %v", cut, err)
		}
	}
	for n := range payloads[1] {
		var me *malformedError
		if err := a.ApplyUpdates([][]byte{payloads[1][:n]}); !errors.As(err, &me) {
			t.Errorf("an update cut to %d bytes: %v", n, err)
		}
	}
	a.Cleanup()
	if err := a.ApplyUpdates(payloads); err == nil {
		t.Error("updates are taken without a sync")
	}
	if err := a.Commit(); err == nil {
		t.Error("commits without a sync")
	}
}

func TestTheHostsConfFollowsASync(t *testing.T) {
	_, a, _, payloads := behindBy(t)
	told := 0
	a.confChanged = func(own bool) {
		if own {
			t.Error("as if this node had made the change")
		}
		told++
	}
	if err := errors.Join(a.ApplyUpdates(payloads), a.Commit()); err != nil || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
}

func TestUpdatesAreOfTheMomentOfTheirSync(t *testing.T) {
	leader, _ := emptyApp()
	behind, _ := emptyApp()
	dirs(t, leader, "a", "b")
	s, err := leader.ProcessStates(states(t, 0, leader, behind))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := behind.ProcessStates(states(t, 1, leader, behind)); err != nil {
		t.Fatal(err)
	}
	want := leader.tree.Checksum()
	leader.Cleanup()
	apply(t, leader, opFrom(1, memdb.Op{Kind: memdb.OpDelete, Path: "a"}), opFrom(1, create("c")))
	for p, ok := s.Updates.Next(); ok; p, ok = s.Updates.Next() {
		if err := behind.ApplyUpdates([][]byte{p}); err != nil {
			t.Fatal(err)
		}
	}
	if err := behind.Commit(); err != nil {
		t.Fatal(err)
	}
	if behind.tree.Checksum() != want {
		t.Error("the updates are of a later moment")
	}
}

// slowFile is a database whose transactions take until they are told to end.
type slowFile struct {
	*memFile
	begun, end chan struct{}
}

func (f *slowFile) Commit(changes []memdb.Change) error {
	close(f.begun)
	<-f.end
	return f.memFile.Commit(changes)
}

func TestReadersSeeTheOldTreeUntilTheNewOneIsStored(t *testing.T) {
	_, a, file, payloads := behindBy(t)
	if err := a.ApplyUpdates(payloads); err != nil {
		t.Fatal(err)
	}
	slow := &slowFile{file, make(chan struct{}), make(chan struct{})}
	a.db = newClocked(slow, nil)
	committed := make(chan error)
	go func() { committed <- a.Commit() }()
	<-slow.begun
	if !has(a.tree, "mine") || has(a.tree, "x") {
		t.Error("the new tree is shown before it is stored")
	}
	close(slow.end)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if has(a.tree, "mine") || !has(a.tree, "x") {
		t.Error("the old tree is still shown")
	}
}
