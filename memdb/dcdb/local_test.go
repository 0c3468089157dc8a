package dcdb

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/memdb"
)

// rows is a database in memory: what a file would hold.
type rows struct {
	mu      sync.Mutex
	entries map[uint64]*memdb.Entry
	commits int
	stored  int                                // rows, in all commits
	before  func(changes []memdb.Change) error // called with mu not held
}

func newRows(tree *memdb.Tree) *rows {
	r := &rows{entries: map[uint64]*memdb.Entry{}}
	for _, e := range tree.Entries() {
		r.entries[e.Inode] = e
	}
	return r
}

func (r *rows) Commit(changes []memdb.Change) error {
	if r.before != nil {
		if err := r.before(changes); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits++
	for _, c := range changes {
		r.stored++
		if c.New == nil {
			delete(r.entries, c.Inode)
		} else {
			r.entries[c.Inode] = c.New
		}
	}
	return nil
}

func (r *rows) Sync() error  { return nil }
func (r *rows) Close() error { return nil }

// count returns how many transactions there were.
func (r *rows) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.commits
}

// wantSame fails unless the rows are the tree's.
func (r *rows) wantSame(t *testing.T, tree *memdb.Tree) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	list := tree.Entries()
	if len(list) != len(r.entries) {
		t.Errorf("the tree has %d entries, the file %d", len(list), len(r.entries))
	}
	for _, e := range list {
		if got := r.entries[e.Inode]; got == nil || got.IndexDigest() != e.IndexDigest() {
			t.Errorf("inode %d (%q): the tree has version %d, the file %+v", e.Inode, e.Name, e.Version, got)
		}
	}
}

func newLocal(t *testing.T) (*Local, *rows) {
	t.Helper()
	tree := memdb.New()
	db := newRows(tree)
	l := NewLocal(Config{Tree: tree, DB: db, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, db
}

func do(t *testing.T, l *Local, op memdb.Op) {
	t.Helper()
	if _, err := l.Do(nil, &op); err != nil {
		t.Fatal(err)
	}
}

func TestDoReturnsWhenStored(t *testing.T) {
	l, db := newLocal(t)
	do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
	db.wantSame(t, l.Tree())
	if db.count() != 1 {
		t.Errorf("%d transactions", db.count())
	}
}

func TestWriteReturnsBeforeItIsStoredAndIsStoredSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, db := newLocal(t)
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		begin := time.Now()
		_, commit, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x")}, false)
		if err != nil {
			t.Fatal(err)
		}
		if db.count() != 1 {
			t.Error("the write waited for its transaction")
		}
		<-commit.done // by the timer alone
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		db.wantSame(t, l.Tree())
	})
}

func TestManyWritesToAFileAreOneRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes here: no timer fires
		l, db := newLocal(t)
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		var last *Commit
		for i := range 128 {
			_, commit, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: make([]byte, 4096), Offset: uint32(4096 * i)}, false)
			if err != nil {
				t.Fatal(err)
			}
			last = commit
		}
		if err := last.Wait(nil); err != nil {
			t.Fatal(err)
		}
		db.wantSame(t, l.Tree())
		if n := db.count(); n != 2 {
			t.Errorf("%d transactions", n)
		}
		if db.stored != 2+2 { // the file and the version, each time
			t.Errorf("%d rows were stored", db.stored)
		}
	})
}

func TestWritersWithoutPatienceHaveToWaitAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, db := newLocal(t)
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		for i := 0; db.count() == 1; i++ { // no time passes here: no timer fires
			if i > maxUnsaved/memdb.MaxFileSize+1 {
				t.Fatal("what is not stored grows without bound")
			}
			if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: make([]byte, memdb.MaxFileSize)}, false); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAFailedTransactionIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, db := newLocal(t)
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		gate := make(chan error)
		db.before = func([]memdb.Change) error { return <-gate }
		var wg sync.WaitGroup
		failed := make([]error, 3)
		for i := range failed {
			wg.Go(func() { // the first leads, the others gather on top of it
				_, failed[i] = l.Do(nil, &memdb.Op{Kind: memdb.OpMkdir, Path: fmt.Sprint("d", i)})
			})
			synctest.Wait()
		}
		_, written, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x")}, false)
		if err != nil {
			t.Fatal(err)
		}
		gate <- syscall.ENOSPC
		wg.Wait()
		for i, err := range failed {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("mkdir %d: %v", i, err)
			}
		}
		if err := written.Wait(nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the write that had returned: %v", err)
		}
		db.before = nil
		db.wantSame(t, l.Tree())
		do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "d0"})
		db.wantSame(t, l.Tree())
	})
}

