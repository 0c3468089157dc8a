package ipc

import (
	"errors"
	"syscall"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/memdb"
)

// client answers one connection's requests.
type client struct {
	service *Service
	peer    qb.Peer
	access  Access
}

var _ qb.Handler = (*client)(nil)

// Closed is called when the connection is gone.
func (c *client) Closed() { c.service.connected(c.access).Add(-1) }

// Serve answers a request.
func (c *client) Serve(op int32, data []byte) ([]byte, syscall.Errno) {
	known := knownOp(op)
	var start time.Time // zero: it is not timed
	if c.service.cfg.Observer != nil && (!brief(known) || c.service.requests[known].Load()%timeEvery == 0) {
		start = time.Now()
	}
	out, errno := c.serve(op, data)
	c.answered(known, errno, start)
	return out, errno
}

// answered takes note of a request. A zero start is one that was not timed.
func (c *client) answered(known int32, errno syscall.Errno, start time.Time) {
	c.service.requests[known].Add(1)
	observer := c.service.cfg.Observer
	if observer == nil {
		return
	}
	if !start.IsZero() {
		observer.Took(known, time.Since(start))
	}
	if errno != 0 {
		observer.Failed(known, errno)
	}
}

func (c *client) serve(op int32, data []byte) ([]byte, syscall.Errno) {
	cfg := &c.service.cfg
	switch op {
	case OpVersion:
		return withoutData(data, cfg.Store.Version)
	case OpClusterInfo:
		return withoutData(data, cfg.Store.Members)
	case OpGuestList:
		return withoutData(data, cfg.Store.VMList)
	case OpSetStatus:
		return nil, c.setStatus(data)
	case OpGetStatus:
		return c.getStatus(data)
	case OpGetConfig:
		return c.getConfig(data)
	case OpLog:
		return nil, c.log(data)
	case OpGetLog:
		r, errno := decodeGetLog(data)
		if errno != 0 {
			return nil, errno
		}
		return cfg.Store.ClusterLog(r.max, r.user), 0
	case OpRRDDump:
		return withoutData(data, cfg.Store.RRDWithNUL)
	case OpGuestProperty:
		return c.properties(decodeGuestProperty(data))
	case OpVerifyToken:
		return nil, c.verifyToken(data)
	case OpGuestProperties:
		return c.properties(decodeGuestProperties(data))
	}
	return nil, syscall.ECHRNG
}

// withoutData answers a request that has no data.
func withoutData(data []byte, answer func() []byte) ([]byte, syscall.Errno) {
	if len(data) > 0 {
		return nil, syscall.EINVAL
	}
	return answer(), 0
}

// errnoOf is the errno that answers an error of the store.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != 0 {
		return errno
	}
	return syscall.EIO
}

func (c *client) setStatus(data []byte) syscall.Errno {
	if c.access != Full {
		return syscall.EPERM
	}
	r, errno := decodeSetStatus(data)
	if errno != 0 {
		return errno
	}
	return errnoOf(c.service.cfg.Store.Set(r.key, r.value))
}

func (c *client) getStatus(data []byte) ([]byte, syscall.Errno) {
	r, errno := decodeGetStatus(data)
	if errno != 0 {
		return nil, errno
	}
	value, ok := c.service.cfg.Store.Get(r.key, r.node)
	if !ok {
		return nil, syscall.ENOENT
	}
	return value, 0
}

func (c *client) getConfig(data []byte) ([]byte, syscall.Errno) {
	path, errno := decodeGetConfig(data)
	if errno != 0 {
		return nil, errno
	}
	if c.access != Full && memdb.IsPrivate(path) {
		return nil, syscall.EPERM
	}
	if path == "" || notInDatabase(path) {
		return nil, syscall.ENOENT
	}
	content, ok := readFile(c.service.cfg.Tree, path)
	if !ok {
		return nil, syscall.ENOENT
	}
	return content, 0
}

func (c *client) log(data []byte) syscall.Errno {
	if c.access != Full {
		return syscall.EPERM
	}
	m, errno := decodeLog(data)
	if errno != 0 {
		return errno
	}
	if m.Priority > maxPriority {
		return 0 // clients count on no error, and nothing logged
	}
	m.PID = uint32(c.peer.PID)
	c.service.cfg.Store.Log(m)
	return 0
}

func (c *client) properties(r guestProps, errno syscall.Errno) ([]byte, syscall.Errno) {
	if errno != 0 {
		return nil, errno
	}
	s := c.service
	if r.vmid == 0 {
		return s.props.all(s.cfg.Tree, r.props), 0
	}
	g, ok := findGuest(s.cfg.Tree, r.vmid)
	if !ok {
		return nil, syscall.ENOENT
	}
	return oneGuest(g, r.props), 0
}

func (c *client) verifyToken(data []byte) syscall.Errno {
	token, errno := decodeVerifyToken(data)
	if errno != 0 {
		return errno
	}
	file, ok := readFile(c.service.cfg.Tree, tokenFile)
	if !ok || !hasToken(file, token) {
		return syscall.ENOENT
	}
	return 0
}
