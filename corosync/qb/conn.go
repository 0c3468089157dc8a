package qb

// #include "bridge.h"
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
	"unsafe"
)

// conn is one client's connection. It belongs to the loop's thread. A client has at
// most one request in work: while busy, no further one is read.
type conn struct {
	ptr     *C.qb_ipcs_connection_t // nil once libqb has freed it
	peer    Peer
	handler Handler
	fd      int32
	busy    bool // a worker serves a request, or unsent waits for room
	faulted bool // its memory is gone, and it is about to be dropped

	unsent     reply
	stuckSince time.Time
	retryAt    time.Time
	retryDelay time.Duration
}

// reply is the answer to a request.
type reply struct {
	conn  *conn
	id    int32
	errno syscall.Errno
	data  []byte
}

// Between two attempts to send a reply for which the ring had no room.
const (
	firstRetry = time.Millisecond
	lastRetry  = 100 * time.Millisecond
)

// largeRequest is the length in bytes of a request from which on the answer waits until
// libqb has given the request's room in the ring back, which it does after the message
// callback: the client may send its next at once, and both would not fit. A ring is a page
// longer than the largest message.
const largeRequest = 2048

// message serves one request. data, the header's beginning, is in memory that the client can
// write and take away: it is only copied from. If not more than BRIDGE_SMALL bytes follow the
// header, small is their copy on the C stack.
func (s *Server) message(p *C.qb_ipcs_connection_t, id int32, data, small unsafe.Pointer, claimed, arrived int64) {
	c := s.conns[p]
	if c == nil || c.faulted {
		return
	}
	n, ok := bodyLength(claimed, arrived, int64(s.cfg.BufferSize))
	if !ok {
		s.send(reply{conn: c, id: id, errno: syscall.EINVAL})
		return
	}
	body := unsafe.Slice((*byte)(small), n)
	if n > C.BRIDGE_SMALL {
		s.scratch = slices.Grow(s.scratch[:0], n)[:n]
		body = s.scratch
		src := unsafe.Add(data, RequestHeader)
		if C.bridge_copy(unsafe.Pointer(unsafe.SliceData(body)), src, C.size_t(n)) != 0 {
			s.fault(c)
			return
		}
	}
	out, errno, done := c.handler.Try(id, body)
	if !done {
		c.busy = true
		own := bytes.Clone(body)
		s.workers.Add(1)
		go func() {
			defer s.workers.Done()
			out, errno := c.handler.Serve(id, own)
			s.finish(reply{conn: c, id: id, errno: errno, data: out})
		}()
		return
	}
	r := reply{conn: c, id: id, errno: errno, data: out}
	if n > largeRequest {
		s.late = append(s.late, r)
		return
	}
	s.send(r)
}

// fault drops a client that took away the memory of its rings.
func (s *Server) fault(c *conn) {
	if c.faulted {
		return
	}
	c.faulted = true
	s.cfg.Logger.Warn("client dropped: its shared memory is gone", "pid", c.peer.PID, "uid", c.peer.UID)
	s.doomed = append(s.doomed, c)
}

// finish hands a worker's reply to the loop. It is called by the worker.
func (s *Server) finish(r reply) {
	s.mu.Lock()
	s.done = append(s.done, r)
	first := len(s.done) == 1
	s.mu.Unlock()
	if first {
		s.poll.wake()
	}
}

// takeReplies sends what the workers have finished. It returns false if the loop is to
// stop instead.
func (s *Server) takeReplies() bool {
	s.poll.drain()
	s.mu.Lock()
	done, stopping := s.done, s.stopping
	s.done = nil
	for _, p := range s.pings {
		close(p)
	}
	s.pings = nil
	s.mu.Unlock()
	if stopping {
		return false
	}
	for _, r := range done {
		if r.conn.ptr != nil {
			s.idle(r.conn)
			s.send(r)
		}
	}
	return true
}

