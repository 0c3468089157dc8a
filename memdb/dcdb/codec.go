package dcdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"pmxcfs/memdb"
)

// GroupName is the process group of the configuration database. (What corosync
// is given ends in a NUL byte.)
const GroupName = "pve_dcdb_v1"

// ProtocolVersion is the version that the group speaks.
const ProtocolVersion = 1

// Subtypes of the group's normal messages. 1 to 6 are memdb's kinds of
// operation.
const (
	msgUnlockRequest = 7
	msgUnlock        = 8
)

// An operation is laid out, little-endian, as u32 size of the data, u32 offset,
// u32 length of path, u32 length of to, u32 flags, path, to, data. A length
// counts the NUL at the end; 0 stands for no string.
const opHeader = 20

// An unlock request and an unlock are laid out as the digest of the lock's entry
// and its path, which ends in NUL.
const unlockHeader = memdb.DigestSize

// An update is laid out as u64 parent, inode, version, u32 writer, mtime, size,
// u32 length of the name, its NUL counted, u8 type, name, content of a file.
const updateHeader = 41

// malformedError describes the fault of a message.
type malformedError struct{ what string }

func (e *malformedError) Error() string { return "dcdb: malformed message: " + e.what }

func malformed(format string, args ...any) error {
	return &malformedError{fmt.Sprintf(format, args...)}
}

// encodeOp returns the payload of the message for op. Path and To must hold no
// NUL byte.
func encodeOp(op *memdb.Op) []byte {
	data := op.Data
	var offset, flags uint32
	to := ""
	switch op.Kind {
	case memdb.OpWrite:
		offset = op.Offset
		if op.Truncate {
			flags = 1
		}
	case memdb.OpMTime:
		offset, data = op.MTime, nil
	case memdb.OpRename:
		to, data = op.To, nil
	default:
		data = nil
	}
	b := make([]byte, 0, opHeader+len(op.Path)+1+len(to)+1+len(data))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint32(b, offset)
	b = binary.LittleEndian.AppendUint32(b, stringSize(op.Path))
	b = binary.LittleEndian.AppendUint32(b, stringSize(to))
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = appendString(b, op.Path)
	b = appendString(b, to)
	return append(b, data...)
}

func stringSize(s string) uint32 {
	if s == "" {
		return 0
	}
	return uint32(len(s)) + 1
}

func appendString(b []byte, s string) []byte {
	if s == "" {
		return b
	}
	return append(append(b, s...), 0)
}

// decodeOp reads an operation of the given kind (1 to 6). Its time is the one
// that an mtime sets; else that, the writer and the clock are left to the
// caller. Data refers to b.
func decodeOp(kind memdb.Kind, b []byte) (*memdb.Op, error) {
	if len(b) < opHeader {
		return nil, malformed("%v of %d bytes", kind, len(b))
	}
	var n [5]uint32
	for i := range n {
		n[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	size, offset, pathLen, toLen, flags := n[0], n[1], n[2], n[3], n[4]
	b = b[opHeader:]
	if uint64(pathLen)+uint64(toLen)+uint64(size) != uint64(len(b)) {
		return nil, malformed("%v of %d bytes announces %d+%d+%d", kind, len(b), pathLen, toLen, size)
	}
	path, err := cleanPath(b[:pathLen])
	if err != nil {
		return nil, err
	}
	to, err := cleanPath(b[pathLen : pathLen+toLen])
	if err != nil {
		return nil, err
	}
	op := &memdb.Op{Kind: kind, Path: path}
	switch kind {
	case memdb.OpWrite:
		op.Data, op.Offset, op.Truncate = b[pathLen+toLen:], offset, flags != 0
	case memdb.OpRename:
		op.To = to
	case memdb.OpMTime:
		op.MTime = offset
	}
	return op, nil
}

// cString reads a string that ends in NUL. Like everybody who takes it for a C
// string, it ends it at the first one.
func cString(b []byte) (string, error) {
	switch {
	case len(b) == 0:
		return "", nil
	case b[len(b)-1] != 0:
		return "", malformed("a string without an end")
	}
	return string(b[:bytes.IndexByte(b, 0)]), nil
}

// cleanPath reads a path, which a peer may write with slashes that mean nothing.
func cleanPath(b []byte) (string, error) {
	path, err := cString(b)
	return memdb.CleanPath(path), err
}

// encodeUnlock returns the payload of an unlock request or an unlock.
func encodeUnlock(path string, digest memdb.Digest) []byte {
	b := append(make([]byte, 0, unlockHeader+len(path)+1), digest[:]...)
	return append(append(b, path...), 0)
}

// decodeUnlock reads an unlock request or an unlock.
func decodeUnlock(b []byte) (path string, digest memdb.Digest, err error) {
	if len(b) <= unlockHeader {
		return "", digest, malformed("unlock of %d bytes", len(b))
	}
	copy(digest[:], b)
	path, err = cleanPath(b[unlockHeader:])
	return path, digest, err
}

// appendUpdate adds the payload of an update for e to b.
func appendUpdate(b []byte, e *memdb.Entry) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.Parent)
	b = binary.LittleEndian.AppendUint64(b, e.Inode)
	b = binary.LittleEndian.AppendUint64(b, e.Version)
	b = binary.LittleEndian.AppendUint32(b, e.Writer)
	b = binary.LittleEndian.AppendUint32(b, e.MTime)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Size()))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Name))+1)
	b = append(b, byte(e.Type))
	b = append(append(b, e.Name...), 0)
	return append(b, e.Data()...)
}

// decodeUpdate reads an update. Whether the entry has a place in a tree shows
// when that is built.
func decodeUpdate(b []byte) (*memdb.Entry, error) {
	if len(b) < updateHeader {
		return nil, malformed("update of %d bytes", len(b))
	}
	le := binary.LittleEndian
	size, nameLen := le.Uint32(b[32:]), le.Uint32(b[36:])
	typ := memdb.Type(b[40])
	switch typ {
	case memdb.TypeFile:
	case memdb.TypeDir:
		if size != 0 {
			return nil, malformed("update of a directory of %d bytes", size)
		}
	default:
		return nil, malformed("update of type %d", typ)
	}
	if rest := uint64(len(b) - updateHeader); nameLen == 0 || uint64(nameLen)+uint64(size) != rest {
		return nil, malformed("update with a name of %d and content of %d bytes in %d", nameLen, size, rest)
	}
	name, err := cString(b[updateHeader : updateHeader+nameLen])
	if err != nil {
		return nil, err
	}
	data := bytes.Clone(b[updateHeader+nameLen:]) // or the entry would keep the whole message
	return memdb.NewEntry(le.Uint64(b[8:]), le.Uint64(b), le.Uint64(b[16:]),
		le.Uint32(b[24:]), le.Uint32(b[28:]), typ, name, data), nil
}

// sendable reports whether a path can be told to the others.
func sendable(path string) bool { return strings.IndexByte(path, 0) < 0 }

// postKey has one request to break a lock be enough, however often it is asked for.
func postKey(subtype uint16, payload []byte) string {
	if subtype == msgUnlockRequest {
		return string(payload)
	}
	return ""
}
