package qb

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// Sizes of libqb's message headers (qbipc_common.h): each field is an int32 aligned to
// 8 bytes.
const (
	// RequestHeader is the length in bytes of a request's header: id, size.
	RequestHeader = 16
	// ResponseHeader is the length in bytes of a response's header: id, size, error.
	ResponseHeader = 24
)

// DefaultBufferSize is the largest message, header included, that both sides agree on
// if nothing else is asked for.
const DefaultBufferSize = 1 << 20

// Ids of messages that are no requests (qbipc_common.h).
const (
	idAuthenticate = -1
	idDisconnect   = -3
)

// bodyLength checks the length that a request claims in its header against
// what arrived and what the connection can carry, and returns the length of what
// follows the header.
func bodyLength(claimed, arrived, bufferSize int64) (n int, ok bool) {
	if claimed < RequestHeader || claimed > bufferSize || claimed > arrived {
		return 0, false
	}
	return int(claimed - RequestHeader), true
}

// The handshake: the client's first message is a request header and the size of the
// buffers that it wants; the answer is a response header, the kind of transport, the size of
// the buffers, a pointer that means nothing to the client, and the names of the three rings.
const (
	helloSize = RequestHeader + 8
	pathSize  = 4096 // PATH_MAX

	welcomeType   = ResponseHeader     // i32
	welcomeBuffer = ResponseHeader + 4 // u32
	welcomePaths  = ResponseHeader + 16
	welcomeSize   = welcomePaths + 3*pathSize

	transportSHM = 1 // QB_IPC_SHM
)

// decodeHello returns the size of the buffers that a client asks for.
func decodeHello(b *[helloSize]byte) (bufferSize uint32, err error) {
	id, size := int32(binary.NativeEndian.Uint32(b[0:])), binary.NativeEndian.Uint32(b[8:])
	if id != idAuthenticate || size != helloSize {
		return 0, fmt.Errorf("a first message with id %d of %d bytes: %w", id, size, syscall.EPROTO)
	}
	return binary.NativeEndian.Uint32(b[RequestHeader:]), nil
}

// encodeWelcome answers a hello. base(i) is the name of ring i.
func encodeWelcome(errno syscall.Errno, bufferSize int, base func(ring) string) []byte {
	b := make([]byte, welcomeSize)
	putResponseHeader(b, idAuthenticate, welcomeSize, errno)
	if errno != 0 {
		return b
	}
	binary.NativeEndian.PutUint32(b[welcomeType:], transportSHM)
	binary.NativeEndian.PutUint32(b[welcomeBuffer:], uint32(bufferSize))
	for r := range rings {
		copy(b[welcomePaths+int(r)*pathSize:][:pathSize-1], base(r))
	}
	return b
}

func putResponseHeader(b []byte, id int32, size int, errno syscall.Errno) {
	binary.NativeEndian.PutUint32(b[0:], uint32(id))
	binary.NativeEndian.PutUint32(b[8:], uint32(size))
	binary.NativeEndian.PutUint32(b[16:], uint32(-int32(errno)))
}
