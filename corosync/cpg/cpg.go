package cpg

// #cgo pkg-config: libcpg libcorosync_common
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"runtime/cgo"
	"strings"
	"sync"
	"time"
	"unsafe"

	"pmxcfs/corosync"
	"pmxcfs/corosync/internal/session"
)

// MaxGroupName is the longest name of a group in bytes, without the NUL that
// goes with it on the wire.
const MaxGroupName = C.CPG_MAX_NAME_LENGTH - 1

// A batch ends when it holds this much, also if more is waiting: it bounds how
// long the first event waits for the last.
const (
	maxBatchEvents = 1024
	maxBatchBytes  = 4 << 20
)

// Forever is the timeout of a Next that waits for as long as it takes.
const Forever = session.Forever

// table guards the library's table of handles, which is the whole process's: of two
// initialisations at the same time one may get the place of the other, whose
// connection is then never closed, and stays a member of its group (libqb 2.0.6's
// qb_hdb_handle_create looks for a free place, and takes it after that).
var table sync.Mutex

// Conn is a connection to corosync's CPG service. It can be a member of one
// group, once: to join again after a Leave takes a new connection. All methods
// but Next may be called from any goroutine.
type Conn struct {
	session *session.Session
	handle  C.cpg_handle_t
	context *C.struct_pmx_cpg // C memory
	self    cgo.Handle        // of this Conn, in context

	// In session.Call only. Corosync 3.1.7 refuses a handle that has left its
	// group for good, and the library then tries for ever: don't ask it.
	joined, left bool

	// Only the goroutine in Next, and the callbacks in its dispatch:
	batch []Event
	arena arena
}

// Open connects. The caller owes a Close. ErrConnectionLost: no corosync runs;
// ErrTryAgain: it isn't ready.
//
//	cs_error_t cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model, cpg_model_data_t *model_data, void *context);
func Open() (*Conn, error) {
	c := &Conn{context: (*C.struct_pmx_cpg)(C.calloc(1, C.sizeof_struct_pmx_cpg))}
	c.self = cgo.NewHandle(c)
	c.context.conn = C.uintptr_t(c.self)
	table.Lock()
	err := session.Err("cpg_model_initialize", code(C.pmx_cpg_initialize(&c.handle, c.context)))
	table.Unlock()
	if err != nil {
		c.free()
		return nil, err
	}
	var fd C.int
	if err = session.Err("cpg_fd_get", code(C.cpg_fd_get(c.handle, &fd))); err == nil {
		c.session, err = session.New(int(fd))
	}
	if err != nil {
		table.Lock()
		C.cpg_finalize(c.handle)
		table.Unlock()
		c.free()
		return nil, err
	}
	return c, nil
}

func (c *Conn) free() {
	c.self.Delete()
	C.free(unsafe.Pointer(c.context))
}

// Close ends a running Next, which returns ErrClosed, and disconnects; without
// a Leave before, the others see that the process is gone. Closing again does
// nothing.
//
//	cs_error_t cpg_finalize(cpg_handle_t handle);
func (c *Conn) Close() error {
	return c.session.Close("cpg_finalize", func() corosync.Code {
		defer c.free()
		table.Lock()
		defer table.Unlock()
		return code(C.cpg_finalize(c.handle))
	})
}

// Next waits for events and appends a batch of them to into, those that have
// come up to now, in their order. It is for one goroutine, the connection's
// owner. timeout < 0 waits forever, 0 not at all.
//
// Without an error there may be no event: at the timeout, after a Wake, or for
// a part of a large message. A message's bytes are the caller's to keep and
// write; keeping one of up to 4 KiB may keep 64 KiB from being freed. With
// ErrConnectionLost the events that came before are still returned.
//
//	cs_error_t cpg_dispatch(cpg_handle_t handle, cs_dispatch_flags_t dispatch_types);
func (c *Conn) Next(into []Event, timeout time.Duration) ([]Event, error) {
	c.batch = into
	err := c.session.Next(timeout, "cpg_dispatch", func() corosync.Code {
		return code(C.pmx_cpg_dispatch(c.handle, c.context, maxBatchEvents, maxBatchBytes))
	})
	into, c.batch = c.batch, nil
	return into, err
}

// Wake makes the Next that waits now, or else the next one, return at once.
func (c *Conn) Wake() { c.session.Wake() }

// Join becomes a member of the group; a ConfigChange with this process in
// Joined tells when. The name may have up to MaxGroupName bytes and no NUL;
// corosync counts one NUL more. ErrTryAgain: later. ErrExist: this connection
// has joined before, or another one of this process is in that group.
//
//	cs_error_t cpg_join(cpg_handle_t handle, const struct cpg_name *group);
func (c *Conn) Join(group string) error {
	name, err := groupName("cpg_join", group)
	if err != nil {
		return err
	}
	return c.session.Call("cpg_join", func() corosync.Code {
		if c.joined {
			return corosync.ErrExist
		}
		err := code(C.cpg_join(c.handle, &name))
		c.joined = err == corosync.OK
		return err
	})
}