// idle lets the connection's next request come.
func (s *Server) idle(c *conn) {
	c.busy = false
	if w := s.poll.watches[c.fd]; w != nil && w.conn == c {
		s.poll.resume(w)
	}
}

// send writes a reply into the response ring, or keeps it until there is room.
func (s *Server) send(r reply) {
	c := r.conn
	if c.faulted {
		return
	}
	switch s.write(&r) {
	case 0:
	case syscall.EAGAIN:
		c.busy = true
		c.unsent = r
		c.stuckSince = time.Now()
		c.retryDelay = firstRetry
		c.retryAt = c.stuckSince.Add(c.retryDelay)
		s.stuck[c] = struct{}{}
	default:
		s.doomed = append(s.doomed, c)
	}
}

// retry tries again to send a reply that found no room.
func (s *Server) retry(c *conn, now time.Time) {
	switch s.write(&c.unsent) {
	case 0:
		delete(s.stuck, c)
		c.unsent = reply{}
		s.idle(c)
	case syscall.EAGAIN:
		if now.Sub(c.stuckSince) >= s.cfg.SlowLimit {
			s.cfg.Logger.Warn("client dropped: it doesn't fetch its replies",
				"pid", c.peer.PID, "uid", c.peer.UID, "after", s.cfg.SlowLimit)
			s.doomed = append(s.doomed, c)
			return
		}
		c.retryDelay = min(2*c.retryDelay, lastRetry)
		c.retryAt = now.Add(c.retryDelay)
	default:
		s.doomed = append(s.doomed, c)
	}
}

// write makes one attempt to put r into the response ring. libqb copies the data
// straight from where it is into the ring.
//
//	ssize_t qb_ipcs_response_sendv(qb_ipcs_connection_t *c, const struct iovec *iov, size_t iov_len);
func (s *Server) write(r *reply) syscall.Errno {
	if r.errno == 0 && len(r.data) > s.cfg.BufferSize-ResponseHeader {
		// libqb doesn't check: it would say EAGAIN for ever.
		r.errno = syscall.EMSGSIZE
	}
	if r.errno != 0 {
		r.data = nil
	}
	rc := C.bridge_reply(r.conn.ptr, C.int32_t(r.id), -C.int32_t(r.errno),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(r.data))), C.size_t(len(r.data)))
	switch {
	case rc >= 0:
		return 0
	case rc == C.BRIDGE_FAULT:
		s.fault(r.conn)
		return syscall.EFAULT
	case syscall.Errno(-rc) == syscall.ETIMEDOUT:
		return syscall.EAGAIN
	}
	return syscall.Errno(-rc)
}

// sendLate sends the answers to large requests.
func (s *Server) sendLate() {
	for i, r := range s.late {
		if r.conn.ptr != nil {
			s.send(r)
		}
		s.late[i] = reply{}
	}
	s.late = s.late[:0]
}

// dropDoomed disconnects those that went wrong while libqb was on the stack.
//
//	void qb_ipcs_disconnect(qb_ipcs_connection_t *c);
func (s *Server) dropDoomed() {
	for len(s.doomed) > 0 {
		doomed := s.doomed
		s.doomed = nil
		for _, c := range doomed {
			if c.ptr != nil {
				C.qb_ipcs_disconnect(c.ptr)
			}
		}
	}
	s.sweep()
}

// sweep looks after the connections that are gone. If libqb could not close one's rings because
// their memory was gone, it has left their files.
func (s *Server) sweep() {
	if len(s.gone) == 0 {
		return
	}
	if C.bridge_trapped() != 0 {
		for _, c := range s.gone {
			pattern := fmt.Sprintf("/dev/shm/qb-%d-%d-%d-*", os.Getpid(), c.peer.PID, c.fd)
			dirs, _ := filepath.Glob(pattern) // the pattern is well-formed
			for _, dir := range dirs {
				_ = os.RemoveAll(dir)
			}
		}
	}
	clear(s.gone)
	s.gone = s.gone[:0]
}
