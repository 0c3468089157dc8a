package qb

// #include "bridge.h"
import "C"

import (
	"runtime/cgo"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These are called by libqb, through bridge.c, on the thread of the loop, always
// within a call that the loop made.

func serverOf(handle C.uintptr_t) *Server {
	return cgo.Handle(handle).Value().(*Server)
}

// negErrno is the negative errno that libqb's callbacks return for err.
func negErrno(err error) C.int32_t {
	if err == nil {
		return 0
	}
	if e, ok := err.(unix.Errno); ok {
		return -C.int32_t(e)
	}
	return -C.int32_t(unix.EIO)
}

//export qbDispatchAdd
func qbDispatchAdd(h C.uintptr_t, fd, events C.int32_t, data unsafe.Pointer, fn C.qb_ipcs_dispatch_fn_t) C.int32_t {
	s := serverOf(h)
	w := &watch{
		fd:     int32(fd),
		events: pollEvents(int32(events)),
		fn:     fn,
		data:   data,
		since:  time.Now(),
	}
	if err := s.poll.add(w); err != nil {
		return negErrno(err)
	}
	s.watched(w)
	return 0
}

//export qbDispatchMod
func qbDispatchMod(h C.uintptr_t, fd, events C.int32_t) C.int32_t {
	return negErrno(serverOf(h).poll.modify(int32(fd), pollEvents(int32(events))))
}

//export qbDispatchDel
func qbDispatchDel(h C.uintptr_t, fd C.int32_t) C.int32_t {
	return negErrno(serverOf(h).poll.remove(int32(fd)))
}

//export qbJobAdd
func qbJobAdd(h C.uintptr_t, data unsafe.Pointer, fn C.qb_loop_job_dispatch_fn) C.int32_t {
	p := serverOf(h).poll
	p.jobs = append(p.jobs, job{fn: fn, data: data})
	return 0
}

//export qbAccept
func qbAccept(h C.uintptr_t, c *C.qb_ipcs_connection_t, uid C.uid_t, gid C.gid_t) C.int32_t {
	peer := Peer{UID: uint32(uid), GID: uint32(gid), PID: int32(C.bridge_client_pid(c))}
	return -C.int32_t(serverOf(h).accept(c, peer))
}

//export qbMessage
func qbMessage(h C.uintptr_t, c *C.qb_ipcs_connection_t, id C.int32_t, data, small unsafe.Pointer, claimed C.int32_t, arrived C.int64_t, out *C.struct_bridge_answer) C.int32_t {
	if serverOf(h).message(c, int32(id), data, small, int64(claimed), int64(arrived), out) {
		return 1
	}
	return 0
}

//export qbUnsent
func qbUnsent(h C.uintptr_t, rc C.ssize_t) {
	s := serverOf(h)
	s.sent(&s.answering, rc)
}

//export qbDestroyed
func qbDestroyed(h C.uintptr_t, c *C.qb_ipcs_connection_t) {
	serverOf(h).destroyed(c)
}
