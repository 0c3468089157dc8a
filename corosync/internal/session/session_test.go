package session

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/corosync"
	"pmxcfs/internal/testutil"
)

// newPair gives a session and the far end of its descriptor.
func newPair(t *testing.T) (*Session, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { near.Close(); far.Close() })
	s, err := New(int(near.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close("close", ok) })
	return s, far
}

func ok() corosync.Code { return corosync.OK }

func never(t *testing.T) func() corosync.Code {
	return func() corosync.Code {
		t.Error("called")
		return corosync.OK
	}
}

func TestNextDispatchesWhenReadable(t *testing.T) {
	s, far := newPair(t)
	if err := s.Next(0, "d", never(t)); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	calls := 0
	err := s.Next(Forever, "d", func() corosync.Code { calls++; return corosync.OK })
	if err != nil || calls != 1 {
		t.Errorf("dispatched %d times, %v", calls, err)
	}
}

func TestNextReturnsAfterItsTimeout(t *testing.T) {
	s, _ := newPair(t)
	const timeout = 20 * time.Millisecond
	begin := time.Now()
	if err := s.Next(timeout, "d", never(t)); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d < timeout {
		t.Errorf("returned after %v, not %v", d, timeout)
	}
}

func TestWakeEndsThisOrTheNextWaitOnce(t *testing.T) {
	s, _ := newPair(t)
	for range 3 {
		s.Wake()
		s.Wake()
		if err := s.Next(Forever, "d", never(t)); err != nil {
			t.Error(err)
		}
	}
	begin := time.Now()
	const timeout = 10 * time.Millisecond
	if err := s.Next(timeout, "d", never(t)); err != nil || time.Since(begin) < timeout {
		t.Errorf("woken again without a Wake: %v", err)
	}
}

func TestNoWakeIsLost(t *testing.T) {
	s, _ := newPair(t)
	const rounds = 5000
	ask, got := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(got)
		for range rounds {
			if err := s.Next(Forever, "d", never(t)); err != nil {
				t.Error(err)
			}
			got <- struct{}{}
		}
	}()
	go func() {
		for range ask {
			s.Wake()
		}
	}()
	for range rounds {
		ask <- struct{}{}
		select {
		case <-got:
		case <-time.After(testutil.Patience):
			t.Fatal("a Wake was lost")
		}
	}
	close(ask)
	<-got
}

func TestCloseEndsNextAndAllCalls(t *testing.T) {
	s, _ := newPair(t)
	ended := make(chan error)
	go func() { ended <- s.Next(Forever, "d", never(t)) }()
	finalized := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Close("f", func() corosync.Code { finalized++; return corosync.OK }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := <-ended; !errors.Is(err, corosync.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	if finalized != 1 {
		t.Errorf("finalised %d times", finalized)
	}
	if err := s.Call("c", never(t)); !errors.Is(err, corosync.ErrClosed) {
		t.Errorf("Call: %v", err)
	}
	s.Wake() // harmless
}

func TestHangUpIsALostConnection(t *testing.T) {
	s, far := newPair(t)
	far.Close()
	// The library says nothing is wrong; poll(2) does.
	var err error
	for range 2 { // the first may see readable (end of file) with the hang-up
		if err = s.Next(Forever, "d", func() corosync.Code { return corosync.ErrLibrary }); err != nil {
			break
		}
	}
	if !errors.Is(err, corosync.ErrConnectionLost) {
		t.Errorf("Next: %v", err)
	}
	if err := s.Call("c", never(t)); !errors.Is(err, corosync.ErrConnectionLost) {
		t.Errorf("Call: %v", err)
	}
}

func TestLostByACallWakesNext(t *testing.T) {
	for _, code := range []corosync.Code{corosync.ErrLibrary, corosync.ErrBadHandle} {
		s, _ := newPair(t)
		ended := make(chan error)
		go func() { ended <- s.Next(Forever, "d", never(t)) }()
		for s.next.TryLock() { // until Next has it
			s.next.Unlock()
			runtime.Gosched()
		}
		err := s.Call("c", func() corosync.Code { return code })
		if !errors.Is(err, corosync.ErrConnectionLost) || !errors.Is(err, code) {
			t.Errorf("Call: %v", err)
		}
		if err := <-ended; !errors.Is(err, code) {
			t.Errorf("Next: %v", err)
		}
	}
}

func TestOtherCodesLeaveTheConnection(t *testing.T) {
	s, _ := newPair(t)
	if err := s.Call("c", func() corosync.Code { return corosync.ErrTryAgain }); !errors.Is(err, corosync.ErrTryAgain) {
		t.Error(err)
	}
	if err := s.Call("c", ok); err != nil {
		t.Error(err)
	}
}

func TestRingsOfAKilledCorosyncAreRemovedAtTheNextConnection(t *testing.T) {
	killed := exec.Command("true")
	if err := killed.Run(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/dev/shm", fmt.Sprintf("qb-%d-%d-31-*", killed.Process.Pid, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "qb-request-cpg-data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := newPair(t)
	if err := s.Call("c", func() corosync.Code { return corosync.ErrLibrary }); !errors.Is(err, corosync.ErrConnectionLost) {
		t.Fatalf("got %v", err)
	}
	newPair(t)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("rings are left: %v", err)
	}
}
