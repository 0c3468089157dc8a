package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// GroupName is the process group's name.
const GroupName = "pmxcfs_inspect_v1"

// protocolVersion is that of the messages. What has another one is ignored: it is
// for a daemon that speaks that, too.
const protocolVersion = 1

// A message is a header and a body. Integers are little-endian.
const (
	magic      = 0x6978_6d70 // "pmxi"
	headerSize = 24

	magicOff   = 0  // u32
	versionOff = 4  // u16
	kindOff    = 6  // u16
	idOff      = 8  // u64: of the question, 0 in a state
	nodeOff    = 16 // u32: who asked; of a question: who is asked, 0 for all
	pidOff     = 20 // u32
)

// kind says what a message is.
type kind uint16

// Questions are even, their answers one more.
const (
	kindState       kind = 1
	kindAskSnapshot kind = 2
	kindSnapshot    kind = 3
	kindAskRanges   kind = 4
	kindRanges      kind = 5
	kindAskEntries  kind = 6
	kindEntries     kind = 7
	kindAskDetails  kind = 8
	kindDetails     kind = 9
)

func (k kind) question() bool { return k >= kindAskSnapshot && k <= kindAskDetails && k%2 == 0 }

// Bounds of messages.
const (
	maxMessage  = 1 << 20 // bytes; more than any below
	maxRanges   = 1024    // in a question for ranges
	maxSpans    = 64      // in a question for entries
	maxEntries  = 16384   // in an answer
	maxDetails  = 200     // in a question
	maxName     = 255     // bytes of a node's name, or of a version's
	maxPath     = 2048    // bytes of a path; what is longer is cut at the front
	shortDigest = 16      // bytes of the digests of ranges and entries
)

type digest [shortDigest]byte

// header is a message's.
type header struct {
	kind kind
	id   uint64
	node uint32
	pid  uint32
}

// state is what a member tells of itself.
type state struct {
	version  uint64 // of its database
	time     int64  // of its clock, nanoseconds since 1970
	mode     uint8  // dfsm.Mode of its database's group
	quorate  bool
	node     string
	software string
}

// askSnapshot asks to keep a state of the tree for the questions that follow under
// the same id: the first one of at least this version, or after a short while
// whichever is there.
type askSnapshot struct{ version uint64 }

// The results in a snapshot.
const (
	resultKept   = 0 // it is kept
	resultPassed = 1 // the tree was beyond the version already
	resultBusy   = 2 // too many are kept or asked for
)

// snapshot is what is kept.
type snapshot struct {
	result  uint8
	mode    uint8
	quorate bool
	version uint64
	entries uint32
	digest  [32]byte // of the index
}

// askRanges asks for the digests of ranges of inodes. A range begins with its
// bound and ends before the next one; the last one has no end.
type askRanges struct{ bounds []uint64 }

// rangeSum is one range of an answer.
type rangeSum struct {
	count uint32
	sum   digest
}

// askEntries asks for the entries of spans of inodes.
type askEntries struct{ spans []span }

// span is the inodes from first to last.
type span struct{ first, last uint64 }

// entrySum is one entry of an answer; entries come ascending by inode, and without
// those that did not fit: then the answer is cut.
type entrySum struct {
	inode uint64
	sum   digest
}

type entries struct {
	cut  bool
	list []entrySum
}

// askDetails asks what entries are.
type askDetails struct{ inodes []uint64 }

// detail is an entry.
type detail struct {
	inode   uint64
	parent  uint64
	version uint64
	writer  uint32
	mtime   uint32
	size    uint32
	typ     uint8
	hashed  bool // content is there
	content digest
	path    string
}

const (
	rangeSize  = 4 + shortDigest
	entrySize  = 8 + shortDigest
	detailSize = 3*8 + 3*4 + 1 + 1 + shortDigest + 2 // without the path
)

// errMalformed is wrapped by every error of decoding.
var errMalformed = errors.New("peers: malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...)
}

var le = binary.LittleEndian

// encoder puts a message together.
type encoder struct{ b []byte }

func newMessage(h header) *encoder {
	e := &encoder{make([]byte, 0, 64)}
	e.u32(magic)
	e.u16(protocolVersion)
	e.u16(uint16(h.kind))
	e.u64(h.id)
	e.u32(h.node)
	e.u32(h.pid)
	return e
}

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16) { e.b = le.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = le.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = le.AppendUint64(e.b, v) }
func (e *encoder) bytes(b []byte) {
	e.b = append(e.b, b...)
}
func (e *encoder) bool(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}
func (e *encoder) name(s string) {
	s = s[:min(len(s), maxName)]
	e.u8(uint8(len(s)))
	e.b = append(e.b, s...)
}

