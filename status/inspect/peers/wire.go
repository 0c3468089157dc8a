package peers

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// GroupName is the process group's name, and with it the version of its messages. Later
// versions may add fields and kinds of messages, which this one ignores; what changes the
// meaning of those below takes another group.
const GroupName = "pmxcfs_inspect_v2"

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
	maxPath     = 2048    // bytes of a path; a longer one is cut at the front
	shortDigest = 16      // bytes of the digests of ranges and entries
)

type digest [shortDigest]byte

// A message is the CBOR map (RFC 8949) of a header and a body.
type message[B any] struct {
	header
	Body B `cbor:"5,keyasint"`
}

type header struct {
	Kind kind   `cbor:"1,keyasint"`
	ID   uint64 `cbor:"2,keyasint,omitempty"` // of the question, 0 in a state
	Node uint32 `cbor:"3,keyasint,omitempty"` // who asked; of a question: who is asked, 0 for all
	PID  uint32 `cbor:"4,keyasint,omitempty"`
}

// body is the part of a message that depends on its kind.
type body interface {
	kind() kind
	check() error // what decoding alone does not refuse
}

// state is what a member tells of itself.
type state struct {
	Version  uint64 `cbor:"1,keyasint"` // of its database
	Time     int64  `cbor:"2,keyasint"` // of its clock, nanoseconds since 1970
	Mode     uint8  `cbor:"3,keyasint"` // dfsm.Mode of its database's group
	Quorate  bool   `cbor:"4,keyasint"`
	Node     string `cbor:"5,keyasint"`
	Software string `cbor:"6,keyasint"`
}

// askSnapshot asks to keep a state of the tree for the questions that follow under
// the same id: the first one of at least this version, or after a short while
// whichever is there.
type askSnapshot struct {
	Version uint64 `cbor:"1,keyasint"`
}

// The results in a snapshot.
const (
	resultKept   = 0 // it is kept
	resultPassed = 1 // the tree was beyond the version already
	resultBusy   = 2 // too many are kept or asked for
)

// snapshot is what is kept.
type snapshot struct {
	Result  uint8    `cbor:"1,keyasint"`
	Mode    uint8    `cbor:"2,keyasint"`
	Quorate bool     `cbor:"3,keyasint"`
	Version uint64   `cbor:"4,keyasint"`
	Entries uint32   `cbor:"5,keyasint"`
	Digest  [32]byte `cbor:"6,keyasint"` // of the index
}

// askRanges asks for the digests of ranges of inodes. A range begins with its
// bound and ends before the next one; the last one has no end.
type askRanges struct {
	Bounds []uint64 `cbor:"1,keyasint"`
}

type ranges struct {
	List []rangeSum `cbor:"1,keyasint"`
}

// rangeSum is one range of an answer.
type rangeSum struct {
	_     struct{} `cbor:",toarray"`
	Count uint32
	Sum   digest
}

// askEntries asks for the entries of spans of inodes.
type askEntries struct {
	Spans []span `cbor:"1,keyasint"`
}

// span is the inodes from first to last.
type span struct {
	_           struct{} `cbor:",toarray"`
	First, Last uint64
}

// entries come ascending by inode, and without those that did not fit: then the answer is
// cut.
type entries struct {
	Cut  bool       `cbor:"1,keyasint"`
	List []entrySum `cbor:"2,keyasint"`
}

// entrySum is one entry of an answer.
type entrySum struct {
	_     struct{} `cbor:",toarray"`
	Inode uint64
	Sum   digest
}

// askDetails asks what entries are.
type askDetails struct {
	Inodes []uint64 `cbor:"1,keyasint"`
}

type details struct {
	List []detail `cbor:"1,keyasint"`
}

