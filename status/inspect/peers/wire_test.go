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
)

var update = flag.Bool("update", false, "write the fixtures anew: only for a new protocol version")

// messages are one of each kind, with their encodings frozen in testdata.
func messages() map[string][]byte {
	q := header{id: 0x1122334455667788}
	to := header{id: q.id, node: 3, pid: 4711}
	var sum digest
	copy(sum[:], "0123456789abcdef")
	snap := snapshot{result: resultKept, mode: 3, quorate: true, version: 1 << 40, entries: 7}
	copy(snap.digest[:], "0123456789abcdef0123456789abcdef")
	return map[string][]byte{
		"state":    (&state{version: 77, time: 1_800_000_000_123_456_789, mode: 3, quorate: true, node: "node1", software: "1.2.3"}).encode(header{}),
		"ask-snap": (&askSnapshot{version: 99}).encode(q),
		"snapshot": snap.encode(to),
		"ask-rng":  (&askRanges{[]uint64{0, 5, 1 << 50}}).encode(q),
		"ranges":   encodeRanges(to, []rangeSum{{3, sum}, {0, digest{}}}),
		"ask-ent":  (&askEntries{[]span{{0, 4}, {5, ^uint64(0)}}}).encode(q),
		"entries":  (&entries{cut: true, list: []entrySum{{0, sum}, {9, sum}}}).encode(to),
		"ask-det":  (&askDetails{[]uint64{0, 9}}).encode(q),
		"details": encodeDetails(to, []detail{{inode: 0, version: 5, typ: 4},
			{inode: 9, parent: 2, version: 3, writer: 1, mtime: 1_800_000_000, size: 5, typ: 8, hashed: true, content: sum, path: "nodes/a/config"}}),
	}
}

// decodeAny decodes a message and encodes it again.
func decodeAny(b []byte) ([]byte, error) {
	h, body, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	switch h.kind {
	case kindState:
		m, err := decodeState(body)
		return m.encode(h), err
	case kindAskSnapshot:
		m, err := decodeAskSnapshot(body)
		return m.encode(h), err
	case kindSnapshot:
		m, err := decodeSnapshot(body)
		return m.encode(h), err
	case kindAskRanges:
		m, err := decodeAskRanges(body)
		return m.encode(h), err
	case kindRanges:
		m, err := decodeRanges(body)
		return encodeRanges(h, m), err
	case kindAskEntries:
		m, err := decodeAskEntries(body)
		return m.encode(h), err
	case kindEntries:
		m, err := decodeEntries(body)
		return m.encode(h), err
	case kindAskDetails:
		m, err := decodeAskDetails(body)
		return m.encode(h), err
	case kindDetails:
		m, err := decodeDetails(body)
		return encodeDetails(h, m), err
	}
	return nil, errOther
}

func TestMessagesAreAsFrozen(t *testing.T) {
	for name, msg := range messages() {
		path := filepath.Join("testdata", "v1-"+name)
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
		again, err := decodeAny(frozen)
		if err != nil || !bytes.Equal(again, frozen) {
			t.Errorf("%s: decoded and encoded: %x, %v", name, again, err)
		}
		for n := range frozen {
			if _, err := decodeAny(frozen[:n]); !errors.Is(err, errMalformed) {
				t.Errorf("%s: %d of %d bytes are accepted: %v", name, n, len(frozen), err)
			}
		}
		if _, err := decodeAny(append(bytes.Clone(frozen), 0)); (err == nil) != (name == "state") {
			t.Errorf("%s: a byte too many: %v", name, err)
		}
	}
}

func TestWhatIsNotOursIsRefused(t *testing.T) {
	h := header{id: 1}
	other := (&askSnapshot{}).encode(h)
	other[versionOff]++
	foreign := (&askSnapshot{}).encode(h)
	foreign[0]++
	tests := map[string]struct {
		msg []byte
		err error
	}{
		"another version": {other, errOther},
		"another kind":    {newMessage(header{kind: 77}).b, errOther},
		"another program": {foreign, errMalformed},
		"bounds":          {(&askRanges{[]uint64{5, 5}}).encode(h), errMalformed},
		"no bounds":       {(&askRanges{}).encode(h), errMalformed},
		"too many bounds": {(&askRanges{make([]uint64, maxRanges+1)}).encode(h), errMalformed},
		"spans":           {(&askEntries{[]span{{5, 4}}}).encode(h), errMalformed},
		"spans overlap":   {(&askEntries{[]span{{1, 4}, {4, 5}}}).encode(h), errMalformed},
		"inodes":          {(&askDetails{[]uint64{2, 1}}).encode(h), errMalformed},
		"entries":         {(&entries{list: []entrySum{{inode: 2}, {inode: 2}}}).encode(h), errMalformed},
		"cut, and empty":  {(&entries{cut: true}).encode(h), errMalformed},
		"details":         {encodeDetails(h, []detail{{inode: 2}, {inode: 1}}), errMalformed},
	}
	for name, tt := range tests {
		if _, err := decodeAny(tt.msg); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", name, err, tt.err)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	msg := encodeDetails(header{}, []detail{{inode: 1, path: strings.Repeat("a/", maxPath) + "end"}})
	list, err := decodeDetails(msg[headerSize:])
	if err != nil || len(list[0].path) != maxPath || !strings.HasSuffix(list[0].path, "/end") {
		t.Errorf("%v", err)
	}
	long := &state{node: strings.Repeat("n", 300), software: "1"}
	st, err := decodeState(long.encode(header{})[headerSize:])
	if err != nil || st.node != long.node[:maxName] || st.software != "1" {
		t.Errorf("%+v, %v", st, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, msg := range messages() {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		again, err := decodeAny(msg)
		if err != nil {
			return
		}
		h, _, _ := decodeHeader(msg)
		if h.kind == kindState {
			msg = msg[:len(again)] // what a later version may add
		}
		if !reflect.DeepEqual(again, msg) {
			t.Errorf("%x becomes %x", msg, again)
		}
	})
}
