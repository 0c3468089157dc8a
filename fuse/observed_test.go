package fuse

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

// served is an Observer that counts.
type served struct {
	mu      sync.Mutex
	count   map[Operation]map[syscall.Errno]int
	changes map[syscall.Errno]int
}

func (s *served) ChangeFailed(err error, quorate bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == nil {
		s.changes = make(map[syscall.Errno]int)
	}
	errno := syscall.Errno(status(err))
	if !quorate {
		errno = syscall.EHOSTDOWN
	}
	s.changes[errno]++
}

func (s *served) Failed(op Operation, errno syscall.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = make(map[Operation]map[syscall.Errno]int)
	}
	if s.count[op] == nil {
		s.count[op] = make(map[syscall.Errno]int)
	}
	s.count[op][errno]++
}

func (s *served) times(op Operation, errno syscall.Errno) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[op][errno]
}

func TestRequestsAreTimedByOperationAndError(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	m.write("d/f", "content")
	m.want("d/f", "content")
	if err := syscall.Rmdir(m.path("d")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Error(err)
	}
	m.store.lost.Store(true)
	if err := os.Mkdir(m.path("e"), 0o755); !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
	m.store.lost.Store(false)
	f := m.open("d/f", os.O_RDWR)
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, 100); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Error(err)
	}
	f.Close()
	if err := os.Symlink("f", m.path("d/s")); !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
	if err := os.Link(m.path(".version"), m.path("d/l")); !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
	for _, want := range []struct {
		op    Operation
		errno syscall.Errno
		times int // at least
	}{
		{OpMkdir, 0, 1}, {OpMkdir, syscall.EACCES, 1}, {OpRmdir, syscall.ENOTEMPTY, 1}, {OpCreate, 0, 1},
		{OpSymlink, syscall.EPERM, 1}, {OpLink, syscall.EPERM, 1}, {OpFallocate, syscall.EOPNOTSUPP, 1},
		{OpWrite, 0, 1}, {OpFlush, 0, 1}, {OpOpen, 0, 2}, {OpRead, 0, 1}, {OpLookup, 0, 2}, {OpFsync, 0, 1}, {OpRelease, 0, 2},
	} {
		soon(t, want.op.String()+" is counted", func() bool {
			if want.errno != 0 {
				return m.times(want.op, want.errno) >= want.times
			}
			return m.fs.Stats().Requests[want.op] >= uint64(want.times)
		})
		if took := m.fs.Stats().Took[want.op].Sum(); took <= 0 || took > 60 {
			t.Errorf("%v took %v s", want.op, took)
		}
	}
	soon(t, "nothing is in flight", func() bool { s := m.fs.Stats(); return s.InFlight == 0 && s.Oldest == 0 })
}

// Each change that somebody asked for and did not get counts once, whichever call told him; that
// somebody else has a lock is no failure.
func TestChangesThatFailAreTold(t *testing.T) {
	var db *failingDB
	m := mountTest(t, func(real dcdb.Database) dcdb.Database {
		db = &failingDB{Database: real}
		return db
	})
	m.write("f", "old")
	m.mkdir("priv")
	m.mkdir("priv/lock")
	m.mkdir("priv/lock/l")
	want := func(errno syscall.Errno, times int) {
		t.Helper()
		m.served.mu.Lock()
		defer m.served.mu.Unlock()
		if got := m.changes[errno]; got != times {
			t.Errorf("%d changes failed with %v, want %d", got, errno, times)
		}
	}
	if err := syscall.Utimes(m.path("priv/lock/l"), []syscall.Timeval{{}, {}}); err == nil {
		t.Error("a lock that is held was given")
	}
	db.fail(syscall.ENOSPC)
	f := m.open("f", os.O_WRONLY|os.O_TRUNC)
	_, err := f.WriteString("new")
	wantErrno(t, "write", err, syscall.ENOSPC)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	want(syscall.ENOSPC, 1)
	wantErrno(t, "mkdir", os.Mkdir(m.path("e"), 0o755), syscall.ENOSPC)
	want(syscall.ENOSPC, 2)
	wantErrno(t, "truncate", os.Truncate(m.path("f"), 1), syscall.ENOSPC)
	want(syscall.ENOSPC, 3)
	db.fail(nil)
	m.store.lost.Store(true)
	if err := os.Remove(m.path("f")); !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
	m.store.lost.Store(false)
	want(syscall.EHOSTDOWN, 1)
	m.served.mu.Lock()
	defer m.served.mu.Unlock()
	if len(m.changes) != 2 {
		t.Errorf("%v", m.changes)
	}
}

