package fuse

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/memdb"
)

// served is an Observer that counts errors, and adds up times.
type served struct {
	mu    sync.Mutex
	count map[Operation]map[syscall.Errno]int
	took  [Operations]time.Duration
	timed [Operations]int
}

func (s *served) Took(op Operation, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[op] += took
	s.timed[op]++
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
	if err := os.Link(m.path("d/f"), m.path("d/l")); !errors.Is(err, syscall.EPERM) {
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
		m.served.mu.Lock()
		if took := m.took[want.op]; took <= 0 || took > time.Minute {
			t.Errorf("%v took %v", want.op, took)
		}
		m.served.mu.Unlock()
	}
	soon(t, "nothing is in flight", func() bool { s := m.fs.Stats(); return s.InFlight == 0 && s.Oldest == 0 })
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
	f := &inFlight{epoch: time.Now()}
	var list []running
	for range 3 * len(f.shards[0].slots) {
		list = append(list, f.begin(OpWrite))
	}
	if _, n := f.counts(); n != len(list) || f.oldest() <= 0 {
		t.Errorf("%d in flight, the oldest for %v", n, f.oldest())
	}
	for _, r := range list {
		if took, timed := f.end(OpWrite, r); took <= 0 || !timed {
			t.Errorf("took %v", took)
		}
	}
	if all, n := f.counts(); n != 0 || f.oldest() != 0 || all[OpWrite] != uint64(len(list)) {
		t.Errorf("%d are left, for %v; %d answered", n, f.oldest(), all[OpWrite])
	}
}

func TestOfTheManySomeAreTimedTheFirstAmongThem(t *testing.T) {
	f := &inFlight{epoch: time.Now()}
	here := f.here() // it may be another one when the stack has grown
	for op := range Operation(Operations) {
		timed := 0
		for i := range 10 * timeEvery {
			if _, ok := f.end(op, here.begin(op, f.epoch)); ok {
				timed++
			} else if i == 0 {
				t.Errorf("the first %v is not timed", op)
			}
		}
		if want := map[bool]int{true: 10, false: 10 * timeEvery}[op.quick()]; timed != want {
			t.Errorf("%v: %d are timed, want %d", op, timed, want)
		}
	}
}

func BenchmarkObservingARequest(b *testing.B) {
	for _, op := range []Operation{OpRead, OpWrite} {
		b.Run(op.String(), func(b *testing.B) {
			f := &inFlight{epoch: time.Now()}
			for b.Loop() {
				f.end(op, f.begin(op))
			}
		})
	}
}
