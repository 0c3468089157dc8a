package clusterlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// ErrEntry is wrapped by the error about bytes that are not an entry.
var ErrEntry = errors.New("clusterlog: malformed entry")

// Message is what a client of this node wants in the cluster log.
type Message struct {
	// Priority is a syslog priority, 0 (emergency) to 7 (debug).
	Priority uint8
	// PID is the client's process id.
	PID uint32
	// Ident is the user, Tag the program. Each ends at its first NUL, and is
	// cut to 254 bytes.
	Ident, Tag string
	// Text may be anything; it is made ASCII and cut so that the entry has
	// at most MaxEntrySize bytes.
	Text string
}

// Entry is one entry of the cluster log in its binary form. The zero value is
// not an entry: one comes from pack, ParseEntry or ParseRing, which vouch for
// its layout. It may share the memory it was parsed from; whoever keeps it
// beyond that memory's use clones it.
type Entry struct {
	raw []byte // exactly overhead and strings; prev and next are meaningless
}

// pack makes an entry with its own memory, prev and next 0, zero padding.
func pack(m Message, node string, uid, time uint32) Entry {
	node, ident, tag := cutName(node), cutName(m.Ident), cutName(m.Tag)
	names := len(node) + len(ident) + len(tag) + 3
	text := asciiText(m.Text, MaxEntrySize-entryOverhead-names-1)

	raw := make([]byte, entryOverhead+names+len(text)+1)
	le.PutUint32(raw[entryUIDOff:], uid)
	le.PutUint32(raw[entryTimeOff:], time)
	le.PutUint64(raw[entryNodeDigestOff:], Digest(node))
	le.PutUint64(raw[entryIdentDigestOff:], Digest(ident))
	le.PutUint32(raw[entryPIDOff:], m.PID)
	raw[entryPriorityOff] = m.Priority
	raw[entryNodeLenOff] = byte(len(node) + 1)
	raw[entryIdentLenOff] = byte(len(ident) + 1)
	raw[entryTagLenOff] = byte(len(tag) + 1)
	le.PutUint32(raw[entryMessageLenOff:], uint32(len(text)+1))
	at := entryStringsOff
	for _, s := range [...]string{node, ident, tag, text} {
		at += copy(raw[at:], s) + 1
	}
	return Entry{raw}
}

// cutName brings a node, ident or tag into the bounds of an entry.
func cutName(s string) string {
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return s[:min(len(s), maxName)]
}

// ParseEntry checks b, which must hold one entry and nothing else: the payload
// of a log message. prev, next and the padding may have any content. The entry
// shares b's memory. The error wraps ErrEntry.
func ParseEntry(b []byte) (Entry, error) {
	size, err := entrySize(b)
	if err != nil {
		return Entry{}, err
	}
	if size != len(b) {
		return Entry{}, fmt.Errorf("%w: %d bytes, its lengths add up to %d", ErrEntry, len(b), size)
	}
	return Entry{b}, nil
}

// entrySize checks the entry at the start of b and gives its size without
// alignment.
func entrySize(b []byte) (int, error) {
	if len(b) < minEntrySize {
		return 0, fmt.Errorf("%w: %d bytes", ErrEntry, len(b))
	}
	lengths := [...]uint32{
		uint32(b[entryNodeLenOff]),
		uint32(b[entryIdentLenOff]),
		uint32(b[entryTagLenOff]),
		le.Uint32(b[entryMessageLenOff:]),
	}
	limit := min(len(b), MaxEntrySize) - entryPadding
	at := entryStringsOff
	for i, n := range lengths {
		if int64(n) > int64(limit-at) {
			return 0, fmt.Errorf("%w: string %d of %d bytes leaves it", ErrEntry, i, n)
		}
		at += int(n)
		if n == 0 || b[at-1] != 0 {
			return 0, fmt.Errorf("%w: string %d does not end in a NUL", ErrEntry, i)
		}
	}
	return at + entryPadding, nil
}

// UID is the number of the entry at its node, from 1 at the daemon's start.
func (e Entry) UID() uint32 { return le.Uint32(e.raw[entryUIDOff:]) }

// Time is when the entry was made by its node's clock, in seconds since 1970.
func (e Entry) Time() uint32 { return le.Uint32(e.raw[entryTimeOff:]) }

// NodeDigest is the Digest of the node's name, as the entry states it.
func (e Entry) NodeDigest() uint64 { return le.Uint64(e.raw[entryNodeDigestOff:]) }

// IdentDigest is the Digest of the ident, as the entry states it.
func (e Entry) IdentDigest() uint64 { return le.Uint64(e.raw[entryIdentDigestOff:]) }

// PID is the process id of the client that logged the entry.
func (e Entry) PID() uint32 { return le.Uint32(e.raw[entryPIDOff:]) }

// Priority is a syslog priority; from a peer it may be above 7.
func (e Entry) Priority() uint8 { return e.raw[entryPriorityOff] }

// Node, Ident, Tag and Text give the entry's strings, up to the first NUL,
// in the entry's memory. Text is in the form described at Message.Text.
func (e Entry) Node() []byte  { return e.text(0) }
func (e Entry) Ident() []byte { return e.text(1) }
func (e Entry) Tag() []byte   { return e.text(2) }
func (e Entry) Text() []byte  { return e.text(3) }

func (e Entry) text(i int) []byte {
	at := entryStringsOff
	for k := range i {
		at += int(e.raw[entryNodeLenOff+k])
	}
	end := len(e.raw) - entryPadding
	if i < 3 {
		end = at + int(e.raw[entryNodeLenOff+i])
	}
	s := e.raw[at:end]
	return s[:bytes.IndexByte(s, 0)]
}

// key tells entries apart and orders them.
type key struct {
	time uint32
	node uint64
	uid  uint32
}

func (e Entry) key() key { return key{e.Time(), e.NodeDigest(), e.UID()} }

// compare is the order of entries: time, then node digest, then uid. (The
// stock daemon compares signed differences, which orders entries more than 68
// years apart the other way.)
func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.time, o.time), cmp.Compare(k.node, o.node), cmp.Compare(k.uid, o.uid))
}
