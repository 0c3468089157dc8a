package cfg

// #cgo pkg-config: libcfg libcorosync_common
// #include <stdlib.h>
// #include <sys/socket.h>
// #include <netinet/in.h>
// #include <corosync/cfg.h>
import "C"

import (
	"net/netip"
	"sync"
	"unsafe"

	"pmxcfs/corosync"
	"pmxcfs/corosync/internal/session"
)

// Conn is a connection to corosync's cfg service. Its methods may be called
// from any goroutine.
type Conn struct {
	mu     sync.Mutex // around calls of the library; guards closed
	handle C.corosync_cfg_handle_t
	closed bool
}

// Open connects. The caller owes a Close. ErrConnectionLost: no corosync runs;
// ErrTryAgain: it isn't ready.
//
//	cs_error_t corosync_cfg_initialize(corosync_cfg_handle_t *cfg_handle, const corosync_cfg_callbacks_t *cfg_callbacks);
func Open() (*Conn, error) {
	c := &Conn{}
	err := session.Err("corosync_cfg_initialize", code(C.corosync_cfg_initialize(&c.handle, &C.corosync_cfg_callbacks_t{})))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close disconnects. Closing again does nothing.
//
//	cs_error_t corosync_cfg_finalize(corosync_cfg_handle_t cfg_handle);
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return session.Err("corosync_cfg_finalize", code(C.corosync_cfg_finalize(c.handle)))
}

func (c *Conn) call(op string, f func() C.cs_error_t) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return corosync.ErrClosed
	}
	return session.Err(op, code(f()))
}

// ReloadConfig has corosync read corosync.conf again, on every node, and
// returns when all have: what corosync-cfgtool -R does. An error that is no
// lost connection means that the file is not as it should be on some node;
// corosync's log says what is wrong.
//
//	cs_error_t corosync_cfg_reload_config(corosync_cfg_handle_t handle);
func (c *Conn) ReloadConfig() error {
	return c.call("corosync_cfg_reload_config", func() C.cs_error_t {
		return C.corosync_cfg_reload_config(c.handle)
	})
}

// LocalNodeID is this node's id.
//
//	cs_error_t corosync_cfg_local_get(corosync_cfg_handle_t handle, unsigned int *local_nodeid);
func (c *Conn) LocalNodeID() (corosync.NodeID, error) {
	var id C.uint
	err := c.call("corosync_cfg_local_get", func() C.cs_error_t { return C.corosync_cfg_local_get(c.handle, &id) })
	return corosync.NodeID(id), err
}

// KillNode ends corosync on a member, which logs the reason. ErrNotExist or
// ErrInvalidParam: no such member.
//
//	cs_error_t corosync_cfg_kill_node(corosync_cfg_handle_t cfg_handle, unsigned int nodeid, const char *reason);
func (c *Conn) KillNode(node corosync.NodeID, reason string) error {
	text := C.CString(reason)
	defer C.free(unsafe.Pointer(text))
	return c.call("corosync_cfg_kill_node", func() C.cs_error_t {
		return C.corosync_cfg_kill_node(c.handle, C.uint(node), text)
	})
}

// maxAddresses is how many addresses a node can have: one a link.
const maxAddresses = 8

// NodeAddresses returns the addresses of a node by which this node knows it, in the order
// of its links. ErrNotExist or ErrInvalidParam: no such node.
//
//	cs_error_t corosync_cfg_get_node_addrs(corosync_cfg_handle_t cfg_handle, unsigned int nodeid, size_t max_addrs, int *num_addrs, corosync_cfg_node_address_t *addrs);
func (c *Conn) NodeAddresses(node corosync.NodeID) ([]netip.Addr, error) {
	var list [maxAddresses]C.corosync_cfg_node_address_t
	var n C.int
	err := c.call("corosync_cfg_get_node_addrs", func() C.cs_error_t {
		return C.corosync_cfg_get_node_addrs(c.handle, C.uint(node), maxAddresses, &n, &list[0])
	})
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for i := range min(max(int(n), 0), maxAddresses) {
		sa := unsafe.Pointer(&list[i].address[0])
		var addr netip.Addr
		switch (*C.struct_sockaddr)(sa).sa_family {
		case C.AF_INET:
			addr = netip.AddrFrom4(*(*[4]byte)(unsafe.Pointer(&(*C.struct_sockaddr_in)(sa).sin_addr)))
		case C.AF_INET6:
			addr = netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&(*C.struct_sockaddr_in6)(sa).sin6_addr)))
		default:
			continue // a link without an address
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// NodeStatus is how this node's transport sees a node.
type NodeStatus struct {
	Node      corosync.NodeID
	Reachable bool
	Links     []LinkStatus // the enabled ones
}

// LinkStatus is one link between this node and another.
type LinkStatus struct {
	Number      int // linknumber in corosync.conf
	Connected   bool
	MTU         int // bytes, as measured; 0 means not yet
	Source      string
	Destination string
}

// NodeStatus asks how the links to a node are. ErrNotExist or
// ErrInvalidParam: no such node.
//
//	cs_error_t corosync_cfg_node_status_get(corosync_cfg_handle_t cfg_handle, unsigned int nodeid, corosync_cfg_node_status_version_t version, void *node_status);
func (c *Conn) NodeStatus(node corosync.NodeID) (NodeStatus, error) {
	var s C.struct_corosync_cfg_node_status_v1
	err := c.call("corosync_cfg_node_status_get", func() C.cs_error_t {
		return C.corosync_cfg_node_status_get(c.handle, C.uint(node), C.CFG_NODE_STATUS_V1, unsafe.Pointer(&s))
	})
	if err != nil {
		return NodeStatus{}, err
	}
	status := NodeStatus{Node: corosync.NodeID(s.nodeid), Reachable: s.reachable != 0}
	for i := range s.link_status {
		l := &s.link_status[i]
		if l.enabled == 0 {
			continue
		}
		status.Links = append(status.Links, LinkStatus{
			Number:      i,
			Connected:   l.connected != 0,
			MTU:         int(l.mtu),
			Source:      text(l.src_ipaddr[:]),
			Destination: text(l.dst_ipaddr[:]),
		})
	}
	return status, nil
}

// text gives a C string in an array, also one without its NUL.
func text(array []C.char) string {
	b := make([]byte, 0, len(array))
	for _, ch := range array {
		if ch == 0 {
			break
		}
		b = append(b, byte(ch))
	}
	return string(b)
}

func code(c C.cs_error_t) corosync.Code { return corosync.Code(c) }