// detail is an entry.
type detail struct {
	Inode   uint64 `cbor:"1,keyasint"`
	Parent  uint64 `cbor:"2,keyasint"`
	Version uint64 `cbor:"3,keyasint"`
	Writer  uint32 `cbor:"4,keyasint"`
	MTime   uint32 `cbor:"5,keyasint"`
	Size    uint32 `cbor:"6,keyasint"`
	Type    uint8  `cbor:"7,keyasint"`
	Hashed  bool   `cbor:"8,keyasint"` // content is there
	Content digest `cbor:"9,keyasint"`
	Path    string `cbor:"10,keyasint"`
}

func (state) kind() kind       { return kindState }
func (askSnapshot) kind() kind { return kindAskSnapshot }
func (snapshot) kind() kind    { return kindSnapshot }
func (askRanges) kind() kind   { return kindAskRanges }
func (ranges) kind() kind      { return kindRanges }
func (askEntries) kind() kind  { return kindAskEntries }
func (entries) kind() kind     { return kindEntries }
func (askDetails) kind() kind  { return kindAskDetails }
func (details) kind() kind     { return kindDetails }

func (s state) check() error {
	if len(s.Node) > maxName || len(s.Software) > maxName {
		return errors.New("a name is too long")
	}
	return nil
}

func (askSnapshot) check() error { return nil }
func (snapshot) check() error    { return nil }

func (a askRanges) check() error {
	if len(a.Bounds) == 0 {
		return errors.New("no bounds")
	}
	return ascending(a.Bounds, maxRanges, func(b uint64) (uint64, uint64) { return b, b })
}

func (a ranges) check() error {
	return ascending(a.List, maxRanges, nil)
}

func (a askEntries) check() error {
	return ascending(a.Spans, maxSpans, func(s span) (uint64, uint64) { return s.First, s.Last })
}

func (a entries) check() error {
	if a.Cut && len(a.List) == 0 {
		return errors.New("cut before the first entry") // the asker looks for where it was cut
	}
	return ascending(a.List, maxEntries, func(e entrySum) (uint64, uint64) { return e.Inode, e.Inode })
}

func (a askDetails) check() error {
	return ascending(a.Inodes, maxDetails, func(i uint64) (uint64, uint64) { return i, i })
}

func (a details) check() error {
	for i := range a.List {
		if n := len(a.List[i].Path); n > maxPath {
			return fmt.Errorf("a path of %d bytes", n)
		}
	}
	return ascending(a.List, maxDetails, func(d detail) (uint64, uint64) { return d.Inode, d.Inode })
}

// ascending checks that there are not too many elements, and that each, from its first to
// its last inode, lies behind the one before it. Without bounds, any order will do.
func ascending[E any](list []E, most int, bounds func(E) (first, last uint64)) error {
	if len(list) > most {
		return fmt.Errorf("%d elements, %d at most", len(list), most)
	}
	var end uint64
	for i := 0; i < len(list) && bounds != nil; i++ {
		first, last := bounds(list[i])
		if last < first || i > 0 && first <= end {
			return fmt.Errorf("element %d does not ascend", i)
		}
		end = last
	}
	return nil
}

var (
	encoding = must(cbor.CoreDetEncOptions().EncMode())
	// Names and paths are bytes: whoever shows them makes them valid text.
	decoding = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: maxEntries, MaxMapPairs: 64, MaxNestedLevels: 8,
	}.DecMode())
)

// must is for what depends on nothing but this file.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// errMalformed is wrapped by every error of decoding.
var errMalformed = errors.New("peers: malformed message")

// encode puts a message together; its kind is the body's.
func encode(h header, b body) []byte {
	h.Kind = b.kind()
	return must(encoding.Marshal(message[body]{h, b}))
}

// decodeHeader takes the header off a message.
func decodeHeader(b []byte) (header, cbor.RawMessage, error) {
	if len(b) > maxMessage {
		return header{}, nil, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	var m message[cbor.RawMessage]
	if err := decoding.Unmarshal(b, &m); err != nil {
		return header{}, nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return m.header, m.Body, nil
}

// decode decodes a message's body.
func decode[B body](b cbor.RawMessage) (m B, err error) {
	if err = decoding.Unmarshal(b, &m); err == nil {
		err = m.check()
	}
	if err != nil {
		return m, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return m, nil
}
