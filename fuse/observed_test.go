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

// served is an Observer that counts.
type served struct {
	mu    sync.Mutex
	count map[Operation]map[syscall.Errno]int
	took  [Operations]time.Duration
}

func (s *served) Served(op Operation, errno syscall.Errno, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = make(map[Operation]map[syscall.Errno]int)
	}
	if s.count[op] == nil {
		s.count[op] = make(map[syscall.Errno]int)
	}
	s.count[op][errno]++
	s.took[op] += took
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
	f.Close()
	for _, want := range []struct {
		op    Operation
		errno syscall.Errno
		times int // at least
	}{
		{OpMkdir, 0, 1}, {OpMkdir, syscall.EACCES, 1}, {OpRmdir, syscall.ENOTEMPTY, 1}, {OpCreate, 0, 1},
		{OpWrite, 0, 1}, {OpFlush, 0, 1}, {OpOpen, 0, 2}, {OpRead, 0, 1}, {OpLookup, 0, 2}, {OpFsync, 0, 1}, {OpRelease, 0, 2},
	} {
		soon(t, want.op.String()+" is counted", func() bool { return m.times(want.op, want.errno) >= want.times })
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
	for range 3 * len(f.slots) {
		list = append(list, f.begin())
	}
	if n := f.count.Load(); n != int64(len(list)) || f.oldest() <= 0 {
		t.Errorf("%d in flight, the oldest for %v", n, f.oldest())
	}
	for _, r := range list {
		if took := f.end(r); took <= 0 {
			t.Errorf("took %v", took)
		}
	}
	if f.count.Load() != 0 || f.oldest() != 0 {
		t.Errorf("%d are left, for %v", f.count.Load(), f.oldest())
	}
}

func BenchmarkObservingARequest(b *testing.B) {
	f := &inFlight{epoch: time.Now()}
	for b.Loop() {
		f.end(f.begin())
	}
}
