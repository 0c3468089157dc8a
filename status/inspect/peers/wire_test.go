package peers

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"pmxcfs/memdb"
)

var update = flag.Bool("update", false, "write the fixtures anew: only for a new group")

// messages are one of each kind, with their encodings frozen in testdata.
func messages() map[string][]byte {
	q := header{ID: 0x1122334455667788}
	to := header{ID: q.ID, Node: 3, PID: 4711}
	var sum digest
	copy(sum[:], "0123456789abcdef")
	snap := snapshot{Result: resultKept, Mode: 3, Quorate: true, Version: 1 << 40, Entries: 7}
	copy(snap.Digest[:], "0123456789abcdef0123456789abcdef")
	return map[string][]byte{
		"state":    encode(header{}, state{Version: 77, Time: 1_800_000_000_123_456_789, Mode: 3, Quorate: true, Node: "node1", Software: "1.2.3"}),
		"ask-snap": encode(q, askSnapshot{99}),
		"snapshot": encode(to, snap),
		"ask-rng":  encode(q, askRanges{[]uint64{0, 5, 1 << 50}}),
		"ranges":   encode(to, ranges{[]rangeSum{{Count: 3, Sum: sum}, {}}}),
		"ask-ent":  encode(q, askEntries{[]span{{Last: 4}, {First: 5, Last: ^uint64(0)}}}),
		"entries":  encode(to, entries{Cut: true, List: []entrySum{{Sum: sum}, {Inode: 9, Sum: sum}}}),
		"ask-det":  encode(q, askDetails{[]uint64{0, 9}}),
		"details": encode(to, details{[]detail{{Inode: 0, Version: 5, Type: 4},
			{Inode: 9, Parent: 2, Version: 3, Writer: 1, MTime: 1_800_000_000, Size: 5, Type: 8, Hashed: true, Content: sum, Path: "nodes/a/config"}}}),
	}
}

var errKind = errors.New("unknown kind")

// decodeAny decodes a message.
func decodeAny(b []byte) (h header, m body, err error) {
	h, raw, err := decodeHeader(b)
	if err != nil {
		return h, nil, err
	}
	as, ok := map[kind]func() (body, error){
		kindState: as[state](raw), kindAskSnapshot: as[askSnapshot](raw), kindSnapshot: as[snapshot](raw),
		kindAskRanges: as[askRanges](raw), kindRanges: as[ranges](raw), kindAskEntries: as[askEntries](raw),
		kindEntries: as[entries](raw), kindAskDetails: as[askDetails](raw), kindDetails: as[details](raw),
	}[h.Kind]
	if !ok {
		return h, nil, errKind
	}
	m, err = as()
	return h, m, err
}

func as[B body](raw cbor.RawMessage) func() (body, error) {
	return func() (body, error) { return decode[B](raw) }
}

