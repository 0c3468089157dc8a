package qb

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is one client's connection. It belongs to its goroutine, which reads a request, has it
// answered, and only then reads the next.
type conn struct {
	server  *Server
	socket  *net.UnixConn
	peer    Peer
	handler Handler
	files   *files

	waiting int    // requests that the client has told of and nobody has read
	bells   []byte // what it tells with
	buf     []byte // the request
}

// Between two attempts to send a reply for which the ring has no room.
const (
	firstRetry = time.Millisecond
	lastRetry  = 100 * time.Millisecond
)

// keptBuffer is the length in bytes up to which a request's buffer is kept for the next.
const keptBuffer = 8 << 10

// serve answers requests until the client is gone. The error is nil if it went in good order.
func (c *conn) serve() error {
	c.bells = make([]byte, 64)
	c.buf = make([]byte, keptBuffer)
	for {
		for ; c.waiting > 0; c.waiting-- {
			if err := c.serveOne(); err != nil {
				return err
			}
		}
		if err := c.listen(); err != nil {
			return err
		}
	}
}

// listen waits for requests, or until the socket's deadline. A client sends a byte for each after
// it has put it into the ring.
func (c *conn) listen() error {
	n, err := c.socket.Read(c.bells)
	c.waiting += n
	switch {
	case n > 0:
		if c.waiting > int(c.files.reader.words)/chunkWords {
			return errCorrupt // so many don't fit
		}
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return io.EOF // however it went
}

func (c *conn) serveOne() error {
	chunk, err := c.files.reader.next(c.buf)
	if err != nil {
		return err
	}
	if len(chunk) < RequestHeader {
		return errCorrupt
	}
	id := int32(binary.NativeEndian.Uint32(chunk))
	claimed := int32(binary.NativeEndian.Uint32(chunk[8:]))
	if id == idDisconnect {
		return io.EOF
	}
	n, ok := bodyLength(int64(claimed), int64(len(chunk)), int64(c.server.cfg.BufferSize))
	if !ok {
		return c.send(id, nil, syscall.EINVAL)
	}
	reply, errno := c.handler.Serve(id, chunk[RequestHeader:][:n:n])
	return c.send(id, reply, errno)
}

// send writes a reply into the response ring, waiting for room if there is none.
func (c *conn) send(id int32, data []byte, errno syscall.Errno) error {
	if errno == 0 && len(data) > c.server.cfg.BufferSize-ResponseHeader {
		errno = syscall.EMSGSIZE
	}
	if errno != 0 {
		data = nil
	}
	var head [ResponseHeader]byte
	putResponseHeader(head[:], id, ResponseHeader+len(data), errno)
	err := c.files.writer.write(head[:], data)
	if err != errFull {
		return err
	}
	return c.sendLate(head[:], data)
}

// sendLate tries again to send a reply until there is room.
func (c *conn) sendLate(head, data []byte) error {
	defer c.socket.SetReadDeadline(time.Time{})
	since := time.Now()
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		// The next request, if there is one, doesn't cut the wait short for long: few
		// fit into the ring.
		c.socket.SetReadDeadline(time.Now().Add(delay))
		if err := c.listen(); err != nil {
			return err
		}
		if err := c.files.writer.write(head, data); err != errFull {
			return err
		}
		if time.Since(since) >= c.server.cfg.SlowLimit {
			return errSlow
		}
	}
}
