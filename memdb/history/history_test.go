package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/sqlitedb"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// node is a tree with a history, without a database.
type node struct {
	tb    testing.TB
	tree  *memdb.Tree
	cfg   Config
	r     *Recorder
	log   *testutil.Log
	clock time.Time
	mu    sync.Mutex
}

func newNode(tb testing.TB) *node {
	n := &node{tb: tb, tree: memdb.New(), log: &testutil.Log{}, clock: time.Unix(1_700_000_000, 0)}
	n.cfg = Config{
		Path: filepath.Join(tb.TempDir(), FileName), Tree: n.tree, Clock: n.now, Delay: time.Hour, Retry: 10 * time.Millisecond,
		NodeName: func(id uint32) string { return fmt.Sprintf("node%d", id) },
		Log:      slog.New(slog.NewTextHandler(n.log, nil)),
	}
	tb.Cleanup(func() {
		if n.r != nil {
			n.r.Close()
		}
	})
	return n
}

func (n *node) now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clock
}

func (n *node) pass(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock = n.clock.Add(d)
}

func (n *node) start() *node {
	n.r = Start(n.cfg)
	return n
}

func (n *node) stop() {
	n.r.Close()
	n.r = nil
}

// kill ends the recorder without anything that is queued being stored.
func (n *node) kill() {
	n.r.mu.Lock()
	n.r.queue.take()
	n.r.storing, n.r.broken, n.r.looked, n.r.root = nil, "", nil, nil
	n.r.root = memdb.NewEntry(0, 0, n.r.file.head.version, n.r.file.head.writer, n.r.file.head.mtime, memdb.TypeDir, "", nil)
	n.r.mu.Unlock()
	n.stop()
}

func (n *node) flush() {
	n.tb.Helper()
	if err := n.r.Flush(n.tb.Context()); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *node) apply(op memdb.Op) {
	n.tb.Helper()
	if op.Writer == 0 {
		op.Writer = 1
	}
	if op.MTime == 0 {
		op.MTime = uint32(n.now().Unix())
	}
	res, err := n.tree.Apply(&op)
	if err != nil {
		n.tb.Fatal(err)
	}
	if n.r != nil {
		n.r.Stored([]memdb.Step{memdb.StepOf(&op, res.Changes)})
	}
}

func (n *node) mkdir(path string) { n.tb.Helper(); n.apply(memdb.Op{Kind: memdb.OpMkdir, Path: path}) }
func (n *node) create(path string) {
	n.tb.Helper()
	n.apply(memdb.Op{Kind: memdb.OpCreate, Path: path})
}
func (n *node) remove(path string) {
	n.tb.Helper()
	n.apply(memdb.Op{Kind: memdb.OpDelete, Path: path})
}
func (n *node) rename(from, to string) {
	n.tb.Helper()
	n.apply(memdb.Op{Kind: memdb.OpRename, Path: from, To: to})
}
func (n *node) write(path, text string) {
	n.tb.Helper()
	if _, ok := n.tree.Lookup(path); !ok {
		n.create(path)
	}
	n.apply(memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(text), Truncate: true})
}
func (n *node) add(path, text string) {
	n.tb.Helper()
	e, _ := n.tree.Lookup(path)
	n.apply(memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(text), Offset: uint32(e.Size())})
}

// read opens the file after a flush.
func (n *node) read() *Reader {
	n.tb.Helper()
	if n.r != nil {
		n.flush()
	}
	r, err := Open(n.cfg.Path)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { r.Close() })
	return r
}