func TestMessagesAreAsFrozen(t *testing.T) {
	for name, msg := range messages() {
		path := filepath.Join("testdata", "v2-"+name)
		if *update {
			if err := os.WriteFile(path, msg, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		frozen, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(msg, frozen) {
			t.Errorf("%s: %x, frozen %x", name, msg, frozen)
		}
		h, m, err := decodeAny(frozen)
		if err != nil || !bytes.Equal(encode(h, m), frozen) {
			t.Errorf("%s: decoded: %+v, %v", name, m, err)
		}
		for n := range frozen {
			if _, _, err := decodeAny(frozen[:n]); !errors.Is(err, errMalformed) {
				t.Errorf("%s: %d of %d bytes are accepted: %v", name, n, len(frozen), err)
			}
		}
		if _, _, err := decodeAny(append(bytes.Clone(frozen), 0)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: a byte too many: %v", name, err)
		}
	}
}

func TestWhatIsNotOursIsRefused(t *testing.T) {
	h := header{ID: 1}
	raw := func(b any) []byte { return must(cbor.Marshal(map[int]any{1: kindAskRanges, 5: b})) }
	tests := map[string]struct {
		msg []byte
		err error
	}{
		"another kind":      {must(cbor.Marshal(map[int]any{1: 77, 5: 0})), errKind},
		"no kind":           {[]byte{0xa0}, errKind},
		"no body":           {must(cbor.Marshal(map[int]any{1: kindAskRanges})), errMalformed},
		"another type":      {raw(map[int]any{1: "text"}), errMalformed},
		"a key twice":       {[]byte{0xa2, 1, 1, 1, 2}, errMalformed},
		"a tag":             {raw(map[int]any{1: cbor.Tag{Number: 1, Content: 5}}), errMalformed},
		"indefinite":        {[]byte{0xbf, 1, 1, 0xff}, errMalformed},
		"a length it lacks": {[]byte{0xa2, 1, 1, 5, 0x9a, 0x7f, 0xff, 0xff, 0xff}, errMalformed},
		"deep":              {append(bytes.Repeat([]byte{0x81}, 100), 0), errMalformed},
		"too large":         {encode(h, askRanges{make([]uint64, maxMessage)}), errMalformed},
		"bounds":            {encode(h, askRanges{[]uint64{5, 5}}), errMalformed},
		"no bounds":         {encode(h, askRanges{}), errMalformed},
		"too many bounds":   {encode(h, askRanges{make([]uint64, maxRanges+1)}), errMalformed},
		"too many sums":     {encode(h, ranges{make([]rangeSum, maxRanges+1)}), errMalformed},
		"spans":             {encode(h, askEntries{[]span{{First: 5, Last: 4}}}), errMalformed},
		"spans overlap":     {encode(h, askEntries{[]span{{First: 1, Last: 4}, {First: 4, Last: 5}}}), errMalformed},
		"inodes":            {encode(h, askDetails{[]uint64{2, 1}}), errMalformed},
		"entries":           {encode(h, entries{List: []entrySum{{Inode: 2}, {Inode: 2}}}), errMalformed},
		"cut, and empty":    {encode(h, entries{Cut: true}), errMalformed},
		"details":           {encode(h, details{[]detail{{Inode: 2}, {Inode: 1}}}), errMalformed},
		"a long path":       {encode(h, details{[]detail{{Path: strings.Repeat("p", maxPath+1)}}}), errMalformed},
		"a long name":       {encode(h, state{Node: strings.Repeat("n", maxName+1)}), errMalformed},
	}
	for name, tt := range tests {
		if _, _, err := decodeAny(tt.msg); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", name, err, tt.err)
		}
	}
}

// TestWhatLaterVersionsAddIsIgnored has fields that this version does not know.
func TestWhatLaterVersionsAddIsIgnored(t *testing.T) {
	later := must(cbor.Marshal(map[int]any{
		1: kindState, 6: "new", 99: []any{1, map[string]int{"a": 2}},
		5: map[int]any{1: 77, 3: 3, 4: true, 5: "node1", 6: "9.0", 7: map[int]any{1: []int{2}}},
	}))
	h, m, err := decodeAny(later)
	if want := (state{Version: 77, Mode: 3, Quorate: true, Node: "node1", Software: "9.0"}); err != nil || h != (header{Kind: kindState}) || m != body(want) {
		t.Errorf("%+v, %+v, %v", h, m, err)
	}
}

func TestLongPathsAreCut(t *testing.T) {
	k := kept{entries: []*memdb.Entry{{Type: memdb.TypeDir}}}
	for i := range uint64(20) {
		k.entries = append(k.entries, &memdb.Entry{Inode: i + 1, Parent: i, Type: memdb.TypeDir, Name: strings.Repeat("d", 255)})
	}
	if _, m, err := decodeAny(encode(header{}, k.details([]uint64{20}))); err != nil || len(m.(details).List[0].Path) != maxPath {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, msg := range messages() {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, m, err := decodeAny(msg)
		if err != nil {
			return
		}
		again, n, err := decodeAny(encode(h, m))
		if err != nil || again != h || !reflect.DeepEqual(n, m) {
			t.Errorf("%x is %+v, %+v, and then %+v, %+v, %v", msg, h, m, again, n, err)
		}
	})
}
