package qb

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

// bodyLength checks the length that a request claims in its header against
// what arrived and what the connection can carry, and returns the length of what
// follows the header. arrived is -1 if it is not known.
func bodyLength(claimed, arrived, bufferSize int64) (n int, ok bool) {
	switch {
	case claimed < RequestHeader, claimed > bufferSize:
		return 0, false
	case arrived >= 0 && claimed > arrived:
		return 0, false
	}
	return int(claimed - RequestHeader), true
}