func TestOldestRequestShowsWhileItLasts(t *testing.T) {
	m, db := mountBlocked(t)
	release := db.hold(m, "d")
	for last := time.Duration(0); last < 20*time.Millisecond; {
		s := m.fs.Stats()
		if s.InFlight > 0 && s.Oldest > last {
			last = s.Oldest
		}
	}
	release()
	soon(t, "nothing is in flight", func() bool { s := m.fs.Stats(); return s.InFlight == 0 && s.Oldest == 0 })
}

func TestInvalidationsAreCountedByWhatTheKernelSays(t *testing.T) {
	m := mountTest(t, nil)
	m.write("known", "x")
	m.want("known", "x")
	m.foreign(memdb.Op{Kind: memdb.OpWrite, Path: "known", Data: []byte("y")})
	soon(t, "content was forgotten", func() bool { return m.fs.Stats().Invalidations[InvalidContent].Done > 0 })
	m.want("known", "y")
	m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: "known"})
	soon(t, "a name was forgotten for good", func() bool {
		s := m.fs.Stats()
		return s.Invalidations[InvalidDeleted].Done > 0 && s.Pending == 0
	})
}

func TestMoreRequestsThanSlotsAreCounted(t *testing.T) {
	f := newInFlight(nil, 1)
	var list []running
	for range 3 * len(f.shards[0].slots) {
		list = append(list, f.time(OpFlush))
	}
	if _, n := f.counts(); n != len(list) || f.oldest() <= 0 {
		t.Errorf("%d in flight, the oldest for %v", n, f.oldest())
	}
	for _, r := range list {
		r.end(OpFlush, 0)
	}
	if all, n := f.counts(); n != 0 || f.oldest() != 0 || all[OpFlush] != uint64(len(list)) {
		t.Errorf("%d are left, for %v; %d answered", n, f.oldest(), all[OpFlush])
	}
	if took := f.took()[OpFlush]; took.Count() != uint64(len(list)) || took.Sum() <= 0 {
		t.Errorf("%d took %v s", took.Count(), took.Sum())
	}
}

func TestOfTheManySomeAreTimedTheFirstAmongThem(t *testing.T) {
	f := newInFlight(nil, 1)
	for i := range 10 * timeEvery {
		r := f.count(OpRead)
		r.end(OpRead, 0)
		if want, n := uint64(i/timeEvery+1), f.took()[OpRead].Count(); n != want {
			t.Fatalf("%d of %d are timed, want %d", n, i+1, want)
		}
	}
	if all, now := f.counts(); all[OpRead] != 10*timeEvery || now != 0 {
		t.Errorf("%d are counted, %d still served", all[OpRead], now)
	}
}

// Whatever waits is timed each time; what is answered from memory now and then. A request that
// turns out to wait only once it is looked at is in between.
func TestWhatWaitsIsTimed(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m := mountNode(t, nil, shared)
		const times = 10 * timeEvery
		for range times {
			m.write("f", "content") // twice: the second time it is emptied before
			m.write("f", "content")
			if err := errors.Join(os.Truncate(m.path("f"), 3), os.Chtimes(m.path("f"), time.Now(), time.Now()),
				os.Mkdir(m.path("d"), 0o755), os.Rename(m.path("d"), m.path("e")), os.Remove(m.path("e")), os.Remove(m.path("f"))); err != nil {
				t.Fatal(err)
			}
		}
		s := m.fs.Stats()
		for op, want := range map[Operation]uint64{OpCreate: times, OpWrite: 2 * times, OpMkdir: times, OpRename: times, OpRmdir: times, OpUnlink: times, OpSetAttr: 2 * times} {
			if got := s.Took[op].Count(); got != want || s.Requests[op] != want {
				t.Errorf("%d of %d %v are timed, want %d", got, s.Requests[op], op, want)
			}
		}
		// The close after a single write is answered from memory.
		if got := s.Took[OpFlush].Count(); s.Requests[OpFlush] != 2*times || got == 0 || got > times/2 {
			t.Errorf("%d of %d flushes are timed", got, s.Requests[OpFlush])
		}
	}
}

func BenchmarkObservingARequest(b *testing.B) {
	f := newInFlight(nil, 16)
	b.Run("from memory", func(b *testing.B) {
		for b.Loop() {
			r := f.count(OpRead)
			r.end(OpRead, 0)
		}
	})
	b.Run("that waits", func(b *testing.B) {
		for b.Loop() {
			r := f.time(OpFlush)
			r.end(OpFlush, 0)
		}
	})
}
