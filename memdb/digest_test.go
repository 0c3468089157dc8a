package memdb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// sumOf hashes fields as the specification lists them.
func sumOf(fields ...any) (d Digest) {
	h := sha256.New()
	for _, f := range fields {
		switch f := f.(type) {
		case string:
			h.Write([]byte(f))
		default:
			binary.Write(h, binary.LittleEndian, f)
		}
	}
	h.Sum(d[:0])
	return d
}

func TestDigestsCoverTheFieldsInTheirOrder(t *testing.T) {
	long := strings.Repeat("long", 3000)
	for _, data := range []string{"", "x", strings.Repeat("s", 2048), strings.Repeat("s", 2049), long} {
		for _, name := range []string{"n", strings.Repeat("n", 255), strings.Repeat("n", 5000)} {
			e := NewEntry(1<<40+1, 1<<41+2, 1<<42+3, 4, 5, TypeFile, name, []byte(data))
			size := uint32(len(data))
			if got := e.Digest(); got != sumOf(e.Inode, e.Version, e.Writer, e.MTime, size, uint8(8), e.Parent, name, data) {
				t.Errorf("digest of %d bytes called by %d is %x", len(data), len(name), got)
			}
			for range 2 {
				if got := e.IndexDigest(); got != sumOf(e.Version, e.Writer, e.MTime, size, uint8(8), e.Parent, name, data) {
					t.Errorf("index digest of %d bytes called by %d is %x", len(data), len(name), got)
				}
			}
		}
	}
	d := NewEntry(7, 6, 8, 4, 5, TypeDir, "dir", nil)
	if got := d.Digest(); got != sumOf(d.Inode, d.Version, d.Writer, d.MTime, uint32(0), uint8(4), d.Parent, "dir") {
		t.Errorf("digest of a directory is %x", got)
	}
}

func TestAChangeMakesNewDigests(t *testing.T) {
	tr := plant(t, "f=x", "g")
	g, _ := tr.Lookup("g")
	kept := g.IndexDigest()
	for _, op := range []Op{opWrite("f", 1, "y"), opTruncate("f", 1), opMTime("f", 9), opRename("f", "h")} {
		path := op.Path
		old, _ := tr.Lookup(path)
		d, x := old.Digest(), old.IndexDigest()
		now := do(t, tr, op).Change().New
		if now.Digest() == d || now.IndexDigest() == x {
			t.Errorf("%v keeps a digest", op.Kind)
		}
		if old.Digest() != d || old.IndexDigest() != x {
			t.Errorf("%v changes the old entry's digest", op.Kind)
		}
	}
	if g, _ = tr.Lookup("g"); g.IndexDigest() != kept {
		t.Error("another entry's digest changed")
	}
}

func TestChecksumIsOneHashOverAllEntries(t *testing.T) {
	tr := plant(t, "b=2", "a/", "a/c=33")
	want := sumOf(
		uint64(0), tr.Root().Version, uint32(testWriter), uint32(testMTime), uint32(0), uint8(4), uint64(0), "",
		uint64(2), uint64(3), uint32(testWriter), uint32(testMTime), uint32(1), uint8(8), uint64(0), "b", "2",
		uint64(4), uint64(4), uint32(testWriter), uint32(testMTime), uint32(0), uint8(4), uint64(0), "a",
		uint64(5), uint64(6), uint32(testWriter), uint32(testMTime), uint32(2), uint8(8), uint64(4), "c", "33",
	)
	if got := tr.Checksum(); got != want {
		t.Errorf("checksum is %x, want %x", got, want)
	}
}

func TestIndexLayout(t *testing.T) {
	tr := plant(t, "a", "b=x")
	do(t, tr, Op{Kind: OpDelete, Path: "a", Writer: 0x01020304, MTime: 0x05060708})
	b, _ := tr.Lookup("b")
	root, file := tr.Root().IndexDigest(), b.IndexDigest()
	want := "\x05\x00\x00\x00\x00\x00\x00\x00" + "\x03\x00\x00\x00\x00\x00\x00\x00" + "\x04\x03\x02\x01" + "\x08\x07\x06\x05" +
		"\x02\x00\x00\x00" + "\x70\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00" + string(root[:]) + "\x03\x00\x00\x00\x00\x00\x00\x00" + string(file[:])
	got := tr.Index()
	if string(got) != want {
		t.Fatalf("index is %x, want %x", got, want)
	}
	x, err := DecodeIndex(got)
	if err != nil || x.Version != 5 || x.LastInode != 3 || x.Writer != 0x01020304 || x.MTime != 0x05060708 ||
		len(x.Entries) != 2 || x.Entries[0] != (IndexEntry{0, root}) || x.Entries[1] != (IndexEntry{3, file}) {
		t.Errorf("decoded: %+v, %v", x, err)
	}
	clear(got)
	if x.Entries[1].Digest != file {
		t.Error("the decoded index shares the bytes it came from")
	}
}

func TestMalformedIndexesAreRefused(t *testing.T) {
	good := plant(t, "a", "b").Index()
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	put32 := func(at int, v uint32) []byte {
		return edit(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b })
	}
	put64 := func(at int, v uint64) []byte {
		return edit(func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b })
	}
	if _, err := DecodeIndex(good); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"half a header":         good[:31],
		"a header alone":        good[:32],
		"a byte too few":        good[:len(good)-1],
		"a byte too many":       append(bytes.Clone(good), 0),
		"an entry too many":     append(bytes.Clone(good), good[len(good)-40:]...),
		"a wrong number":        put32(24, 4),
		"a huge number":         put32(24, 1<<32-1),
		"no entries":            edit(func(b []byte) []byte { b = b[:32]; b[24], b[28] = 0, 32; b[8] = 0; return b }),
		"a wrong total":         put32(28, 153),
		"a wrong last inode":    put64(8, 4),
		"no root":               put64(32, 1),
		"inodes that descend":   put64(72, 7),
		"an inode twice":        put64(72, 3),
		"a last inode not last": put64(112, 9),
		"the root twice":        put64(72, 0),
	} {
		x, err := DecodeIndex(b)
		var ie *IndexError
		if !errors.As(err, &ie) || x != nil || !strings.Contains(err.Error(), "index") {
			t.Errorf("%s: %v, %v", name, x, err)
		}
	}
}

func FuzzDecodeIndex(f *testing.F) {
	for _, b := range recordedStates(f) {
		f.Add(b)
	}
	f.Add(recordingHex(f, "varied.index.hex.gz"))
	f.Add([]byte{})
	f.Add(New().Index())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeIndex(b)
		if err != nil {
			return
		}
		if !bytes.Equal(encodeIndex(x), b) {
			t.Fatalf("decoding %x and encoding again gives other bytes", b)
		}
	})
}

// What an index names can be followed if a database with it can be loaded, and only then.
func TestWhatCanBeLoadedCanBeFollowed(t *testing.T) {
	for _, inode := range []uint64{1, 2, MaxVersion, reservedInodes, reservedInodes + 1, 1 << 63, endOfReserved - 1, endOfReserved, 1<<64 - 1} {
		entries := []*Entry{NewEntry(RootInode, RootInode, MaxVersion, 0, 0, TypeDir, "", nil), NewEntry(inode, RootInode, 2, 0, 0, TypeFile, "f", nil)}
		x, err := DecodeIndex(EncodeIndex(entries))
		if err != nil {
			t.Fatal(err)
		}
		_, _, load := Build(entries)
		if follow := x.Storable(); (load == nil) != (follow == nil) {
			t.Errorf("inode %d: loading says %v, following %v", inode, load, follow)
		}
	}
}
