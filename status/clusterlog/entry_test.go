package clusterlog

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestTextIsMadeASCII(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "vm 100 started", "vm 100 started"},
		{"quote", `say "hi"`, `say \"hi\"`},
		{"backslash stays", `C:\temp`, `C:\temp`},
		{"control bytes", "a\nb\tc\x00d\x1fe", "a#010b#009c#000d#031e"},
		{"delete", "a\x7fb", "a#127b"},
		{"below 256", "wörld", `w\u00f6rld`},
		{"three bytes", "日本 €", `\u65e5\u672c \u20ac`},
		{"last of the plane", "\uffff", `\uffff`},
		{"beyond the plane", "a\U0001f600b\U00010000c", "abc"},
		{"not UTF-8", "w\xf6rld \"ö\"\n", `w?rld \"??\"#010`},
		{"surrogate in UTF-8", "a\xed\xa0\x80b", "a???b"},
		{"overlong", "\xc0\xaf", "??"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := asciiText(tt.in, 4000); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestTextIsCutBetweenReplacements(t *testing.T) {
	for limit, want := range []string{"", "a", "a", "a", "a", "a", "a", `a\u00f6`, `a\u00f6b`, `a\u00f6b`} {
		if got := asciiText("aöb", limit); got != want {
			t.Errorf("limit %d: %q, want %q", limit, got, want)
		}
	}
}

func TestDigestIsFNV1aOverStringAndNUL(t *testing.T) {
	for s, want := range map[string]uint64{ // from the recordings
		"node1": 0xe6f5e3c220c8fefc,
		"node2": 0xe70015c220d1a877,
		"node3": 0xe6fcafc220cec54e,
		"root":  0x4dd1e2461dbc53bf,
	} {
		if got := Digest(s); got != want {
			t.Errorf("Digest(%q) = %x, want %x", s, got, want)
		}
	}
}

func TestPackedEntryKeepsWhatItWasGiven(t *testing.T) {
	e := pack(Message{Priority: 3, PID: 4711, Ident: "root@pam", Tag: "pvedaemon", Text: "x"}, "node1", 7, 99)
	if len(e.raw) != 48+6+9+10+2 {
		t.Errorf("%d bytes", len(e.raw))
	}
	p, err := ParseEntry(e.raw)
	if err != nil {
		t.Fatal(err)
	}
	if p.UID() != 7 || p.Time() != 99 || p.PID() != 4711 || p.Priority() != 3 ||
		p.NodeDigest() != Digest("node1") || p.IdentDigest() != Digest("root@pam") ||
		string(p.Node()) != "node1" || string(p.Ident()) != "root@pam" || string(p.Tag()) != "pvedaemon" || string(p.Text()) != "x" {
		t.Errorf("%+v", p)
	}
}

func TestEntryIsCutToItsLimits(t *testing.T) {
	long := strings.Repeat("n", 300)
	e := pack(Message{Ident: long, Tag: "a\x00b", Text: strings.Repeat("t", 5000)}, long, 1, 1)
	if len(e.raw) != MaxEntrySize {
		t.Errorf("%d bytes, want %d", len(e.raw), MaxEntrySize)
	}
	if got := string(e.Node()); got != long[:254] {
		t.Errorf("node has %d bytes", len(got))
	}
	if got := string(e.Ident()); got != long[:254] || e.IdentDigest() != Digest(got) {
		t.Errorf("ident has %d bytes, digest %x", len(got), e.IdentDigest())
	}
	if got := string(e.Tag()); got != "a" {
		t.Errorf("tag %q", got)
	}
	if want := MaxEntrySize - 48 - 255 - 255 - 2 - 1; len(e.Text()) != want {
		t.Errorf("text has %d bytes, want %d", len(e.Text()), want)
	}
	if _, err := ParseEntry(e.raw); err != nil {
		t.Error(err)
	}
}

func TestMalformedEntryIsRefused(t *testing.T) {
	good := pack(Message{Ident: "root", Tag: "tag", Text: "text"}, "node1", 1, 1).raw
	if _, err := ParseEntry(good); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(b []byte) []byte{
		"empty": func([]byte) []byte { return nil },
		"tag of no bytes": func(b []byte) []byte {
			b[39] = 0
			return append(b[:44+6+5], b[44+6+5+4:]...)
		},
		"message of no bytes": func(b []byte) []byte {
			le.PutUint32(b[40:], 0)
			return append(b[:44+6+5+4], 0, 0, 0, 0)
		},
		"header only":     func(b []byte) []byte { return b[:44] },
		"a byte short":    func(b []byte) []byte { return b[:len(b)-1] },
		"a byte too many": func(b []byte) []byte { return append(b, 0) },
		"node length 0":   func(b []byte) []byte { b[37] = 0; return b },
		"node too long":   func(b []byte) []byte { b[37]++; return b },
		"tag too short":   func(b []byte) []byte { b[39]--; return b },
		"message too long": func(b []byte) []byte {
			le.PutUint32(b[40:], 0xffffffff)
			return b
		},
		"message length wraps": func(b []byte) []byte {
			le.PutUint32(b[40:], 0x80000005)
			return b
		},
		"node without NUL":    func(b []byte) []byte { b[44+5] = 'x'; return b },
		"message without NUL": func(b []byte) []byte { b[len(b)-5] = 'x'; return b },
		"larger than an entry may be": func(b []byte) []byte {
			b = append(b, make([]byte, MaxEntrySize+1-len(b))...)
			le.PutUint32(b[40:], uint32(len(b)-48-6-5-4))
			return b
		},
	}
	for name, broken := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseEntry(broken(bytes.Clone(good))); !errors.Is(err, ErrEntry) {
				t.Errorf("error %v, want ErrEntry", err)
			}
		})
	}
}

func TestPrevNextAndPaddingOfAnEntryMayBeAnything(t *testing.T) {
	b := pack(Message{Ident: "root", Tag: "tag", Text: "text"}, "node1", 1, 1).raw
	for i := range 8 {
		b[i] = 0xff
	}
	copy(b[len(b)-4:], "junk")
	e, err := ParseEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Text()) != "text" {
		t.Errorf("text %q", e.Text())
	}
}