func TestAnInterruptedCallerLeavesTheTransactionToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, db := newLocal(t)
		gate := make(chan struct{})
		db.before = func([]memdb.Change) error { <-gate; return nil }
		var wg sync.WaitGroup
		wg.Go(func() { do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "leads"}) })
		synctest.Wait()
		cancel := make(chan struct{})
		wg.Go(func() {
			if _, err := l.Do(cancel, &memdb.Op{Kind: memdb.OpMkdir, Path: "gives-up"}); !errors.Is(err, syscall.EINTR) {
				t.Errorf("interrupted: %v", err)
			}
		})
		synctest.Wait()
		close(cancel)
		time.Sleep(interruptGrace) // of the bubble's clock
		synctest.Wait()
		wg.Go(func() { do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "follows"}) })
		synctest.Wait()
		close(gate)
		wg.Wait()
		db.wantSame(t, l.Tree())
	})
}

// Whoever leaves last sees to it that the change is stored all the same, and soon.
func TestAnInterruptedChangeThatNobodyElseWaitsForIsStoredSoon(t *testing.T) {
	for _, way := range []string{"Do", "Write", "Ping"} {
		synctest.Test(t, func(t *testing.T) {
			l, db := newLocal(t)
			do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
			gate := make(chan struct{})
			db.before = func([]memdb.Change) error { <-gate; return nil }
			var wg sync.WaitGroup
			wg.Go(func() { do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "leads"}) })
			synctest.Wait()
			cancel := make(chan struct{})
			wg.Go(func() {
				var err error
				switch way {
				case "Do":
					_, err = l.Do(cancel, &memdb.Op{Kind: memdb.OpMkdir, Path: "gives-up"})
				case "Write":
					_, _, err = l.Write(cancel, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x")}, true)
				case "Ping":
					l.c.mu.Lock()
					_, err := l.apply(&memdb.Op{Kind: memdb.OpMkdir, Path: "gives-up"})
					l.c.mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					if err := l.Sync(cancel); !errors.Is(err, syscall.EINTR) {
						t.Errorf("Sync: %v", err)
					}
					return
				}
				if !errors.Is(err, syscall.EINTR) {
					t.Errorf("%s: %v", way, err)
				}
			})
			synctest.Wait()
			close(cancel)
			time.Sleep(interruptGrace) // the last waiter of the batch leaves
			synctest.Wait()
			close(gate)
			wg.Wait()
			time.Sleep(2 * writeDelay)
			synctest.Wait()
			db.wantSame(t, l.Tree())
		})
	}
}

func TestAnInterruptedChangeIsToldAsIfItWereForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &lockedWatcher{}
		tree := memdb.New()
		db := newRows(tree)
		gate := make(chan struct{})
		db.before = func([]memdb.Change) error { <-gate; return nil }
		l := NewLocal(Config{Tree: tree, DB: db, Observer: w})
		cancel := make(chan struct{})
		close(cancel)
		var wg sync.WaitGroup
		wg.Go(func() { do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "leads"}) })
		synctest.Wait()
		_, err := l.Do(cancel, &memdb.Op{Kind: memdb.OpMkdir, Path: "gives-up"})
		if !errors.Is(err, syscall.EINTR) {
			t.Error(err)
		}
		if _, foreign := w.told("gives-up"); !foreign {
			t.Error("the kernel is not told of it")
		}
		close(gate)
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAWriteThatShallWaitIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, db := newLocal(t)
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		write := func(wait bool) (*Commit, error) {
			_, commit, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x")}, wait)
			return commit, err
		}
		if commit, err := write(true); commit != nil || err != nil || db.count() != 2 {
			t.Errorf("%v, %v, %d transactions", commit, err, db.count())
		}
		db.before = func([]memdb.Change) error { return syscall.ENOSPC }
		if commit, err := write(true); commit != nil || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v, %v", commit, err)
		}
		if commit, err := write(false); commit != nil || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("after a failure: %v, %v", commit, err)
		}
		if err := l.Writable(nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Writable: %v", err)
		}
		db.wantSame(t, l.Tree())
		db.before = nil
		if err := l.Writable(nil); err != nil {
			t.Errorf("Writable: %v", err)
		}
		n := db.count()
		if commit, err := write(false); commit == nil || err != nil || db.count() != n {
			t.Errorf("when all is well again: %v, %v, %d transactions more", commit, err, db.count()-n)
		}
		if err := l.Writable(nil); err != nil || db.count() != n {
			t.Errorf("Writable costs something: %v, %d transactions more", err, db.count()-n)
		}
	})
}

func TestWithLittleRoomEveryWriteWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := memdb.New()
		db := newRows(tree)
		free, ferr := uint64(littleRoom-1), error(nil)
		l := NewLocal(Config{Tree: tree, DB: db, Free: func() (uint64, error) { return free, ferr }})
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		waits := func() bool {
			n := db.count()
			_, commit, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x")}, false)
			if err != nil {
				t.Fatal(err)
			}
			return db.count() > n && commit == nil
		}
		if !waits() {
			t.Error("a write went on before it was stored")
		}
		free = 0
		db.before = func([]memdb.Change) error { return syscall.ENOSPC }
		if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x")}, false); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		db.before = nil // a change might fit into the log, but what would that say of the next?
		if err := l.Writable(nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Writable on a full disk: %v", err)
		}
		free = noRoom
		if err := l.Writable(nil); err != nil {
			t.Errorf("Writable when there is room again: %v", err)
		}
		free = littleRoom
		time.Sleep(2 * roomLook)
		if !waits() { // and looks
			t.Error("a write went on before it was stored")
		}
		if waits() {
			t.Error("a write waits although there is room")
		}
		free, ferr = 0, errors.New("unknown")
		time.Sleep(2 * roomLook)
		waits()
		if waits() {
			t.Error("a write waits although nothing is known of the room")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheStoreNeedsNoLog(t *testing.T) {
	tree := memdb.New()
	db := newRows(tree)
	l := NewLocal(Config{Tree: tree, DB: db})
	db.before = func([]memdb.Change) error { return syscall.EIO }
	if _, err := l.Do(nil, &memdb.Op{Kind: memdb.OpMkdir, Path: "d"}); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A caller may be told to lead and be interrupted at the same moment; random
// callers, cancellations and failures must leave nobody waiting, the tree equal
// to the file, and nothing lost that was acknowledged.
func TestRandomCallersCancellationsAndFailures(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 60 {
		synctest.Test(t, func(t *testing.T) {
			l, db := newLocal(t)
			rnd := rand.New(rand.NewPCG(seed, uint64(round)))
			var mu sync.Mutex
			chance := func(n int) bool { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) == 0 }
			delay := func() { mu.Lock(); d := time.Duration(rnd.IntN(1000)) * time.Microsecond; mu.Unlock(); time.Sleep(d) }
			db.before = func([]memdb.Change) error {
				delay()
				if chance(5) {
					return syscall.EIO
				}
				return nil
			}
			acknowledged := map[string]bool{}
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := range 20 {
						delay()
						cancel := make(chan struct{})
						if chance(3) {
							time.AfterFunc(300*time.Microsecond, func() { close(cancel) })
						}
						path := fmt.Sprintf("d%d-%d", w, i)
						_, err := l.Do(cancel, &memdb.Op{Kind: memdb.OpMkdir, Path: path})
						if err == nil {
							mu.Lock()
							acknowledged[path] = true
							mu.Unlock()
						} else if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EINTR) {
							t.Errorf("%s: %v", path, err)
						}
					}
				})
			}
			wg.Wait()
			db.before = nil
			if err := l.Sync(nil); err != nil && !errors.Is(err, syscall.EIO) {
				t.Error(err)
			}
			synctest.Wait()
			db.wantSame(t, l.Tree())
			for path := range acknowledged {
				if _, ok := l.Tree().Lookup(path); !ok {
					t.Errorf("%s was acknowledged and is gone", path)
				}
			}
		})
	}
}

func TestExpiredLocksCanBeBrokenByZeroTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, db := newLocal(t)
		do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "priv"})
		do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "priv/lock"})
		do(t, l, memdb.Op{Kind: memdb.OpMkdir, Path: "priv/lock/a"})
		unlock := func() error {
			_, err := l.Do(nil, &memdb.Op{Kind: memdb.OpMTime, Path: "priv/lock/a"})
			return err
		}
		if err := unlock(); !errors.Is(err, syscall.EACCES) {
			t.Errorf("a fresh lock: %v", err)
		}
		time.Sleep(119 * time.Second)
		now := uint32(time.Now().Unix())
		do(t, l, memdb.Op{Kind: memdb.OpMTime, Path: "priv/lock/a", MTime: now}) // renewed
		time.Sleep(119 * time.Second)
		if err := unlock(); !errors.Is(err, syscall.EACCES) {
			t.Errorf("a renewed lock: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := unlock(); err != nil {
			t.Errorf("an expired lock: %v", err)
		}
		if _, ok := l.Tree().Lookup("priv/lock/a"); ok {
			t.Error("the lock is still there")
		}
		db.wantSame(t, l.Tree())
	})
}

func TestAFullTreeIsRefusedAndStaysAsItIs(t *testing.T) {
	l, db := newLocal(t)
	content := make([]byte, memdb.MaxFileSize)
	for i := range memdb.MaxTreeBytes / memdb.MaxFileSize {
		do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: fmt.Sprint(i)})
		if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: fmt.Sprint(i), Data: content}, false); err != nil {
			t.Fatal(err)
		}
	}
	do(t, l, memdb.Op{Kind: memdb.OpCreate, Path: "more"})
	if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "more", Data: []byte("x")}, false); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "1", Data: content}, false); err != nil {
		t.Errorf("overwriting needs no room: %v", err)
	}
	if err := l.Sync(nil); err != nil {
		t.Error(err)
	}
	db.wantSame(t, l.Tree())
}
