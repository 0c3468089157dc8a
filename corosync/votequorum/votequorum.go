package votequorum

// #cgo pkg-config: libvotequorum libcorosync_common
// #include "bridge.h"
import "C"

import (
	"runtime/cgo"
	"time"
	"unsafe"

	"pmxcfs/corosync"
	"pmxcfs/corosync/internal/session"
)

// Forever is the timeout of a Next that waits for as long as it takes.
const Forever = session.Forever

// Conn is a connection to corosync's votequorum service. All methods but Next
// may be called from any goroutine.
type Conn struct {
	session *session.Session
	handle  C.votequorum_handle_t
	self    cgo.Handle // of this Conn: the library's context

	// Only the goroutine in Next, and the callbacks in its dispatch:
	batch []Event
}

// Open connects. The caller owes a Close. ErrConnectionLost: no corosync runs,
// or not with votequorum; ErrTryAgain: it isn't ready.
//
//	cs_error_t votequorum_initialize(votequorum_handle_t *handle, votequorum_callbacks_t *callbacks);
func Open() (*Conn, error) {
	c := &Conn{}
	c.self = cgo.NewHandle(c)
	err := session.Err("votequorum_initialize", code(C.pmx_votequorum_initialize(&c.handle, C.uintptr_t(c.self))))
	if err != nil {
		c.self.Delete()
		return nil, err
	}
	var fd C.int
	if err = session.Err("votequorum_fd_get", code(C.votequorum_fd_get(c.handle, &fd))); err == nil {
		c.session, err = session.New(int(fd))
	}
	if err != nil {
		C.votequorum_finalize(c.handle)
		c.self.Delete()
		return nil, err
	}
	return c, nil
}

// Close ends a running Next, which returns ErrClosed, and disconnects. Closing
// again does nothing.
//
//	cs_error_t votequorum_finalize(votequorum_handle_t handle);
func (c *Conn) Close() error {
	return c.session.Close("votequorum_finalize", func() corosync.Code {
		defer c.self.Delete()
		return code(C.votequorum_finalize(c.handle))
	})
}

// TrackStart asks for events: the present state at once, then every change.
//
//	cs_error_t votequorum_trackstart(votequorum_handle_t handle, uint64_t context, unsigned int flags);
func (c *Conn) TrackStart() error {
	return c.session.Call("votequorum_trackstart", func() corosync.Code {
		return code(C.votequorum_trackstart(c.handle, 0, C.CS_TRACK_CURRENT|C.CS_TRACK_CHANGES))
	})
}

// TrackStop asks for no more events.
//
//	cs_error_t votequorum_trackstop(votequorum_handle_t handle);
func (c *Conn) TrackStop() error {
	return c.session.Call("votequorum_trackstop", func() corosync.Code {
		return code(C.votequorum_trackstop(c.handle))
	})
}

// Next waits for events, after a TrackStart, and appends those that have come
// to into, in their order. It is for one goroutine, the connection's owner.
// timeout < 0 waits forever, 0 not at all. Without an error there may be no
// event: at the timeout, or after a Wake.
//
//	cs_error_t votequorum_dispatch(votequorum_handle_t handle, cs_dispatch_flags_t dispatch_types);
func (c *Conn) Next(into []Event, timeout time.Duration) ([]Event, error) {
	c.batch = into
	err := c.session.Next(timeout, "votequorum_dispatch", func() corosync.Code {
		return code(C.votequorum_dispatch(c.handle, C.CS_DISPATCH_ALL))
	})
	into, c.batch = c.batch, nil
	return into, err
}

// Wake makes the Next that waits now, or else the next one, return at once.
func (c *Conn) Wake() { c.session.Wake() }

// Info is what votequorum_getinfo(3) tells of one node and of the cluster.
type Info struct {
	Node            corosync.NodeID
	State           State
	Votes           int // of the node
	ExpectedVotes   int // as the node has it configured
	HighestExpected int // of all nodes
	TotalVotes      int // of the members, a quorum device's included
	Quorum          int // votes that are needed
	Flags           Flags
	QDeviceVotes    int
	QDeviceName     string
}

// Quorate tells whether the cluster part of the node that answered has quorum.
func (i Info) Quorate() bool { return i.Flags&FlagQuorate != 0 }

// SetExpected sets the votes that the cluster expects, on every node, until corosync is
// started again. ErrInvalidParam: fewer than the votes that are present, or so many that those are no
// majority of them.
//
//	cs_error_t votequorum_setexpected(votequorum_handle_t handle, unsigned int expected_votes);
func (c *Conn) SetExpected(votes int) error {
	return c.session.Call("votequorum_setexpected", func() corosync.Code {
		return code(C.votequorum_setexpected(c.handle, C.uint(votes)))
	})
}

// Flags are the VOTEQUORUM_INFO_… bits.
type Flags uint32

// The flags of votequorum.h.
const (
	FlagTwoNode           Flags = 1
	FlagQuorate           Flags = 2
	FlagWaitForAll        Flags = 4
	FlagLastManStanding   Flags = 8
	FlagAutoTieBreaker    Flags = 16
	FlagAllowDownscale    Flags = 32
	FlagQDeviceRegistered Flags = 64
	FlagQDeviceAlive      Flags = 128
	FlagQDeviceCastVote   Flags = 256
	FlagQDeviceMasterWins Flags = 512
)

// GetInfo asks for a node, 0 for this one. ErrNotExist: no such node.
//
//	cs_error_t votequorum_getinfo(votequorum_handle_t handle, unsigned int nodeid, struct votequorum_info *info);
func (c *Conn) GetInfo(node corosync.NodeID) (Info, error) {
	var i C.struct_votequorum_info
	err := c.session.Call("votequorum_getinfo", func() corosync.Code {
		return code(C.votequorum_getinfo(c.handle, C.uint(node), &i))
	})
	if err != nil {
		return Info{}, err
	}
	name := unsafe.Slice((*byte)(unsafe.Pointer(&i.qdevice_name[0])), len(i.qdevice_name))
	for n, b := range name {
		if b == 0 {
			name = name[:n]
			break
		}
	}
	return Info{
		Node:            corosync.NodeID(i.node_id),
		State:           State(i.node_state),
		Votes:           int(i.node_votes),
		ExpectedVotes:   int(i.node_expected_votes),
		HighestExpected: int(i.highest_expected),
		TotalVotes:      int(i.total_votes),
		Quorum:          int(i.quorum),
		Flags:           Flags(i.flags),
		QDeviceVotes:    int(i.qdevice_votes),
		QDeviceName:     string(name),
	}, nil
}

func code(c C.cs_error_t) corosync.Code { return corosync.Code(c) }
