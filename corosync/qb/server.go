package qb

// #cgo pkg-config: libqb
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/cgo"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end of a connection, as the kernel vouches for it:
// effective user and group id, and process id in the server's pid name space
// (SCM_CREDENTIALS, unix(7)).
type Peer struct {
	UID, GID uint32
	PID      int32
}

// A Handler answers one connection's requests. Its methods are never called at the
// same time as each other, Closed excepted.
type Handler interface {
	// Try answers the request id with data, the bytes after its header, if that takes
	// microseconds and waits for nobody: all other clients wait meanwhile. Otherwise done is
	// false, the rest means nothing, and the request goes to Serve. It is called on the
	// loop's thread.
	Try(id int32, data []byte) (reply []byte, errno syscall.Errno, done bool)

	// Serve answers a request that Try left. It is called on a goroutine of its own.
	//
	// Try and Serve are given data that is valid only during the call. They return the bytes
	// after the response's header, or an errno other than 0, with which no data is sent. The
	// returned bytes are read until they are sent, so nobody may ever change them. An answer
	// that is too long for the connection goes out as EMSGSIZE.
	Serve(id int32, data []byte) (reply []byte, errno syscall.Errno)

	// Closed is called once when the connection is gone, on the loop's thread,
	// perhaps while Serve is still running for a client that didn't wait.
	Closed()
}

// Config is what a Server needs to know.
type Config struct {
	// Name is the service's name, which clients connect to.
	Name string
	// ServiceID is libqb's number for the service; clients don't see it.
	ServiceID int32
	// BufferSize is the largest message in bytes, header included, in both
	// directions; 0 means DefaultBufferSize. Clients that ask for more are refused
	// with EMSGSIZE.
	BufferSize int
	// MaxConns is the number of connections from which on further ones are refused
	// with EAGAIN; 0 means 512. Each takes 3 × BufferSize of shared memory.
	MaxConns int
	// SlowLimit is how long a client may take to finish its handshake, and to make
	// room for a reply, before it is dropped; 0 means 10 s.
	SlowLimit time.Duration
	// Accept decides on a connection. It is called on the loop's thread and must not
	// block. An error refuses the client: it sees the syscall.Errno in it, or
	// EACCES.
	Accept func(Peer) (Handler, error)
	// Logger takes what goes wrong with a single client; nil discards it.
	Logger *slog.Logger
}