// decoder takes a message apart. After an error everything is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err == nil && n > len(d.b) {
		d.err = malformed("too short")
	}
	if d.err != nil {
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() uint8   { return d.take(1)[0] }
func (d *decoder) u16() uint16 { return le.Uint16(d.take(2)) }
func (d *decoder) u32() uint32 { return le.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return le.Uint64(d.take(8)) }
func (d *decoder) bool() bool {
	v := d.u8()
	if v > 1 && d.err == nil {
		d.err = malformed("%d is not a truth value", v)
	}
	return v == 1
}
func (d *decoder) digest() (s digest) { copy(s[:], d.take(shortDigest)); return s }
func (d *decoder) name() string       { return string(d.take(int(d.u8()))) }

// count reads how many elements of a size follow.
func (d *decoder) count(most, size int) int {
	n := d.u32()
	if d.err == nil && (n > uint32(most) || int(n)*size > len(d.b)) {
		d.err = malformed("%d elements in %d bytes", n, len(d.b))
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

// end returns the error; bytes that are left over are one.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = malformed("%d bytes too many", len(d.b))
	}
	return d.err
}

// errOther is the error about a message that is not for this version.
var errOther = errors.New("peers: a message of another protocol version")

// decodeHeader takes the header off a message; the body shares its memory.
func decodeHeader(b []byte) (header, []byte, error) {
	if len(b) < headerSize || len(b) > maxMessage || le.Uint32(b[magicOff:]) != magic {
		return header{}, nil, malformed("%d bytes", len(b))
	}
	if le.Uint16(b[versionOff:]) != protocolVersion {
		return header{}, nil, errOther
	}
	return header{
		kind: kind(le.Uint16(b[kindOff:])), id: le.Uint64(b[idOff:]),
		node: le.Uint32(b[nodeOff:]), pid: le.Uint32(b[pidOff:]),
	}, b[headerSize:], nil
}

func (s *state) encode(h header) []byte {
	h.kind = kindState
	e := newMessage(h)
	e.u64(s.version)
	e.u64(uint64(s.time))
	e.u8(s.mode)
	e.bool(s.quorate)
	e.name(s.node)
	e.name(s.software)
	return e.b
}

// decodeState allows more bytes at the end: what later versions add.
func decodeState(b []byte) (s state, err error) {
	d := &decoder{b: b}
	s.version = d.u64()
	s.time = int64(d.u64())
	s.mode = d.u8()
	s.quorate = d.bool()
	s.node = d.name()
	s.software = d.name()
	return s, d.err
}

func (a *askSnapshot) encode(h header) []byte {
	h.kind = kindAskSnapshot
	e := newMessage(h)
	e.u64(a.version)
	return e.b
}

func decodeAskSnapshot(b []byte) (a askSnapshot, err error) {
	d := &decoder{b: b}
	a.version = d.u64()
	return a, d.end()
}

func (s *snapshot) encode(h header) []byte {
	h.kind = kindSnapshot
	e := newMessage(h)
	e.u8(s.result)
	e.u8(s.mode)
	e.bool(s.quorate)
	e.u64(s.version)
	e.u32(s.entries)
	e.bytes(s.digest[:])
	return e.b
}

func decodeSnapshot(b []byte) (s snapshot, err error) {
	d := &decoder{b: b}
	s.result = d.u8()
	s.mode = d.u8()
	s.quorate = d.bool()
	s.version = d.u64()
	s.entries = d.u32()
	copy(s.digest[:], d.take(len(s.digest)))
	return s, d.end()
}

func (a *askRanges) encode(h header) []byte {
	h.kind = kindAskRanges
	e := newMessage(h)
	e.u32(uint32(len(a.bounds)))
	for _, b := range a.bounds {
		e.u64(b)
	}
	return e.b
}

func decodeAskRanges(b []byte) (a askRanges, err error) {
	d := &decoder{b: b}
	a.bounds = make([]uint64, d.count(maxRanges, 8))
	for i := range a.bounds {
		a.bounds[i] = d.u64()
		if i > 0 && a.bounds[i] <= a.bounds[i-1] && d.err == nil {
			d.err = malformed("the bounds do not ascend")
		}
	}
	if len(a.bounds) == 0 && d.err == nil {
		d.err = malformed("no bounds")
	}
	return a, d.end()
}

func encodeRanges(h header, list []rangeSum) []byte {
	h.kind = kindRanges
	e := newMessage(h)
	e.u32(uint32(len(list)))
	for i := range list {
		e.u32(list[i].count)
		e.bytes(list[i].sum[:])
	}
	return e.b
}

func decodeRanges(b []byte) ([]rangeSum, error) {
	d := &decoder{b: b}
	list := make([]rangeSum, d.count(maxRanges, rangeSize))
	for i := range list {
		list[i] = rangeSum{d.u32(), d.digest()}
	}
	return list, d.end()
}

func (a *askEntries) encode(h header) []byte {
	h.kind = kindAskEntries
	e := newMessage(h)
	e.u32(uint32(len(a.spans)))
	for _, s := range a.spans {
		e.u64(s.first)
		e.u64(s.last)
	}
	return e.b
}

func decodeAskEntries(b []byte) (a askEntries, err error) {
	d := &decoder{b: b}
	a.spans = make([]span, d.count(maxSpans, 16))
	for i := range a.spans {
		s := span{d.u64(), d.u64()}
		if d.err == nil && (s.last < s.first || i > 0 && s.first <= a.spans[i-1].last) {
			d.err = malformed("the spans do not ascend")
		}
		a.spans[i] = s
	}
	return a, d.end()
}

func (a *entries) encode(h header) []byte {
	h.kind = kindEntries
	e := newMessage(h)
	e.bool(a.cut)
	e.u32(uint32(len(a.list)))
	for i := range a.list {
		e.u64(a.list[i].inode)
		e.bytes(a.list[i].sum[:])
	}
	return e.b
}

func decodeEntries(b []byte) (a entries, err error) {
	d := &decoder{b: b}
	a.cut = d.bool()
	a.list = make([]entrySum, d.count(maxEntries, entrySize))
	for i := range a.list {
		a.list[i] = entrySum{d.u64(), d.digest()}
		if i > 0 && a.list[i].inode <= a.list[i-1].inode && d.err == nil {
			d.err = malformed("the inodes do not ascend")
		}
	}
	if a.cut && len(a.list) == 0 && d.err == nil {
		// Who asks looks for where it was cut.
		d.err = malformed("cut before the first entry")
	}
	return a, d.end()
}

func (a *askDetails) encode(h header) []byte {
	h.kind = kindAskDetails
	e := newMessage(h)
	e.u32(uint32(len(a.inodes)))
	for _, i := range a.inodes {
		e.u64(i)
	}
	return e.b
}

func decodeAskDetails(b []byte) (a askDetails, err error) {
	d := &decoder{b: b}
	a.inodes = make([]uint64, d.count(maxDetails, 8))
	for i := range a.inodes {
		a.inodes[i] = d.u64()
		if i > 0 && a.inodes[i] <= a.inodes[i-1] && d.err == nil {
			d.err = malformed("the inodes do not ascend")
		}
	}
	return a, d.end()
}

func encodeDetails(h header, list []detail) []byte {
	h.kind = kindDetails
	e := newMessage(h)
	e.u32(uint32(len(list)))
	for i := range list {
		t := &list[i]
		e.u64(t.inode)
		e.u64(t.parent)
		e.u64(t.version)
		e.u32(t.writer)
		e.u32(t.mtime)
		e.u32(t.size)
		e.u8(t.typ)
		e.bool(t.hashed)
		e.bytes(t.content[:])
		path := t.path[max(0, len(t.path)-maxPath):]
		e.u16(uint16(len(path)))
		e.bytes([]byte(path))
	}
	return e.b
}

func decodeDetails(b []byte) ([]detail, error) {
	d := &decoder{b: b}
	list := make([]detail, d.count(maxDetails, detailSize))
	for i := range list {
		t := &list[i]
		t.inode, t.parent, t.version = d.u64(), d.u64(), d.u64()
		t.writer, t.mtime, t.size = d.u32(), d.u32(), d.u32()
		t.typ = d.u8()
		t.hashed = d.bool()
		t.content = d.digest()
		n := int(d.u16())
		if n > maxPath && d.err == nil {
			d.err = malformed("a path of %d bytes", n)
		}
		t.path = string(d.take(min(n, maxPath)))
		if i > 0 && t.inode <= list[i-1].inode && d.err == nil {
			d.err = malformed("the inodes do not ascend")
		}
	}
	return list, d.end()
}
