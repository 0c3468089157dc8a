package clusterlog

import (
	"bytes"
	"encoding/json"
	"testing"
)

// The seeds of all fuzz targets are the recordings of the stock daemon, and the
// ends of what a field can hold.

func FuzzParseEntry(f *testing.F) {
	for _, e := range readTrace(f, 1) {
		if e.payload != nil && e.typ == 0 {
			f.Add(e.payload)
		}
	}
	f.Add(testEntry("n", 1<<32-1, 1<<32-1, 5000).raw)
	f.Add(bytes.Repeat([]byte{0xff}, 60))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		if len(e.Node()) > maxName || len(e.raw) > MaxEntrySize {
			t.Errorf("entry of %d bytes", len(e.raw))
		}
		if out := dump([]Entry{e}); !json.Valid(out) {
			t.Errorf("not JSON: %s", out)
		}
		l, _ := newTestLog(t, "node1")
		if ok, err := l.Insert(b); !ok || err != nil {
			t.Errorf("Insert: %v, %v", ok, err)
		}
		if list, err := ParseRing(l.State()); err != nil || len(list) != 1 {
			t.Errorf("%d entries, %v", len(list), err)
		}
	})
}

// FuzzParseRing puts the input at the head and at the tail of a ring, where the
// interesting offsets are, for 131,072 random bytes teach a fuzzer nothing.
func FuzzParseRing(f *testing.F) {
	for _, e := range readTrace(f, 3) {
		if e.payload != nil && e.typ == 2 {
			f.Add(e.payload[:1024], []byte(nil))
		}
	}
	wrapped := newRing()
	for i := range uint32(2000) {
		wrapped.add(testEntry("node1", i+1, i, int(i%50)))
	}
	f.Add(wrapped.buf[:32768], wrapped.buf[RingSize-32768:])
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		if len(head)+len(tail) > RingSize {
			return
		}
		b := newRing().buf
		copy(b, head)
		copy(b[RingSize-len(tail):], tail)
		list, err := ParseRing(b)
		if err != nil {
			return
		}
		if len(list) > RingSize/minEntrySize {
			t.Fatalf("%d entries", len(list))
		}
		if out := dump(list); !json.Valid(out) {
			t.Errorf("not JSON: %.200s", out)
		}
		first := rebuild(list).buf
		again, err := ParseRing(first)
		if err != nil {
			t.Fatalf("rebuilt: %v", err)
		}
		if !bytes.Equal(rebuild(again).buf, first) {
			t.Error("rebuilding twice differs")
		}
		l, _ := newTestLog(t, "node1")
		if err := l.Merge([][]byte{b}); err != nil {
			t.Error(err)
		}
	})
}

func FuzzDumpIsJSON(f *testing.F) {
	for _, s := range []string{`hello \"quoted\" wörld`, `\\"`, `\`, `\u`, `\ud800\udc00`, "\x00\x1f\x7f\xff", `"`} {
		f.Add(s, s, s, s)
	}
	f.Fuzz(func(t *testing.T, node, ident, tag, text string) {
		l, _ := newTestLog(t, "x"+node)
		wire := l.Add(Message{Priority: 255, PID: 1<<32 - 1, Ident: ident, Tag: tag, Text: text})
		if _, err := ParseEntry(wire); err != nil {
			t.Fatal(err)
		}
		for _, c := range wire[len(wire)-entryPadding-int(le.Uint32(wire[entryMessageLenOff:])) : len(wire)-entryPadding-1] {
			if c < ' ' || c > '~' {
				t.Fatalf("byte %d in the packed text", c)
			}
		}
		if out := l.Dump(0, ident); !json.Valid(out) {
			t.Errorf("not JSON: %s", out)
		}
		// Raw text as another node may send it.
		raw := "\"" + string(appendJSON(nil, []byte(text))) + "\""
		if !json.Valid([]byte(raw)) {
			t.Errorf("not JSON: %s", raw)
		}
	})
}