func (c *Config) setDefaults() error {
	switch {
	case c.Name == "":
		return errors.New("qb: a service needs a name")
	case c.Accept == nil:
		return errors.New("qb: a service needs an Accept function")
	case c.BufferSize < 0, c.BufferSize > 1<<30:
		return fmt.Errorf("qb: buffer size %d out of range", c.BufferSize)
	}
	if c.BufferSize == 0 {
		c.BufferSize = DefaultBufferSize
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 512
	}
	if c.SlowLimit <= 0 {
		c.SlowLimit = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// A Server is a running libqb IPC service. Everything in it belongs to the loop's
// thread, but for the fields below mu and what says otherwise.
type Server struct {
	cfg     Config
	poll    *poller
	service *C.qb_ipcs_service_t
	conns   map[*C.qb_ipcs_connection_t]*conn
	stuck   map[*conn]struct{} // their reply finds no room in the response ring
	scratch []byte             // the quick request being served

	answering reply   // the one that bridge.c sends
	late      []reply // to be sent when libqb is not on the stack
	doomed    []*conn // to be dropped then
	gone      []*conn // freed by libqb, to be swept up after then

	listener    *watch
	listenAfter time.Time // the listener is paused until then, unless zero
	added       int       // descriptors, to see whether accept(2) brought any
	handshakes  []*watch  // oldest first; some may be over by now

	workers  sync.WaitGroup
	finished chan struct{} // closed when the loop has ended
	stopOnce sync.Once

	mu       sync.Mutex
	stopping bool
	done     []reply // of the workers, to be sent
	pings    []chan<- struct{}
}

// Start creates the service and begins to serve it. The error wraps a syscall.Errno:
// EADDRINUSE if the name is taken.
//
//	qb_ipcs_service_t *qb_ipcs_create(const char *name, int32_t service_id,
//	        enum qb_ipc_type type, struct qb_ipcs_service_handlers *handlers);
//	int32_t qb_ipcs_run(qb_ipcs_service_t *s);
func Start(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:      cfg,
		poll:     p,
		conns:    make(map[*C.qb_ipcs_connection_t]*conn),
		stuck:    make(map[*conn]struct{}),
		finished: make(chan struct{}),
	}
	started := make(chan error)
	go s.run(started)
	if err := <-started; err != nil {
		<-s.finished
		p.close()
		return nil, err
	}
	return s, nil
}

// Stop disconnects all clients, removes the service with its socket and
// shared memory, and returns when nothing of it is left: it waits for requests that are
// being served. It may be called more than once.
//
//	void qb_ipcs_destroy(qb_ipcs_service_t *s);
func (s *Server) Stop() {
	s.stopOnce.Do(func() {
		s.mu.Lock()
		s.stopping = true
		s.mu.Unlock()
		s.poll.wake()
		<-s.finished
		s.workers.Wait()
		s.poll.close()
	})
}

// ErrEnded means that the service's loop has ended.
var ErrEnded = errors.New("qb: the service has ended")

// Ping returns nil when the loop has come around once more, with whatever it
// was doing. Other errors: ErrEnded, or ctx's.
func (s *Server) Ping(ctx context.Context) error {
	pong := make(chan struct{})
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return ErrEnded
	}
	s.pings = append(s.pings, pong)
	s.poll.wake() // the descriptor is open: Stop closes it after it has had the lock
	s.mu.Unlock()
	select {
	case <-pong:
		return nil
	case <-s.finished:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the loop. It never unlocks its thread, so that the thread ends with it.
func (s *Server) run(started chan<- error) {
	runtime.LockOSThread()
	defer close(s.finished)
	handle := cgo.NewHandle(s)
	defer handle.Delete()
	C.bridge_bind(s.poll.loop, C.uintptr_t(handle))
	nameThread("qb-loop")

	if err := s.create(); err != nil {
		started <- err
		return
	}
	started <- nil
	for s.turn() {
	}
	s.destroy()
}

// nameThread names the calling thread, for top -H. Not if it is the process's first thread, as it
// may be: its name is the process's.
//
//	int prctl(PR_SET_NAME, const char *name);
func nameThread(name string) {
	if unix.Gettid() == unix.Getpid() {
		return
	}
	b := append([]byte(name), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0) // cosmetic
}

func (s *Server) create() error {
	name := C.CString(s.cfg.Name)
	defer C.free(unsafe.Pointer(name))
	s.service = C.bridge_create(name, C.int32_t(s.cfg.ServiceID), C.uint32_t(s.cfg.BufferSize))
	if s.service == nil {
		return fmt.Errorf("qb: service %q: %w", s.cfg.Name, syscall.ENOMEM)
	}
	if rc := C.qb_ipcs_run(s.service); rc != 0 {
		return fmt.Errorf("qb: service %q: %w", s.cfg.Name, syscall.Errno(-rc))
	}
	return nil
}

func (s *Server) destroy() {
	for _, w := range s.handshakes {
		if s.poll.watches[w.fd] == w {
			s.poll.dispatch(w, unix.EPOLLHUP)
		}
	}
	for _, c := range s.conns { // one by one, for what sweep does
		s.doomed = append(s.doomed, c)
		s.dropDoomed()
	}
	C.qb_ipcs_destroy(s.service)
	s.poll.runJobs()
}

// turn waits for the next events and deals with them. It returns false when the
// loop is to end.
func (s *Server) turn() bool {
	events, err := s.poll.wait(s.tick())
	if err != nil {
		s.cfg.Logger.Error("IPC service stops", "error", err)
		return false
	}
	if fd := s.poll.failed(); fd >= 0 {
		for _, c := range s.conns { // the watch may be gone
			if c.fd == fd {
				s.fault(c)
			}
		}
	}
	s.tidy()
	for i := range events {
		if events[i].Fd == int32(s.poll.wakefd) {
			if !s.takeReplies() {
				return false
			}
		} else if w := s.poll.lookup(&events[i]); w != nil {
			s.ready(w, revents(events[i].Events))
		}
		s.tidy()
	}
	s.poll.runJobs()
	return true
}

// tidy does what must not be done while libqb is on the stack.
func (s *Server) tidy() {
	s.sendLate()
	s.dropDoomed()
}

func (s *Server) ready(w *watch, events uint32) {
	switch {
	case w == s.listener:
		before := s.added
		s.poll.dispatch(w, events)
		if s.added == before {
			// No descriptor or no memory left for one more: the client stays in
			// the queue, and epoll would go on reporting it.
			s.poll.pause(w)
			s.listenAfter = time.Now().Add(100 * time.Millisecond)
		}
	case w.conn != nil && w.conn.busy && events&unix.EPOLLHUP == 0:
		s.poll.pause(w)
	default:
		c := w.conn
		if !s.poll.dispatch(w, events) && c != nil && c.ptr != nil {
			s.fault(c)
		}
	}
}

// watched is called for each new descriptor: the listening one, then for each
// client its socket during the handshake, and again as a connection's.
func (s *Server) watched(w *watch) {
	s.added++
	if c := s.conns[(*C.qb_ipcs_connection_t)(w.data)]; c != nil {
		c.fd = w.fd
		w.conn = c
		s.poll.setHot(w, true)
		return
	}
	if s.listener == nil {
		s.listener = w
		return
	}
	s.handshakes = append(s.handshakes, w)
}

// maxHandshakes is how many clients may be about to send their credentials. Any
// process on the host may connect that far. Honest ones take microseconds.
const maxHandshakes = 128

// expireHandshakes ends the handshakes that take too long, or are too many, oldest
// first, and returns when it wants to be called again; zero: there are none.
func (s *Server) expireHandshakes(now time.Time) time.Time {
	if len(s.handshakes) > maxHandshakes {
		s.handshakes = slices.DeleteFunc(s.handshakes, func(w *watch) bool {
			return s.poll.watches[w.fd] != w
		})
	}
	for len(s.handshakes) > 0 {
		w := s.handshakes[0]
		if s.poll.watches[w.fd] == w {
			due := w.since.Add(s.cfg.SlowLimit)
			if now.Before(due) && len(s.handshakes) <= maxHandshakes {
				return due
			}
			s.cfg.Logger.Debug("client dropped: handshake not finished", "after", now.Sub(w.since))
			s.poll.dispatch(w, unix.EPOLLHUP)
		}
		s.handshakes = s.handshakes[1:]
	}
	s.handshakes = nil
	return time.Time{}
}

func (s *Server) accept(p *C.qb_ipcs_connection_t, peer Peer) syscall.Errno {
	if int(C.qb_ipcs_connection_get_buffer_size(p)) > s.cfg.BufferSize {
		s.cfg.Logger.Warn("client refused: wants larger buffers", "pid", peer.PID, "uid", peer.UID)
		return syscall.EMSGSIZE
	}
	if len(s.conns) >= s.cfg.MaxConns {
		s.cfg.Logger.Warn("client refused: too many connections",
			"pid", peer.PID, "uid", peer.UID, "limit", s.cfg.MaxConns)
		return syscall.EAGAIN
	}
	handler, err := s.cfg.Accept(peer)
	if err != nil {
		if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != 0 {
			return errno
		}
		return syscall.EACCES
	}
	s.conns[p] = &conn{ptr: p, peer: peer, handler: handler, fd: -1}
	return 0
}

func (s *Server) destroyed(p *C.qb_ipcs_connection_t) {
	c := s.conns[p]
	if c == nil {
		return // refused
	}
	delete(s.conns, p)
	delete(s.stuck, c)
	c.ptr = nil
	s.gone = append(s.gone, c)
	c.handler.Closed()
}

// tick does what is due by time and returns how long the loop may sleep;
// negative: until something happens.
func (s *Server) tick() time.Duration {
	if len(s.stuck) == 0 && s.listenAfter.IsZero() && len(s.handshakes) == 0 {
		return -1
	}
	now := time.Now()
	next := s.expireHandshakes(now)
	earliest := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if !s.listenAfter.IsZero() {
		if now.Before(s.listenAfter) {
			earliest(s.listenAfter)
		} else {
			s.listenAfter = time.Time{}
			s.poll.resume(s.listener)
		}
	}
	for c := range s.stuck {
		if !now.Before(c.retryAt) {
			s.retry(c, now)
		}
		if !c.busy {
			continue
		}
		earliest(c.retryAt)
	}
	s.dropDoomed()
	if next.IsZero() {
		return -1
	}
	return max(next.Sub(now), 0)
}
