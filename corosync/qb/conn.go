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
// header, small is their copy on the C stack. It returns true if it has put the answer into
// out, for bridge.c to send.
func (s *Server) message(p *C.qb_ipcs_connection_t, id int32, data, small unsafe.Pointer, claimed, arrived int64, out *C.struct_bridge_answer) bool {
	c := s.conns[p]
	if c == nil || c.faulted {
		return false
	}
	n, ok := bodyLength(claimed, arrived, int64(s.cfg.BufferSize))
	if !ok {
		return s.answer(reply{conn: c, id: id, errno: syscall.EINVAL}, out)
	}
	body := unsafe.Slice((*byte)(small), n)
	if n > C.BRIDGE_SMALL {
		s.scratch = slices.Grow(s.scratch[:0], n)[:n]
		body = s.scratch
		src := unsafe.Add(data, RequestHeader)
		if C.bridge_copy(unsafe.Pointer(unsafe.SliceData(body)), src, C.size_t(n)) != 0 {
			s.fault(c)
			return false
		}
	}
	answer, errno, done := c.handler.Try(id, body)
	if !done {
		s.work(c, id, body)
		return false
	}
	r := reply{conn: c, id: id, errno: errno, data: answer}
	if n > largeRequest {
		s.late = append(s.late, r)
		s.poll.attend()
		return false
	}
	return s.answer(r, out)
}

// work has a worker serve a request. body is on the C stack or in scratch.
func (s *Server) work(c *conn, id int32, body []byte) {
	s.setBusy(c, true)
	if len(body) > C.BRIDGE_SMALL {
		s.scratch = nil // the worker's from now on
	} else {
		body = bytes.Clone(body)
	}
	s.workers.Add(1)
	go func() {
		defer s.workers.Done()
		out, errno := c.handler.Serve(id, body)
		s.finish(reply{conn: c, id: id, errno: errno, data: out})
	}()
}

// answer has bridge.c send an answer that is not too long for that, which spares a call out
// of Go, and returns true; or sends it.
func (s *Server) answer(r reply, out *C.struct_bridge_answer) bool {
	if len(r.data) > C.BRIDGE_ANSWER {
		s.send(&r)
		return false
	}
	s.fit(&r)
	out.error = -C.int32_t(r.errno)
	out.len = C.size_t(len(r.data))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&out.data[0])), len(out.data)), r.data)
	s.answering = r
	return true
}

// fault drops a client that took away the memory of its rings.
func (s *Server) fault(c *conn) {
	if c.faulted {
		return
	}
	c.faulted = true
	s.cfg.Logger.Warn("client dropped: its shared memory is gone", "pid", c.peer.PID, "uid", c.peer.UID)
	s.doom(c)
}

// doom has a connection dropped when libqb is not on the stack.
func (s *Server) doom(c *conn) {
	s.doomed = append(s.doomed, c)
	s.poll.attend()
}

// setBusy says whether a connection's next request has to wait.
func (s *Server) setBusy(c *conn, busy bool) {
	c.busy = busy
	if w := s.poll.watches[c.fd]; w != nil && w.conn == c {
		s.poll.setHot(w, !busy)
		if !busy {
			s.poll.resume(w)
		}
	}
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
			s.setBusy(r.conn, false)
			s.send(&r)
		}
	}
	return true
}

// send writes a reply into the response ring, or keeps it until there is room.
func (s *Server) send(r *reply) {
	if !r.conn.faulted {
		s.sent(r, s.write(r))
	}
}

// sent does what is to be done after a first attempt to send a reply, which
// returned rc.
func (s *Server) sent(r *reply, rc C.ssize_t) {
	c := r.conn
	switch {
	case rc >= 0:
	case rc == C.BRIDGE_FAULT:
		s.fault(c)
	case full(rc):
		s.setBusy(c, true)
		c.unsent = *r
		c.stuckSince = time.Now()
		c.retryDelay = firstRetry
		c.retryAt = c.stuckSince.Add(c.retryDelay)
		s.stuck[c] = struct{}{}
		s.poll.attend()
	default:
		s.doom(c)
	}
}

// full tells whether rc says that the response ring had no room.
func full(rc C.ssize_t) bool {
	return rc < 0 && (syscall.Errno(-rc) == syscall.EAGAIN || syscall.Errno(-rc) == syscall.ETIMEDOUT)
}

// retry tries again to send a reply that found no room.
func (s *Server) retry(c *conn, now time.Time) {
	switch rc := s.write(&c.unsent); {
	case rc >= 0:
		delete(s.stuck, c)
		c.unsent = reply{}
		s.setBusy(c, false)
	case rc == C.BRIDGE_FAULT:
		s.fault(c)
	case full(rc):
		if now.Sub(c.stuckSince) >= s.cfg.SlowLimit {
			s.cfg.Logger.Warn("client dropped: it doesn't fetch its replies",
				"pid", c.peer.PID, "uid", c.peer.UID, "after", s.cfg.SlowLimit)
			s.doom(c)
			return
		}
		c.retryDelay = min(2*c.retryDelay, lastRetry)
		c.retryAt = now.Add(c.retryDelay)
	default:
		s.doom(c)
	}
}

// fit makes an error of an answer that is too long, and leaves out data beside an error.
func (s *Server) fit(r *reply) {
	if r.errno == 0 && len(r.data) > s.cfg.BufferSize-ResponseHeader {
		// libqb doesn't check: it would say EAGAIN for ever.
		r.errno = syscall.EMSGSIZE
	}
	if r.errno != 0 {
		r.data = nil
	}
}

// write makes one attempt to put r into the response ring, and returns what libqb did, or
// BRIDGE_FAULT. libqb copies the data straight from where it is into the ring.
//
//	ssize_t qb_ipcs_response_sendv(qb_ipcs_connection_t *c, const struct iovec *iov, size_t iov_len);
func (s *Server) write(r *reply) C.ssize_t {
	s.fit(r)
	return C.bridge_reply(r.conn.ptr, C.int32_t(r.id), -C.int32_t(r.errno),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(r.data))), C.size_t(len(r.data)))
}

// sendLate sends the answers to large requests.
func (s *Server) sendLate() {
	for i, r := range s.late {
		if r.conn.ptr != nil {
			s.send(&r)
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
