// Package session is the life of one connection to a corosync service, the same
// for each of its client libraries: calls one at a time, waiting for events and
// being woken from that, losing the connection, closing in the right order. It
// knows no library: what is particular comes in as functions.
package session

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/corosync"
	"pmxcfs/corosync/qb"
)

// Forever as a timeout of Next: no timeout.
const Forever time.Duration = -1

// Session is one connection. Its methods may be called from any goroutine;
// Next from one at a time.
type Session struct {
	fd    int // the library's, readable when there is something to dispatch
	event int // eventfd that ends a wait

	// Only the goroutine in Next: where it waits while nothing goes on, nil if there is
	// no such place; and how many events have come soon one after the other.
	parking *os.File
	row     int

	call sync.Mutex // around calls of the library, except dispatching
	next sync.Mutex // held by Next: there is one dispatcher

	closed atomic.Bool
	lost   atomic.Pointer[error]

	woken  atomic.Bool // a wake-up is on its way to Next
	wakeMu sync.Mutex  // guards event against being closed during a write
}

// died is set when a connection was lost. libqb's clients leave the rings of connections to a
// corosync that was killed in /dev/shm, 3 MiB each or more.
var died atomic.Bool

// New makes the session of a connection that polls readable on fd. If connections were lost
// before, what is left of them is removed: corosync, which runs again, doesn't.
func New(fd int) (*Session, error) {
	if died.CompareAndSwap(true, false) {
		// Some memory is all that a failure costs, and the next loss tries again.
		_, _ = qb.RemoveStaleClient()
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("corosync: eventfd: %w", err)
	}
	return &Session{fd: fd, event: event, parking: parking(fd, event)}, nil
}

// Err turns the code of the C function op into an error, nil for OK.
func Err(op string, code corosync.Code) error {
	switch code {
	case corosync.OK:
		return nil
	case corosync.ErrLibrary, corosync.ErrBadHandle:
		return fmt.Errorf("%w: %w", corosync.ErrConnectionLost, &corosync.Error{Op: op, Code: code})
	default:
		return &corosync.Error{Op: op, Code: code}
	}
}

// Call runs one call of the library, the C function op, with no other at the
// same time.
func (s *Session) Call(op string, f func() corosync.Code) error {
	s.call.Lock()
	defer s.call.Unlock()
	if err := s.dead(); err != nil {
		return err
	}
	return s.check(op, f())
}

// dead tells why nothing can be called any more; nil if it can.
func (s *Session) dead() error {
	if s.closed.Load() {
		return corosync.ErrClosed
	}
	if err := s.lost.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *Session) check(op string, code corosync.Code) error {
	err := Err(op, code)
	if errors.Is(err, corosync.ErrConnectionLost) {
		s.lose(err)
	}
	return err
}

// lose makes every later call fail with err. The first reason stays.
func (s *Session) lose(err error) {
	s.lost.CompareAndSwap(nil, &err)
	died.Store(true)
	s.Wake()
}

// Next waits until there is something to dispatch, at most for timeout, and
// then calls dispatch, the C function op: that must not block. Without an
// error, nothing may have been dispatched: the timeout, a Wake.
func (s *Session) Next(timeout time.Duration, op string, dispatch func() corosync.Code) error {
	// Who was made runnable by what the caller did with the last events goes
	// first, on this thread: in the wait below nobody would run here until
	// another thread has been woken to take over.
	runtime.Gosched()

	s.next.Lock()
	defer s.next.Unlock()
	if err := s.dead(); err != nil {
		return err
	}
	ready, err := s.wait(timeout)
	if err != nil {
		s.lose(err)
		return s.dead()
	}
	if s.closed.Load() {
		return corosync.ErrClosed
	}
	if ready == 0 {
		return s.dead()
	}
	// Events from before a hang-up are still dispatched.
	err = s.check(op, dispatch())
	if err == nil && ready&unix.POLLIN == 0 {
		err = fmt.Errorf("%w: hung up", corosync.ErrConnectionLost)
		s.lose(err)
	}
	return err
}

