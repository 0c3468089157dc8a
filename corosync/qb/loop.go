package qb

// #include "bridge.h"
import "C"

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A watch is a descriptor that libqb asked the loop to look at.
type watch struct {
	fd     int32
	gen    int32 // tells a stale event from one for a new user of the same number
	events uint32
	fn     C.qb_ipcs_dispatch_fn_t
	data   unsafe.Pointer // libqb's
	since  time.Time
	conn   *conn // nil: the listening socket or a handshake
	paused bool  // only a hang-up is reported
	hot    bool  // bridge.c deals with its requests
}

// A job is a call that libqb wants made when the stack is its own again.
type job struct {
	fn   C.qb_loop_job_dispatch_fn
	data unsafe.Pointer
}

// poller is the epoll side of the loop: descriptors, jobs and the wake-up. All
// of it but wake belongs to the loop's thread.
type poller struct {
	epfd    int
	wakefd  int
	gen     int32
	watches map[int32]*watch
	jobs    []job
	loop    *C.struct_bridge_loop // C memory
}

func newPoller() (*poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("qb: epoll_create1: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("qb: eventfd: %w", err)
	}
	p := &poller{
		epfd:    epfd,
		wakefd:  wakefd,
		watches: make(map[int32]*watch),
		loop:    C.bridge_new(C.int(epfd)),
	}
	if p.loop == nil {
		unix.Close(wakefd)
		unix.Close(epfd)
		return nil, fmt.Errorf("qb: a loop: %w", unix.ENOMEM)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wakefd)}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wakefd, &ev); err != nil {
		p.close()
		return nil, fmt.Errorf("qb: epoll_ctl: %w", err)
	}
	return p, nil
}

func (p *poller) close() {
	unix.Close(p.wakefd)
	unix.Close(p.epfd)
	C.bridge_free(p.loop)
}

// wake makes wait return. It may be called from any goroutine until close.
func (p *poller) wake() {
	one := [8]byte{1}
	// EAGAIN: the counter is full, so the loop is about to wake anyway.
	_, _ = unix.Write(p.wakefd, one[:])
}

// wait returns the events of the descriptors that are ready, at the latest after d;
// a negative d has no limit. Requests of hot descriptors are served meanwhile; failed
// tells if one could not be. The events are valid until the next call.
//
//	int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);
func (p *poller) wait(d time.Duration) ([]unix.EpollEvent, error) {
	ms := -1
	if d >= 0 {
		ms = int((d + time.Millisecond - 1) / time.Millisecond)
	}
	n := C.bridge_wait(p.loop, C.int(ms))
	if n < 0 {
		return nil, fmt.Errorf("qb: epoll_wait: %w", unix.Errno(-n))
	}
	all := unsafe.Slice((*unix.EpollEvent)(unsafe.Pointer(&p.loop.events[0])), len(p.loop.events))
	return all[p.loop.next:][:n], nil
}

// failed returns the descriptor that wait has come back for because the client's shared memory
// was gone, or -1. Another failure it has dealt with.
func (p *poller) failed() (fd int32) {
	ev := (*unix.EpollEvent)(unsafe.Pointer(&p.loop.failed))
	rc := C.int32_t(p.loop.failure)
	switch {
	case ev.Events == 0:
		return -1
	case rc == C.BRIDGE_FAULT:
		return ev.Fd
	}
	if w := p.lookup(ev); w != nil {
		p.dispatched(w, rc)
	}
	return -1
}

// attend makes wait return as soon as libqb is not on the stack, if it is now.
func (p *poller) attend() { p.loop.attention = 1 }

// setHot says whether bridge.c may deal with a connection's requests.
func (p *poller) setHot(w *watch, hot bool) {
	if w.hot == hot {
		return
	}
	w.hot = hot
	if hot {
		C.bridge_heat(p.loop, C.int32_t(w.fd), C.int32_t(w.gen), w.fn, w.data)
	} else {
		C.bridge_cool(p.loop, C.int32_t(w.fd))
	}
}

// drain takes back all wake-ups so far.
func (p *poller) drain() {
	var b [8]byte
	_, _ = unix.Read(p.wakefd, b[:])
}

// lookup finds the watch an event is for; nil if it was removed since, or its
// number belongs to another by now.
func (p *poller) lookup(ev *unix.EpollEvent) *watch {
	w := p.watches[ev.Fd]
	if w == nil || w.gen != ev.Pad {
		return nil
	}
	return w
}

func (p *poller) ctl(op int, w *watch) error {
	ev := unix.EpollEvent{Events: w.events, Fd: w.fd, Pad: w.gen}
	if w.paused {
		ev.Events = 0
	}
	return unix.EpollCtl(p.epfd, op, int(w.fd), &ev)
}

func (p *poller) add(w *watch) error {
	p.gen++
	w.gen = p.gen
	if err := p.ctl(unix.EPOLL_CTL_ADD, w); err != nil {
		return err
	}
	p.watches[w.fd] = w
	return nil
}

func (p *poller) modify(fd int32, events uint32) error {
	w := p.watches[fd]
	if w == nil {
		return unix.ENOENT
	}
	w.events = events
	return p.ctl(unix.EPOLL_CTL_MOD, w)
}

func (p *poller) remove(fd int32) error {
	w := p.watches[fd]
	if w == nil {
		return unix.ENOENT
	}
	p.setHot(w, false)
	delete(p.watches, fd)
	return p.ctl(unix.EPOLL_CTL_DEL, w)
}

// pause stops reports for w other than its hang-up, until resume.
func (p *poller) pause(w *watch) {
	if !w.paused {
		w.paused = true
		_ = p.ctl(unix.EPOLL_CTL_MOD, w)
	}
}

func (p *poller) resume(w *watch) {
	if w.paused {
		w.paused = false
		_ = p.ctl(unix.EPOLL_CTL_MOD, w)
	}
}

// dispatch calls libqb for w. The watch may be gone when it returns. It returns false if
// the client's shared memory was gone, and libqb has not got to the end.
func (p *poller) dispatch(w *watch, revents uint32) bool {
	return p.dispatched(w, C.bridge_dispatch(w.fn, C.int32_t(w.fd), C.int32_t(revents), w.data))
}

// dispatched takes note of what libqb returned for w: an error means that it wants no more of
// it. It returns what dispatch does.
func (p *poller) dispatched(w *watch, rc C.int32_t) bool {
	if rc == C.BRIDGE_FAULT {
		return false
	}
	if rc < 0 && p.watches[w.fd] == w {
		_ = p.remove(w.fd)
	}
	return true
}

// runJobs runs the jobs added so far, and those that they add.
func (p *poller) runJobs() {
	for len(p.jobs) > 0 {
		jobs := p.jobs
		p.jobs = nil
		for _, j := range jobs {
			C.bridge_job(j.fn, j.data)
		}
	}
}

// pollEvents turns poll's bits, as libqb gives them, into epoll's: they have the same
// values, but for POLLNVAL, which epoll doesn't know.
func pollEvents(events int32) uint32 {
	return uint32(events) & (unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT)
}

// revents turns what epoll reported into what libqb's callbacks look at. An error
// on a socket means that the peer is gone, and libqb only knows the hang-up.
func revents(events uint32) uint32 {
	if events&unix.EPOLLERR != 0 {
		events |= unix.EPOLLHUP
	}
	return events
}
