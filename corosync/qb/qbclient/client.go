package qbclient

// #cgo pkg-config: libqb
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"pmxcfs/corosync/qb"
)

// Errors of a Client, beside the errno of a refused connection.
var (
	// ErrTimeout: no answer in time. If the request was sent, the client can't be used
	// any more, as the late answer would be taken for the next request's.
	ErrTimeout = errors.New("qbclient: no answer in time")
	// ErrDisconnected: the server is gone, or the client was closed or timed out before.
	ErrDisconnected = errors.New("qbclient: not connected")
)

// A ResponseError is the error field of a response: the server's answer to the
// request. errors.Is finds its errno.
type ResponseError struct {
	ID    int32 // of the request
	Errno syscall.Errno
}

func (e *ResponseError) Error() string {
	return fmt.Sprintf("qbclient: request %d: %v", e.ID, e.Errno)
}

// Unwrap returns the errno.
func (e *ResponseError) Unwrap() error { return e.Errno }

// A Client is a connection to a libqb service. Its methods may be called from any
// goroutine; requests go one after the other.
type Client struct {
	closing *int32 // set when Close waits, or is through; bridge.c looks at it

	mu   sync.Mutex              // guards all below
	conn *C.qb_ipcc_connection_t // nil means closed
	buf  unsafe.Pointer          // C memory of size bytes, for responses
	size int
	dead bool
}

// connectLimit is how long a server may take to answer a new client.
const connectLimit = 10 * time.Second

// Dial connects to the service of that name on this host. The error wraps the errno:
// ECONNREFUSED if there is none, ETIMEDOUT if it doesn't answer within 10 s, else what
// the server refused it with.
//
//	qb_ipcc_connection_t *qb_ipcc_connect_async(const char *name, size_t max_msg_size, int *connect_fd);
//	int qb_ipcc_connect_continue(struct qb_ipcc_connection *c);
func Dial(name string) (*Client, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var conn *C.qb_ipcc_connection_t
	for deadline := time.Now().Add(connectLimit); ; time.Sleep(time.Millisecond) {
		var cerr C.int
		// The server enforces at least its own size; 0 leaves it the choice.
		conn = C.bridge_connect(cname, 0, C.int32_t(connectLimit.Milliseconds()), &cerr)
		errno := syscall.Errno(cerr)
		if errno == 0 {
			break
		}
		if errno == syscall.EINPROGRESS {
			if time.Now().Before(deadline) {
				continue
			}
			errno = syscall.ETIMEDOUT
		}
		return nil, fmt.Errorf("qbclient: connect to %q: %w", name, errno)
	}
	size := int(C.qb_ipcc_get_buffer_size(conn))
	if size < qb.ResponseHeader {
		C.qb_ipcc_disconnect(conn)
		return nil, fmt.Errorf("qbclient: connect to %q: buffer of %d bytes: %w", name, size, syscall.EPROTO)
	}
	return &Client{closing: new(int32), conn: conn, buf: C.malloc(C.size_t(size)), size: size}, nil
}

// SendRecv sends a request and returns what follows the header of its response. A
// timeout of 0 or less is none. The errors are ErrTimeout, ErrDisconnected, a
// *ResponseError, or one that wraps libqb's errno (EMSGSIZE: data is too long).
//
//	ssize_t qb_ipcc_sendv(qb_ipcc_connection_t *c, const struct iovec *iov, size_t iov_len);
//	ssize_t qb_ipcc_recv(qb_ipcc_connection_t *c, void *msg_ptr, size_t msg_len, int32_t ms_timeout);
func (c *Client) SendRecv(id int32, data []byte, timeout time.Duration) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || c.dead || c.isClosing() {
		return nil, ErrDisconnected
	}
	rc, err := c.call(id, data, timeout)
	if err != nil {
		return nil, err
	}
	n := rc
	if n < qb.ResponseHeader {
		c.dead = true
		return nil, fmt.Errorf("qbclient: request %d: response of %d bytes: %w", id, n, syscall.EPROTO)
	}
	msg := unsafe.Slice((*byte)(c.buf), n)
	if errno := int32(binary.NativeEndian.Uint32(msg[16:])); errno != 0 {
		return nil, &ResponseError{ID: id, Errno: syscall.Errno(-errno)}
	}
	return append([]byte{}, msg[qb.ResponseHeader:]...), nil
}

// call makes the exchange and returns the length of the response in buf.
func (c *Client) call(id int32, data []byte, timeout time.Duration) (int, error) {
	deadline := time.Now().Add(timeout)
	for {
		ms := C.int32_t(-1)
		if timeout > 0 {
			ms = C.int32_t(min(max(time.Until(deadline).Milliseconds(), 1), 1<<30))
		}
		rc := C.bridge_call(c.conn, C.int32_t(id),
			(*C.char)(unsafe.Pointer(unsafe.SliceData(data))), C.size_t(len(data)),
			c.buf, C.size_t(c.size), ms, (*C.int32_t)(unsafe.Pointer(c.closing)))
		if rc >= 0 {
			return int(rc), nil
		}
		errno := syscall.Errno(-rc)
		switch {
		case errno == syscall.EMSGSIZE:
			return 0, fmt.Errorf("qbclient: request %d: %w", id, errno)
		case C.qb_ipcc_is_connected(c.conn) == 0, c.isClosing():
			c.dead = true
			return 0, ErrDisconnected
		case errno == syscall.EAGAIN && (timeout <= 0 || time.Now().Before(deadline)):
			// Not sent: a server may answer before it gives the room of the last
			// request back, and two large ones don't fit.
			time.Sleep(100 * time.Microsecond)
			continue
		case errno == syscall.EAGAIN:
			return 0, ErrTimeout // never sent, so nothing can come late
		case errno == syscall.ETIMEDOUT:
			c.dead = true
			return 0, ErrTimeout
		case errno == syscall.ENOTCONN, errno == syscall.EPIPE, errno == syscall.ECONNRESET:
			c.dead = true
			return 0, ErrDisconnected
		default:
			c.dead = true
			return 0, fmt.Errorf("qbclient: request %d: %w", id, errno)
		}
	}
}

func (c *Client) isClosing() bool { return atomic.LoadInt32(c.closing) != 0 }

// BufferSize returns the largest message in bytes, header included, that the
// connection carries.
func (c *Client) BufferSize() int { return c.size }

// Close disconnects. A SendRecv that waits returns ErrDisconnected within 100 ms. It may be
// called more than once.
//
//	void qb_ipcc_disconnect(qb_ipcc_connection_t *c);
func (c *Client) Close() {
	atomic.StoreInt32(c.closing, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return
	}
	C.qb_ipcc_disconnect(c.conn)
	C.free(c.buf)
	c.conn, c.buf = nil, nil
}