// How Next waits. Under load it blocks in poll(2), which has the next events here soonest.
// While nothing goes on it parks in the runtime's own poller: of a thread that blocks in a
// system call the runtime's monitor doesn't know that it will be long, and looks after it
// for 10 ms, some fifty times for each event.
const (
	// soon is within which time events count as coming one upon the other.
	soon = 5 * time.Millisecond
	// brisk is after how many such events blocking begins.
	brisk = 16
)

// wait gives the events on the library's descriptor: 0 after a timeout or a
// wake-up.
func (s *Session) wait(timeout time.Duration) (int16, error) {
	began := time.Now()
	ready, some, err := s.waitOnce(timeout, began)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: poll: %w", corosync.ErrConnectionLost, err)
	case !some:
	case time.Since(began) < soon:
		s.row = min(s.row+1, brisk)
	default:
		s.row = 0
	}
	return ready, nil
}

// waitOnce waits in one way, and if that takes long, in the other. some tells whether there
// was an event or a wake-up.
func (s *Session) waitOnce(timeout time.Duration, began time.Time) (ready int16, some bool, err error) {
	if s.row >= brisk || s.parking == nil {
		block := timeout
		if s.parking != nil && (timeout < 0 || timeout > soon) {
			block = soon
		}
		if ready, some, err = s.poll(block); some || err != nil || block == timeout {
			return ready, some, err
		}
		s.row = 0
	}
	var deadline time.Time
	if timeout >= 0 {
		deadline = began.Add(timeout)
	}
	if err = s.parking.SetReadDeadline(deadline); err != nil {
		return 0, false, err
	}
	raw, err := s.parking.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var failed error
	err = raw.Read(func(uintptr) bool {
		ready, some, failed = s.poll(0)
		return some || failed != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.poll(0) // it may have passed before anything was looked at
	}
	return ready, some, errors.Join(failed, err)
}

// poll looks at both descriptors, and waits for them at most for timeout.
func (s *Session) poll(timeout time.Duration) (ready int16, some bool, err error) {
	var limit *unix.Timespec
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	fds := [2]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.event), Events: unix.POLLIN}}
	for {
		if timeout >= 0 {
			var left time.Duration
			if timeout > 0 {
				left = max(0, time.Until(deadline))
			}
			ts := unix.NsecToTimespec(int64(left))
			limit = &ts
		}
		n, err := unix.Ppoll(fds[:], limit, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, false, err
		}
		some = n > 0
		break
	}
	if fds[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(s.event, count[:])
		s.woken.Store(false)
	}
	return fds[0].Revents, some, nil
}

// parking returns an epoll descriptor over both of a session, which the runtime's poller takes in;
// nil if it doesn't.
func parking(fd, event int) *os.File {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	for _, fd := range []int{fd, event} {
		if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			unix.Close(set)
			return nil
		}
	}
	if err := unix.SetNonblock(set, true); err != nil {
		unix.Close(set)
		return nil
	}
	f := os.NewFile(uintptr(set), "corosync events")
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		f.Close()
		return nil
	}
	return f
}

// Wake makes the Next that waits now, or else the next one, return.
func (s *Session) Wake() {
	if !s.woken.Swap(true) {
		s.signal()
	}
}

func (s *Session) signal() {
	s.wakeMu.Lock()
	defer s.wakeMu.Unlock()
	if s.event >= 0 {
		one := [8]byte{1}
		_, _ = unix.Write(s.event, one[:])
	}
}

// Close ends a running Next, waits for running calls, and then calls finalize,
// the C function op, once. Later calls of anything get ErrClosed, of Close nil.
func (s *Session) Close(op string, finalize func() corosync.Code) error {
	if s.closed.Swap(true) {
		return nil
	}
	s.signal()
	s.next.Lock()
	defer s.next.Unlock()
	s.call.Lock()
	defer s.call.Unlock()
	if s.parking != nil {
		_ = s.parking.Close() // before the number of the library's descriptor is another's
	}
	err := Err(op, finalize())
	if s.lost.Load() != nil {
		err = nil // nobody is there to be told
	}
	s.wakeMu.Lock()
	defer s.wakeMu.Unlock()
	_ = unix.Close(s.event)
	s.event = -1
	return err
}