// list describes the changes of a path, the oldest first.
func (n *node) list(path string) (list []string) {
	n.tb.Helper()
	r := n.read()
	err := r.List(Query{Path: path}, func(c Change) bool {
		text := fmt.Sprintf("%d %s %v", c.Version, c.Kind, c.Path)
		switch {
		case c.From != "":
			text += " from " + c.From
		case c.To != "":
			text += " to " + c.To
		}
		if c.State == File {
			data, err := r.Content(c)
			if err != nil {
				n.tb.Fatal(err)
			}
			text += fmt.Sprintf(" %.20q", data)
		}
		if c.Omitted > 0 {
			text += fmt.Sprintf(" omitted %d", c.Omitted)
		}
		list = append(list, text)
		return true
	})
	if err != nil {
		n.tb.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

func (n *node) want(path string, want ...string) {
	n.tb.Helper()
	if got := n.list(path); !slices.Equal(got, want) {
		n.tb.Errorf("%q:\ngot  %q\nwant %q", path, got, want)
	}
}

// files is what a tree has, by path.
func files(tree *memdb.Tree) map[string]string {
	m := map[string]string{}
	for _, e := range tree.Entries() {
		if e.Inode != memdb.RootInode {
			path, _ := tree.Path(e.Inode)
			m[path] = e.Type.String() + string(e.Data())
		}
	}
	maps.DeleteFunc(m, func(path, _ string) bool { return unrecorded(path) })
	return m
}

// at is what the history has at a point.
func at(tb testing.TB, r *Reader, p Point) map[string]string {
	tb.Helper()
	m := map[string]string{}
	var list []Change
	if err := r.Tree(p, "", false, func(c Change) error {
		list = append(list, c)
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	for _, c := range list {
		data, err := r.Content(c)
		if err != nil {
			tb.Fatal(err)
		}
		m[c.Path] = memdb.Type(c.State).String() + string(data)
	}
	return m
}

func (n *node) gaps() []Gap {
	n.tb.Helper()
	list, err := n.read().Gaps()
	if err != nil {
		n.tb.Fatal(err)
	}
	return list
}

func TestEachChangeIsRecorded(t *testing.T) {
	n := newNode(t)
	n.mkdir("dir")
	n.start()
	n.write("dir/a", "one")
	n.write("dir/a", "two")
	n.rename("dir/a", "dir/b")
	n.write("dir/c", "in the way")
	n.rename("dir/b", "dir/c")
	n.remove("dir/c")
	n.want("dir",
		"2 found dir",
		`3 create dir/a ""`, `4 write dir/a "one"`, `5 write dir/a "two"`,
		"6 rename dir/a to dir/b", `6 rename dir/b from dir/a "two"`,
		`7 create dir/c ""`, `8 write dir/c "in the way"`,
		"9 rename dir/b to dir/c", `9 rename dir/c from dir/b "two"`,
		"10 delete dir/c")
	if g := n.gaps(); len(g) > 0 {
		t.Errorf("gaps: %v", g)
	}
	r := n.read()
	list, err := r.Follow("dir/c", 0)
	if err != nil || len(list) != 6 || list[5].Version != 3 {
		t.Errorf("followed through renames: %v %+v", err, list)
	}
}

func TestLocksTimesAndTemporaryFilesAreNotRecorded(t *testing.T) {
	n := newNode(t)
	n.mkdir("priv")
	n.mkdir("priv/lock")
	n.start()
	n.mkdir("priv/lock/ha")
	n.apply(memdb.Op{Kind: memdb.OpMTime, Path: "priv/lock/ha", MTime: 2_000_000_000})
	n.remove("priv/lock/ha")
	n.apply(memdb.Op{Kind: memdb.OpMTime, Path: "priv", MTime: 7})
	n.write("a.cfg.tmp.123", "new")
	n.rename("a.cfg.tmp.123", "a.cfg")
	n.write("a.cfg.tmp.123", "newer")
	n.rename("a.cfg.tmp.123", "a.cfg")
	n.want("", "2 found priv", "3 found priv/lock", `10 create a.cfg "new"`, `13 write a.cfg "newer"`)
	n.stop()
	n.start()
	if g := n.gaps(); len(g) > 0 {
		t.Errorf("a gap after changes that are not recorded: %v", g)
	}
}

func TestWhatIsAppendedPieceByPieceIsOneChange(t *testing.T) {
	n := newNode(t).start()
	n.write("log", "1")
	n.add("log", "2")
	n.flush() // whether that is in between must not matter
	n.add("log", "3")
	n.pass(appendTime * time.Second)
	n.add("log", "4")
	n.write("log", "12345") // not an append, though it begins the same
	n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "log", Data: []byte("6"), Offset: 5, Writer: 2})
	n.want("log", `2 create log ""`, `5 write log "123"`, `6 write log "1234"`, `7 write log "12345"`, `8 write log "123456"`)
}

func TestAStartAfterAnOrderlyEndGoesOn(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.stop()
	n.start()
	n.write("a", "two")
	n.want("a", `2 create a ""`, `3 write a "one"`, `4 write a "two"`)
	if g := n.gaps(); len(g) > 0 {
		t.Errorf("gaps: %v", g)
	}
}

func TestAKillLeavesAGapAndTheDifference(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.write("gone", "x")
	n.flush()
	n.write("a", "never seen")
	n.write("a", "two")
	n.remove("gone")
	n.write("b", "b")
	n.kill()
	n.start()
	n.want("a", `2 create a ""`, `3 write a "one"`, `7 found a "two"`)
	n.want("gone", `4 create gone ""`, `5 write gone "x"`, "10 found gone")
	n.want("b", `10 found b "b"`)
	g := n.gaps()
	if len(g) != 1 || g[0].After != 5 || g[0].Version != 10 {
		t.Fatalf("gaps: %+v", g)
	}
	r := n.read()
	p, err := r.AtVersion(7)
	if err != nil || p.Version != 5 || !strings.Contains(p.Between, "not recorded") {
		t.Errorf("within the gap: %+v %v", p, err)
	}
	if !strings.Contains(n.log.String(), "history-gap") {
		t.Error("the log does not tell of the gap")
	}
}

func TestAnOverflowIsAGapAndBlocksNobody(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.flush()
	// Somebody else's transaction keeps the file busy.
	other, err := openWriter(n.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Do("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, memdb.MaxFileSize)
	for i := range 40 {
		big[0] = byte(i)
		n.write("big", string(big))
		n.pass(burstTime)
	}
	n.write("a", "two")
	if s := n.r.Status(); s.Lost == 0 || s.Lag < 0 {
		t.Errorf("status: %+v", s)
	}
	if err := other.Do("COMMIT"); err != nil {
		t.Fatal(err)
	}
	n.flush()
	g := n.gaps()
	if len(g) != 1 || g[0].Changes == 0 || g[0].Version != n.tree.Version() {
		t.Errorf("gaps: %+v", g)
	}
	n.write("a", "three")
	n.want("a", `2 create a ""`, `3 write a "one"`, `45 found a "two"`, `46 write a "three"`)
	latest, err := n.read().Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, n.read(), latest); !maps.Equal(got, files(n.tree)) {
		t.Error("after the gap, the history has another tree")
	}
}

func TestChangesThatWereTakenBackInTheMiddleOfALookAreNoticed(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.flush()
	n.r.mu.Lock()
	n.r.breakOff("a test", 0)
	n.r.mu.Unlock()
	// In the tree, but not stored yet, when it is looked at; and then taken back.
	op := &memdb.Op{Kind: memdb.OpWrite, Path: "a", Data: []byte("never"), Truncate: true, Writer: 1}
	res, err := n.tree.Apply(op)
	if err != nil {
		t.Fatal(err)
	}
	n.flush()
	var d memdb.Delta
	d.Add(res.Changes)
	n.tree.Revert(&d)
	n.write("a", "two")
	n.flush()
	n.flush()
	list := n.list("a")
	if last := list[len(list)-1]; !strings.HasSuffix(last, `"two"`) {
		t.Errorf("%q", list)
	}
}

func TestAnUnusableFileDisturbsNobody(t *testing.T) {
	for _, c := range []struct {
		name, event string
		make        func(path string) error
		kept        bool
	}{
		{"damaged", "history-damaged", func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600)
		}, true},
		{"cut off", "history-damaged", func(path string) error {
			c, err := openWriter(path)
			if err == nil {
				err = errors.Join(c.Do("INSERT INTO path (name) SELECT hex(randomblob(500)) FROM (VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9))"), c.Do("PRAGMA wal_checkpoint(TRUNCATE)"), c.Close())
			}
			return errors.Join(err, os.Truncate(path, 8192))
		}, true},
		{"another program's", "history-damaged", func(path string) error {
			c, err := dial(path, map[string][]string{"mode": {"rwc"}})
			return errors.Join(err, c.Do("CREATE TABLE t (x)"), c.Close())
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			if err := c.make(n.cfg.Path); err != nil {
				t.Fatal(err)
			}
			n.start()
			n.write("a", "one")
			n.flush()
			n.want("a", `3 found a "one"`)
			if !strings.Contains(n.log.String(), c.event) {
				t.Errorf("log: %s", n.log)
			}
			kept, _ := filepath.Glob(n.cfg.Path + ".damaged-*")
			if len(kept) == 0 {
				t.Error("the damaged file is not kept")
			}
		})
	}
}

func TestAFileOfANewerVersionIsLeftAlone(t *testing.T) {
	n := newNode(t)
	c, err := openWriter(n.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Do("PRAGMA user_version=99"), c.Close()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(n.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	n.start()
	n.write("a", "one")
	if err := n.r.Flush(t.Context()); !errors.Is(err, ErrNewer) {
		t.Errorf("flush: %v", err)
	}
	if s := n.r.Status(); !strings.Contains(s.Error, "newer version") {
		t.Errorf("status: %+v", s)
	}
	n.stop()
	if _, err := Open(n.cfg.Path); !errors.Is(err, ErrNewer) {
		t.Errorf("reading: %v", err)
	}
	after, err := os.ReadFile(n.cfg.Path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestAnOlderFileIsMigratedAndKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	c, err := dial(path, map[string][]string{"mode": {"rwc"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.migrate(migrations), c.Do("INSERT INTO path (name) VALUES ('x')")); err != nil {
		t.Fatal(err)
	}
	newer := append(slices.Clone(migrations), "ALTER TABLE path ADD COLUMN more INTEGER NOT NULL DEFAULT 7")
	if err := c.migrate(newer); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Number("SELECT more FROM path WHERE name='x'"); n != 7 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if v, err := c.version(); v != int64(len(newer)) || err != nil {
		t.Errorf("version %d %v", v, err)
	}
	// One that fails leaves the file as it was.
	if err := c.migrate(append(newer, "ALTER TABLE path ADD COLUMN again INTEGER", "nonsense")); err == nil {
		t.Error("nonsense was taken")
	}
	if v, err := c.version(); v != int64(len(newer)) || err != nil {
		t.Errorf("version %d %v", v, err)
	}
}

func TestASecondRecorderIsRefused(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.flush()
	second := Start(n.cfg)
	defer second.Close()
	if err := second.Flush(t.Context()); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
}

func TestTheFileIsForItsOwnerOnly(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(n.cfg.Path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0))
	n.start()
	n.write("a", "one")
	n.flush()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		st, err := os.Stat(n.cfg.Path + suffix)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%q: %v %v", suffix, st, err)
		}
	}
}

func TestAFullDiskIsWaitedOut(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.flush()
	pages := func(limit string) {
		if err := n.r.ask(t.Context(), func(f *file) error { return f.c.Do("PRAGMA max_page_count=" + limit) }); err != nil {
			t.Fatal(err)
		}
	}
	pages("1") // at least as many as there are
	big := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(big)
	n.write("a", string(big))
	if err := n.r.Flush(t.Context()); !sqlitedb.NoRoom(err) {
		t.Errorf("on a full disk: %v", err)
	}
	testutil.Eventually(t, "the failure shows", func() error {
		if s := n.r.Status(); s.Error == "" && !strings.Contains(n.log.String(), "history-recovered") {
			return errors.New("no error")
		}
		return nil
	})
	// The next attempt opens the file anew, and so without the limit.
	testutil.Eventually(t, "it is recorded again", func() error { return n.r.Flush(context.Background()) })
	n.write("a", "two")
	list := n.list("a")
	if len(list) != 4 || list[3] != `5 write a "two"` {
		t.Errorf("%q", list)
	}
	if g := n.gaps(); len(g) > 0 {
		t.Errorf("gaps: %+v", g)
	}
	for _, e := range []string{"history-failed", "history-recovered"} {
		if !strings.Contains(n.log.String(), e) {
			t.Errorf("the log has no %s: %s", e, n.log)
		}
	}
}

func TestTheLastRoomIsTheDatabases(t *testing.T) {
	n := newNode(t)
	var free atomic.Uint64
	free.Store(1 << 30)
	n.cfg.Free = func() (uint64, error) { return free.Load(), nil }
	n.start()
	n.write("a", "one")
	n.flush()
	free.Store(reserve - 1)
	n.write("a", "two")
	if err := n.r.Flush(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("with little room: %v", err)
	}
	free.Store(1 << 30)
	testutil.Eventually(t, "it is recorded again", func() error { return n.r.Flush(context.Background()) })
	n.want("a", `2 create a ""`, `3 write a "one"`, `4 write a "two"`)
	if g := n.gaps(); len(g) > 0 {
		t.Errorf("gaps: %+v", g)
	}
}

func TestExcludedPathsAreNotRecorded(t *testing.T) {
	n := newNode(t)
	n.cfg.Exclude = []string{"priv", "*.secret"}
	n.mkdir("priv")
	n.write("priv/key", "x")
	n.start()
	n.write("priv/key", "y")
	n.write("a.secret", "z")
	n.rename("a.secret", "a")
	n.want("", `8 rename a "z"`)
}

// steps makes random changes, and remembers each state.
func (n *node) steps(rnd *rand.Rand, count int, each func()) {
	for range count {
		dirs, all := []string{""}, []string{}
		for _, e := range n.tree.Entries()[1:] {
			path, _ := n.tree.Path(e.Inode)
			all = append(all, path)
			if e.IsDir() {
				dirs = append(dirs, path)
			}
		}
		op := memdb.Op{Path: memdb.Join(dirs[rnd.IntN(len(dirs))], fmt.Sprintf("n%d", rnd.IntN(12))), Writer: 1 + rnd.Uint32N(3), MTime: uint32(n.now().Unix())}
		pick := func() string {
			if len(all) == 0 {
				return "none"
			}
			return all[rnd.IntN(len(all))]
		}
		switch rnd.IntN(10) {
		case 0:
			op.Kind = memdb.OpMkdir
		case 1, 2:
			op.Kind = memdb.OpCreate
		case 3, 4, 5:
			op.Kind, op.Path, op.Data, op.Truncate = memdb.OpWrite, pick(), []byte(strings.Repeat(fmt.Sprint(rnd.IntN(50)), 1+rnd.IntN(60))), rnd.IntN(2) == 0
		case 6:
			op.Kind, op.Path, op.MTime = memdb.OpMTime, pick(), rnd.Uint32()
		case 7, 8:
			op.Kind, op.To, op.Path = memdb.OpRename, op.Path, pick()
		case 9:
			op.Kind, op.Path = memdb.OpDelete, pick()
		}
		res, err := n.tree.Apply(&op)
		if err != nil {
			continue
		}
		n.pass(time.Duration(rnd.IntN(3000)) * time.Millisecond)
		n.r.Stored([]memdb.Step{memdb.StepOf(&op, res.Changes)})
		each()
	}
}

func TestRandomEveryVersionOfTheTreeCanBeHadAgain(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	n := newNode(t).start()
	n.flush()
	trees := map[uint64]map[string]string{}
	note := func() {
		trees[n.tree.Version()] = files(n.tree)
		if rnd.IntN(40) == 0 {
			n.flush()
		}
	}
	n.steps(rnd, 400, note)
	n.stop()
	n.start()
	n.steps(rnd, 200, note)
	if g := n.gaps(); len(g) > 0 {
		t.Fatalf("gaps: %+v", g)
	}
	r := n.read()
	begin := uint64(2)
	for v, want := range trees {
		p, err := r.AtVersion(v)
		if errors.Is(err, ErrBefore) && v < begin {
			continue
		}
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		got := at(t, r, p)
		// Steps of appending are left out.
		if !maps.Equal(got, want) && p.Version == v {
			t.Fatalf("version %d:\ngot  %q\nwant %q", v, got, want)
		}
	}
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Errorf("latest:\ngot  %q\nwant %q", got, files(n.tree))
	}
}

func TestASynchronisationIsOneChangeSet(t *testing.T) {
	n := newNode(t).start()
	n.mkdir("d")
	n.write("d/a", "mine")
	n.write("same", "same")
	n.write("gone", "gone")
	n.mkdir("moved")
	// The leader's tree.
	next, _, err := memdb.Build(n.tree.Entries())
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []*memdb.Op{
		{Kind: memdb.OpWrite, Path: "d/a", Data: []byte("theirs"), Truncate: true},
		{Kind: memdb.OpDelete, Path: "gone"},
		{Kind: memdb.OpCreate, Path: "d/new"},
		{Kind: memdb.OpRename, Path: "moved", To: "d/moved"},
		{Kind: memdb.OpCreate, Path: "d/moved/x"},
		{Kind: memdb.OpMTime, Path: "same", MTime: 12},
	} {
		op.Writer = 3
		if _, err := next.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	before, after := n.tree.Root(), next.Root()
	mirror, _, err := memdb.Build(n.tree.Entries())
	if err != nil {
		t.Fatal(err)
	}
	changes := mirror.Replace(mustBuild(t, next.Entries()))
	list := n.tree.Differences(next, changes)
	n.tree.Replace(next)
	n.r.Synced(3, before, after, list)
	n.write("d/a", "later")
	r := n.read()
	var set []string
	if err := r.List(Query{}, func(c Change) bool {
		if c.CatchUp != nil {
			set = append(set, fmt.Sprintf("%s %s by %s leader %s %d to %d", c.Kind, c.Path, c.Node, c.CatchUp.Leader, c.CatchUp.From, c.CatchUp.To))
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(set)
	var want []string
	for _, p := range []string{"d/a", "d/moved", "d/moved/x", "d/new", "gone", "moved"} {
		want = append(want, "sync "+p+" by node3 leader node3 9 to 15")
	}
	if !slices.Equal(set, want) {
		t.Errorf("got  %q\nwant %q", set, want)
	}
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Errorf("got  %q\nwant %q", got, files(n.tree))
	}
}

func mustBuild(t *testing.T, entries []*memdb.Entry) *memdb.Tree {
	t.Helper()
	tree, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestSizeIsKeptAndTheLastOfEachPathStays(t *testing.T) {
	n := newNode(t)
	n.cfg.Size = 1 << 20
	n.start()
	rnd := rand.NewChaCha8([32]byte{3})
	text := func() string {
		b := make([]byte, 4000)
		rnd.Read(b)
		return string(b)
	}
	n.write("quiet", "as it was")
	n.write("deleted", "what somebody looks for")
	n.remove("deleted")
	n.write("kept", "as in the snapshot")
	if _, err := n.r.Snapshot(t.Context(), "before", ""); err != nil {
		t.Fatal(err)
	}
	n.write("kept", "after it")
	for i := range 1000 {
		n.write(fmt.Sprintf("busy%d", i%10), text())
		n.pass(time.Second)
	}
	n.flush()
	if s := n.r.Status(); s.Bytes > n.cfg.Size || s.Bytes < n.cfg.Size/4 {
		t.Errorf("%d bytes of %d", s.Bytes, n.cfg.Size)
	}
	n.want("quiet", `3 write quiet "as it was"`)
	n.want("deleted", `5 write deleted "what somebody looks "`, "6 delete deleted")
	n.want("kept", `8 write kept "as in the snapshot"`, `9 write kept "after it"`)
	r := n.read()
	if _, err := r.AtVersion(100); !errors.Is(err, ErrExpired) {
		t.Errorf("a point that is gone: %v", err)
	}
	p, err := r.AtSnapshot("before")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"quiet": "fileas it was", "kept": "fileas in the snapshot"}
	if got := at(t, r, p); !maps.Equal(got, want) {
		t.Errorf("the snapshot: %q", got)
	}
	// Every point that is offered is whole.
	p, err = r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Error("the latest point is not the tree")
	}
	// Nothing keeps it once the snapshot is gone, but that it is the last.
	if err := n.r.DeleteSnapshot(t.Context(), "before"); err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		n.write(fmt.Sprintf("busy%d", i%10), text())
	}
	n.want("kept", `9 write kept "after it"`)
}

func TestDeletedPathsGoBeforeTheLimitIsPassed(t *testing.T) {
	n := newNode(t)
	n.cfg.Size = 1 << 20
	n.start()
	rnd := rand.NewChaCha8([32]byte{4})
	for i := range 1000 {
		b := make([]byte, 4000)
		rnd.Read(b)
		name := fmt.Sprintf("f%d", i)
		n.write(name, string(b))
		n.remove(name)
	}
	n.write("quiet", "x")
	n.flush()
	if s := n.r.Status(); s.Bytes > n.cfg.Size {
		t.Errorf("%d bytes of %d", s.Bytes, n.cfg.Size)
	}
	if len(n.list("f999")) == 0 || len(n.list("f0")) != 0 {
		t.Error("not the oldest went")
	}
}

func TestOldChangesGoAndEveryLaterPointIsWhole(t *testing.T) {
	n := newNode(t)
	n.cfg.Age = 24 * time.Hour
	n.start()
	n.write("a", "one")
	n.write("b", "only")
	n.pass(12 * time.Hour)
	n.write("a", "two")
	n.pass(16 * time.Hour)
	n.write("a", "three")
	middle := n.now().Add(-20 * time.Hour)
	n.flush()
	if err := n.r.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.want("a", `3 write a "one"`, `6 write a "two"`, `7 write a "three"`)
	r := n.read()
	p, err := r.AtTime(middle)
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); got["a"] != "fileone" || got["b"] != "fileonly" {
		t.Errorf("%q", got)
	}
	n.pass(30 * time.Hour)
	n.write("c", "c")
	n.flush()
	if err := n.r.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.want("a", `7 write a "three"`)
	n.want("b", `5 write b "only"`)
}

func TestWhatIsWrittenAllTheTimeIsThinned(t *testing.T) {
	n := newNode(t).start()
	hours := int64(10 * 24)
	n.pass(time.Duration(hourMS-n.now().UnixMilli()%hourMS) * time.Millisecond)
	for i := range hours * 120 {
		if i%120 == 0 {
			n.write("user", fmt.Sprint(i))
		}
		n.write("manager_status.tmp.77", fmt.Sprintf(`{"time":%d}`, i))
		n.rename("manager_status.tmp.77", "manager_status")
		n.pass(30 * time.Second)
		if i%1200 == 0 {
			n.flush()
		}
	}
	n.flush()
	if err := n.r.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	states, omitted := int64(0), int64(0)
	r := n.read()
	var last time.Time
	if err := r.List(Query{Path: "manager_status"}, func(c Change) bool {
		states++
		omitted += c.Omitted
		if age := n.now().Sub(c.Time); !last.IsZero() && age < time.Hour && last.Sub(c.Time) > 30*time.Second {
			t.Errorf("of the last hour some are missing: %v", c)
		}
		last = c.Time
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if states+omitted != hours*120 {
		t.Errorf("%d states and %d omitted are not %d", states, omitted, hours*120)
	}
	if most := int64(2*120 + 24*60 + 7*24*6 + 4*24); states > most {
		t.Errorf("%d states are left, of at most %d", states, most)
	}
	users := 0
	if err := r.List(Query{Path: "user"}, func(Change) bool { users++; return true }); err != nil || users != int(hours)+1 {
		t.Errorf("of another file %d states are left: %v", users, err)
	}
	if err := n.r.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := int64(0)
	if err := n.read().List(Query{Path: "manager_status"}, func(Change) bool { again++; return true }); err != nil || again != states {
		t.Errorf("thinned again, %d of %d are left: %v", again, states, err)
	}
}

func TestContentIsStoredOnce(t *testing.T) {
	n := newNode(t).start()
	big := make([]byte, 100<<10)
	rand.NewChaCha8([32]byte{5}).Read(big)
	for i := range 20 {
		n.write(fmt.Sprint("f", i), string(big))
	}
	n.flush()
	if s := n.r.Status(); s.Bytes > 300<<10 {
		t.Errorf("%d bytes", s.Bytes)
	}
}

func TestFollowersSeeEveryChangeAtOnce(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	f, events, err := n.r.Follow(t.Context(), Now)
	if err != nil || len(events) > 0 {
		t.Fatal(err, events)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan []Event)
	go func() {
		list, err := f.Next(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- list
	}()
	testutil.Eventually(t, "it waits", func() error {
		n.r.mu.Lock()
		defer n.r.mu.Unlock()
		if n.r.followed == 0 {
			return errors.New("no")
		}
		return nil
	})
	n.write("a", "two") // and nothing is stored for an hour
	list := <-got
	if len(list) != 1 || len(list[0].Changes) != 1 || list[0].Changes[0].Version != 4 || list[0].Changes[0].Size != 3 || list[0].Changes[0].Node != "node1" {
		t.Errorf("%+v", list)
	}
	n.write("a", "three")
	n.flush()
	n.rename("a", "b")
	var versions []uint64
	for len(versions) < 3 {
		list, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			for _, c := range e.Changes {
				versions = append(versions, c.Version)
			}
		}
	}
	if !slices.Equal(versions, []uint64{5, 6, 6}) {
		t.Errorf("versions %v", versions)
	}
	cancel()
	if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestFollowersFromThePastGetWhatIsHeldAndAreToldOfTheRest(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.write("a", "two")
	n.flush()
	n.write("a", "lost")
	n.kill()
	n.start()
	n.write("a", "three")
	follow := func(since uint64) (text []string) {
		f, list, err := n.r.Follow(t.Context(), since)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		last := func() int64 {
			n.r.mu.Lock()
			defer n.r.mu.Unlock()
			return n.r.seqOf()
		}
		for f.seq < last() {
			more, err := f.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, more...)
		}
		for _, e := range list {
			if e.Gap != nil {
				text = append(text, fmt.Sprintf("gap %d-%d", e.Gap.After, e.Gap.Version))
			}
			for _, c := range e.Changes {
				text = append(text, fmt.Sprintf("%d %s", c.Version, c.Kind))
			}
		}
		return text
	}
	if got := follow(3); !slices.Equal(got, []string{"4 write", "gap 4-5", "5 found", "6 write"}) {
		t.Errorf("%q", got)
	}
	if got := follow(5); !slices.Equal(got, []string{"6 write"}) {
		t.Errorf("%q", got)
	}
	n.stop()
	n.cfg.Size = 1
	n.start()
	n.write("a", "four")
	n.flush()
	if got := follow(3); len(got) == 0 || !strings.HasPrefix(got[0], "gap 3-") {
		t.Errorf("after retention: %q", got)
	}
}

func TestReadingLeavesNothingBehindAndSeesAKilledDaemonsLog(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	n.flush()
	// A copy of the files as a killed daemon leaves them.
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(n.cfg.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, FileName+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.stop()
	for _, path := range []string{n.cfg.Path, filepath.Join(dir, FileName)} {
		r, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Latest()
		if err != nil || p.Version != 3 {
			t.Errorf("%s: %+v %v", path, p, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	list, _ := os.ReadDir(filepath.Dir(n.cfg.Path))
	if len(list) != 1 {
		t.Errorf("beside a closed file: %v", list)
	}
}

func TestADamagedContentIsSaid(t *testing.T) {
	n := newNode(t).start()
	n.write("a", strings.Repeat("one", 100))
	n.write("b", "sound")
	n.stop()
	c, err := openWriter(n.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Do("UPDATE content SET data=zeroblob(20) WHERE size=300"), c.Close()); err != nil {
		t.Fatal(err)
	}
	r := n.read()
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	for path, sound := range map[string]bool{"a": false, "b": true} {
		c, err := r.At(p, path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Content(c); (err == nil) != sound {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestConnectionsAreDefensive(t *testing.T) {
	n := newNode(t).start()
	n.write("a", "one")
	r := n.read()
	w, err := openWriter(n.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, c := range map[string]conn{"reader": r.c, "writer": w} {
		if err := c.Do("PRAGMA writable_schema=ON"); err != nil {
			t.Fatal(name, err)
		}
		if err := c.Do("UPDATE sqlite_schema SET sql='CREATE TABLE path (id)'"); err == nil || strings.Contains(err.Error(), "readonly") {
			t.Errorf("%s: the schema can be changed as text: %v", name, err)
		}
		if trusted, err := c.Number("PRAGMA trusted_schema"); err != nil || trusted != 0 {
			t.Errorf("%s: the schema is trusted: %d %v", name, trusted, err)
		}
	}
}

func TestAMistakenPathIsAnsweredWithSimilarOnes(t *testing.T) {
	n := newNode(t).start()
	n.mkdir("d")
	n.write("d/100.conf", "x")
	n.write("d/1100.conf", "x")
	r := n.read()
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"100.conf":   "100.conf (do you mean d/100.conf?)",
		"e/100.conf": "e/100.conf (do you mean d/100.conf?)",
		"none":       "none",
	} {
		if _, err := r.At(p, path); !errors.Is(err, ErrNoChange) || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func BenchmarkStored(b *testing.B) {
	n := newNode(b)
	n.cfg.Delay = 0
	n.start()
	data := make([]byte, 700)
	n.create("f")
	var i uint64
	for b.Loop() {
		i++
		copy(data, fmt.Sprint(i))
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: data, Truncate: true})
	}
}

func TestEmptyingAFileToWriteItIsOneChange(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		n := newNode(t).start()
		n.write("a", "one")
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "a", Truncate: true})
		if flushed {
			n.flush()
		}
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "a", Data: []byte("two")})
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "a", Truncate: true})
		n.pass(appendTime * time.Second)
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "a", Data: []byte("three")})
		n.want("a", `2 create a ""`, `3 write a "one"`, `5 write a "two"`, `6 write a ""`, `7 write a "three"`)
	}
}

func TestAFileThatIsWrittenInManyPiecesIsOneChangeAndNoBurden(t *testing.T) {
	n := newNode(t).start()
	piece := strings.Repeat("0123456789abcdef", 256)
	for i := range 16 {
		path := fmt.Sprint("big", i)
		n.create(path)
		for j := range 128 {
			n.add(path, piece)
			if i == 3 && j%40 == 20 {
				n.flush() // the order of flushes must not show
			}
		}
		n.apply(memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(strings.Repeat(piece, 128)), Truncate: true}) // the same again
		n.pass(burstTime)
	}
	n.flush()
	if s := n.r.Status(); s.Lost > 0 || s.Gaps > 0 {
		t.Errorf("%+v", s)
	}
	r := n.read()
	for i := range 16 {
		var got []string
		if err := r.List(Query{Path: fmt.Sprint("big", i)}, func(c Change) bool {
			got = append(got, fmt.Sprintf("%s %d", c.Kind, c.Size))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"write 524288", "write 524288", "create 0"}; !slices.Equal(got, want) {
			t.Errorf("%d: %q", i, got)
		}
	}
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Error("the content is another")
	}
}