// Leave leaves the group. A ConfigChange with this process in Left is the last
// event. ErrTryAgain: later. ErrNotExist: it is no member, or leaving already.
//
//	cs_error_t cpg_leave(cpg_handle_t handle, const struct cpg_name *group);
func (c *Conn) Leave(group string) error {
	name, err := groupName("cpg_leave", group)
	if err != nil {
		return err
	}
	return c.session.Call("cpg_leave", func() corosync.Code {
		if !c.joined || c.left {
			return corosync.ErrNotExist
		}
		err := code(C.cpg_leave(c.handle, &name))
		c.left = err == corosync.OK
		return err
	})
}

func groupName(op, group string) (C.struct_cpg_name, error) {
	var name C.struct_cpg_name
	if group == "" || strings.IndexByte(group, 0) >= 0 {
		return name, &corosync.Error{Op: op, Code: corosync.ErrInvalidParam}
	}
	if len(group) > MaxGroupName {
		return name, &corosync.Error{Op: op, Code: corosync.ErrNameTooLong}
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&name.value[0])), len(name.value)), group)
	name.length = C.uint32_t(len(group) + 1)
	return name, nil
}

// Mcast sends one message, the parts one after the other, to all members of the
// joined group, this one too, in agreed order. It doesn't keep the parts. Up to
// four cost no copy here. ErrTryAgain: corosync's queues are full, nothing was
// sent. A message above MaxAtomicSize is split and joined by the library.
//
//	cs_error_t cpg_mcast_joined(cpg_handle_t handle, cpg_guarantee_t guarantee, const struct iovec *iovec, unsigned int iov_len);
func (c *Conn) Mcast(parts ...[]byte) error {
	var iov [4][]byte
	if len(parts) > len(iov) {
		for _, p := range parts {
			iov[0] = append(iov[0], p...)
		}
		parts = iov[:1]
	}
	copy(iov[:], parts)
	n := C.uint(max(1, len(parts)))
	return c.session.Call("cpg_mcast_joined", func() corosync.Code {
		return code(C.pmx_cpg_mcast(c.handle, n,
			unsafe.Pointer(unsafe.SliceData(iov[0])), C.size_t(len(iov[0])),
			unsafe.Pointer(unsafe.SliceData(iov[1])), C.size_t(len(iov[1])),
			unsafe.Pointer(unsafe.SliceData(iov[2])), C.size_t(len(iov[2])),
			unsafe.Pointer(unsafe.SliceData(iov[3])), C.size_t(len(iov[3]))))
	})
}

// FlowControlled tells whether corosync asks not to send just now.
//
//	cs_error_t cpg_flow_control_state_get(cpg_handle_t handle, cpg_flow_control_state_t *flow_control_enabled);
func (c *Conn) FlowControlled() (bool, error) {
	var state C.cpg_flow_control_state_t
	err := c.session.Call("cpg_flow_control_state_get", func() corosync.Code {
		return code(C.cpg_flow_control_state_get(c.handle, &state))
	})
	return state == C.CPG_FLOW_CONTROL_ENABLED, err
}

// LocalNodeID is this node's id.
//
//	cs_error_t cpg_local_get(cpg_handle_t handle, unsigned int *local_nodeid);
func (c *Conn) LocalNodeID() (corosync.NodeID, error) {
	var id C.uint
	err := c.session.Call("cpg_local_get", func() corosync.Code { return code(C.cpg_local_get(c.handle, &id)) })
	return corosync.NodeID(id), err
}

// MaxAtomicSize is the largest message in bytes that goes in one piece.
//
//	cs_error_t cpg_max_atomic_msgsize_get(cpg_handle_t handle, uint32_t *size);
func (c *Conn) MaxAtomicSize() (int, error) {
	var size C.uint32_t
	err := c.session.Call("cpg_max_atomic_msgsize_get", func() corosync.Code {
		return code(C.cpg_max_atomic_msgsize_get(c.handle, &size))
	})
	return int(size), err
}

// Membership lists the members of a group as corosync knows them now, joined or
// not. It has no place in the order of events.
//
//	cs_error_t cpg_membership_get(cpg_handle_t handle, struct cpg_name *groupName, struct cpg_address *member_list, int *member_list_entries);
func (c *Conn) Membership(group string) ([]corosync.Member, error) {
	name, err := groupName("cpg_membership_get", group)
	if err != nil {
		return nil, err
	}
	var list [C.CPG_MEMBERS_MAX]C.struct_cpg_address
	n := C.int(len(list))
	err = c.session.Call("cpg_membership_get", func() corosync.Code {
		return code(C.cpg_membership_get(c.handle, &name, &list[0], &n))
	})
	if err != nil {
		return nil, err
	}
	return members(list[:min(max(0, int(n)), len(list))]), nil
}

func code(c C.cs_error_t) corosync.Code { return corosync.Code(c) }

func member(a C.struct_cpg_address) corosync.Member {
	return corosync.Member{Node: corosync.NodeID(a.nodeid), PID: uint32(a.pid)}
}

func members(list []C.struct_cpg_address) []corosync.Member {
	m := make([]corosync.Member, len(list))
	for i, a := range list {
		m[i] = member(a)
	}
	return m
}

func addresses(list []C.struct_cpg_address) []Address {
	m := make([]Address, len(list))
	for i, a := range list {
		m[i] = Address{Member: member(a), Reason: Reason(a.reason)}
	}
	return m
}
