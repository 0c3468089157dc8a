package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type is the kind of a message (the DFSM protocol, "Framing"). Values beyond
// the named ones may arrive from a peer; they carry an epoch like everything
// that is not Normal.
type Type uint16

// The message types, by their numbers on the wire.
const (
	Normal         Type = 0 // an application's message
	SyncStart      Type = 1 // the lowest node asks everyone for its state
	State          Type = 2 // a member's state
	Update         Type = 3 // a piece of what the members that are behind lack
	UpdateComplete Type = 4 // nothing more follows: commit
	VerifyRequest  Type = 5 // everyone shall compute its checksum now
	Verify         Type = 6 // the requester's checksum
)

var typeNames = [...]string{"normal", "sync-start", "state", "update", "update-complete", "verify-request", "verify"}

// String names the type as the protocol's description does.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type-%d", uint16(t))
}

// Offsets and sizes in bytes.
const (
	// HeaderSize is what every message begins with.
	HeaderSize = 16
	// NormalHeaderSize is the header of a Normal message: HeaderSize and the
	// count.
	NormalHeaderSize = 24
	// EpochHeaderSize is the header of any other message: HeaderSize and the
	// epoch.
	EpochHeaderSize = 32
	// ChecksumSize is the length of the checksum in a Verify message.
	ChecksumSize = 32

	verifyRequestSize = 8
	verifySize        = 8 + ChecksumSize
)

var (
	// ErrShort says that a message ends before its header does.
	ErrShort = errors.New("wire: message shorter than its header")
	// ErrShortVerify says that a verification message lacks its id or
	// checksum.
	ErrShortVerify = errors.New("wire: verification message too short")
)

// Epoch identifies one run of state synchronisation: the Counter of view
// changes and the clock of the member that started it, and that member. The
// zero Epoch names no run.
type Epoch struct {
	Counter uint32
	Time    uint32 // seconds since 1970, the starter's clock
	NodeID  uint32
	PID     uint32
}

// String formats the epoch as administrators know it from the log: node id,
// pid and the counter in eight hexadecimal digits.
func (e Epoch) String() string { return fmt.Sprintf("%d/%d/%08X", e.NodeID, e.PID, e.Counter) }

// Header is what every message begins with.
type Header struct {
	Type    Type
	Subtype uint16 // the application's message type in a Normal message, else 0
	Version uint32 // of the protocol that the group speaks
	Time    uint32 // seconds since 1970, the sender's clock
}

// Message is one message. Count is meaningful in a Normal one, Epoch in all
// others.
type Message struct {
	Header
	Count   uint64 // the sender's counter of its Normal messages, from 1
	Epoch   Epoch
	Payload []byte // of a decoded message: a part of the bytes decoded
}

// DecodeHeader reads the part that all types and all protocol versions share.
// It fails with ErrShort only.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, ErrShort
	}
	return Header{
		Type:    Type(binary.LittleEndian.Uint16(b[0:])),
		Subtype: binary.LittleEndian.Uint16(b[2:]),
		Version: binary.LittleEndian.Uint32(b[4:]),
		Time:    binary.LittleEndian.Uint32(b[8:]),
	}, nil
}

// Decode reads one message. Payload refers to b. It fails with ErrShort only:
// whether type, version, epoch and payload make sense is the machine's and the
// application's to judge. The reserved field is not looked at.
func Decode(b []byte) (Message, error) {
	h, err := DecodeHeader(b)
	if err != nil {
		return Message{}, err
	}
	return h.Decode(b)
}

// Decode is the function Decode for a message of which h is the header: what follows
// it depends on the version.
func (h Header) Decode(b []byte) (Message, error) {
	m := Message{Header: h}
	if h.Type == Normal {
		if len(b) < NormalHeaderSize {
			return Message{}, ErrShort
		}
		m.Count = binary.LittleEndian.Uint64(b[16:])
		m.Payload = b[NormalHeaderSize:]
		return m, nil
	}
	if len(b) < EpochHeaderSize {
		return Message{}, ErrShort
	}
	m.Epoch = Epoch{
		Counter: binary.LittleEndian.Uint32(b[16:]),
		Time:    binary.LittleEndian.Uint32(b[20:]),
		NodeID:  binary.LittleEndian.Uint32(b[24:]),
		PID:     binary.LittleEndian.Uint32(b[28:]),
	}
	m.Payload = b[EpochHeaderSize:]
	return m, nil
}

// Size is the number of bytes that Append adds.
func (m *Message) Size() int {
	if m.Type == Normal {
		return NormalHeaderSize + len(m.Payload)
	}
	return EpochHeaderSize + len(m.Payload)
}

// Append adds the encoded message to dst and returns the extended slice. The
// payload is copied.
func (m *Message) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, uint16(m.Type))
	dst = le.AppendUint16(dst, m.Subtype)
	dst = le.AppendUint32(dst, m.Version)
	dst = le.AppendUint32(dst, m.Time)
	dst = le.AppendUint32(dst, 0)
	if m.Type == Normal {
		dst = le.AppendUint64(dst, m.Count)
	} else {
		dst = le.AppendUint32(dst, m.Epoch.Counter)
		dst = le.AppendUint32(dst, m.Epoch.Time)
		dst = le.AppendUint32(dst, m.Epoch.NodeID)
		dst = le.AppendUint32(dst, m.Epoch.PID)
	}
	return append(dst, m.Payload...)
}

// Encode returns the message in bytes of its own.
func (m *Message) Encode() []byte { return m.Append(make([]byte, 0, m.Size())) }

// AppendVerifyRequest adds the payload of a VerifyRequest: the requester's id
// for this verification.
func AppendVerifyRequest(dst []byte, id uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, id)
}

// DecodeVerifyRequest reads the payload of a VerifyRequest. It fails with
// ErrShortVerify only.
func DecodeVerifyRequest(payload []byte) (id uint64, err error) {
	if len(payload) < verifyRequestSize {
		return 0, ErrShortVerify
	}
	return binary.LittleEndian.Uint64(payload), nil
}

// AppendVerify adds the payload of a Verify: the id of the request and the
// requester's checksum.
func AppendVerify(dst []byte, id uint64, sum [ChecksumSize]byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, id)
	return append(dst, sum[:]...)
}

// DecodeVerify reads the payload of a Verify. It fails with ErrShortVerify
// only.
func DecodeVerify(payload []byte) (id uint64, sum [ChecksumSize]byte, err error) {
	if len(payload) < verifySize {
		return 0, sum, ErrShortVerify
	}
	copy(sum[:], payload[8:])
	return binary.LittleEndian.Uint64(payload), sum, nil
}
