package memdb

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

func unsafeString(b []byte) string { return unsafe.String(&b[0], len(b)) }

func TestWriteSemantics(t *testing.T) {
	gap := "\x00\x00\x00"
	for _, c := range []struct {
		name, before string
		op           Op
		want         string
	}{
		{"into an empty file", "", opWrite("f", 0, "abc"), "abc"},
		{"over the beginning keeps the rest", "abcdef", opWrite("f", 0, "XY"), "XYcdef"},
		{"in the middle keeps both ends", "abcdef", opWrite("f", 2, "XY"), "abXYef"},
		{"across the end grows", "abcdef", opWrite("f", 5, "XY"), "abcdeXY"},
		{"at the end appends", "abc", opWrite("f", 3, "def"), "abcdef"},
		{"behind the end leaves zeros", "abc", opWrite("f", 6, "def"), "abc" + gap + "def"},
		{"into an empty file behind its end", "", opWrite("f", 3, "x"), gap + "x"},
		{"of nothing within changes nothing", "abc", opWrite("f", 1, ""), "abc"},
		{"of nothing at the end changes nothing", "abc", opWrite("f", 3, ""), "abc"},
		{"of nothing behind the end grows by zeros", "abc", opWrite("f", 6, ""), "abc" + gap},
		{"of nothing into nothing", "", opWrite("f", 0, ""), ""},
		{"with truncate at 0 replaces", "abcdef", opReplace("f", "XY"), "XY"},
		{"with truncate at 0 and nothing empties", "abcdef", opReplace("f", ""), ""},
		{"with truncate within cuts behind the data", "abcdef", Op{Kind: OpWrite, Path: "f", Offset: 1, Data: []byte("X"), Truncate: true}, "aX"},
		{"with truncate behind the end", "abc", Op{Kind: OpWrite, Path: "f", Offset: 6, Data: []byte("X"), Truncate: true}, "abc" + gap + "X"},
		{"truncate shrinks", "abcdef", opTruncate("f", 2), "ab"},
		{"truncate to the same size", "abcdef", opTruncate("f", 6), "abcdef"},
		{"truncate grows by zeros", "abc", opTruncate("f", 6), "abc" + gap},
		{"truncate grows an empty file by zeros", "", opTruncate("f", 3), gap},
		{"truncate to nothing", "abc", opTruncate("f", 0), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := plant(t, "f="+c.before)
			e := do(t, tr, c.op).Change().New
			if string(e.Data()) != c.want || e.Size() != len(c.want) {
				t.Errorf("content is %q (size %d), want %q", e.Data(), e.Size(), c.want)
			}
			if n, _ := tr.Usage(); n != int64(len(c.want)) {
				t.Errorf("usage is %d bytes", n)
			}
			checkSound(t, tr)
		})
	}
}

func TestGrownPartIsZeroAlthoughOlderContentWasThere(t *testing.T) {
	// Appends leave spare room; what was cut off must not shine through.
	tr := plant(t, "f=")
	do(t, tr, opWrite("f", 0, "start"), opWrite("f", 5, strings.Repeat("S", 100)), opTruncate("f", 5),
		opTruncate("f", 50), opWrite("f", 60, "end"))
	e, _ := tr.Lookup("f")
	want := "start" + strings.Repeat("\x00", 55) + "end"
	if string(e.Data()) != want {
		t.Errorf("content is %q", e.Data())
	}
}

func TestWriteCopiesItsData(t *testing.T) {
	tr := plant(t, "f=", "g=base")
	data := []byte("abc")
	do(t, tr, Op{Kind: OpWrite, Path: "f", Data: data}, Op{Kind: OpWrite, Path: "g", Data: data, Offset: 4})
	copy(data, "xyz")
	f, _ := tr.Lookup("f")
	g, _ := tr.Lookup("g")
	if string(f.Data()) != "abc" || string(g.Data()) != "baseabc" {
		t.Errorf("content follows the caller's buffer: %q, %q", f.Data(), g.Data())
	}
}

func TestAppendingToGivenDataDoesNotReachTheTree(t *testing.T) {
	tr := plant(t, "f=")
	do(t, tr, opWrite("f", 0, "a"), opWrite("f", 1, "b"))
	e, _ := tr.Lookup("f")
	if given := e.Data(); cap(given) != len(given) {
		t.Errorf("a reader is given %d bytes and %d more", len(given), cap(given)-len(given))
	}
	_ = append(e.Data(), "reader"...)
	do(t, tr, opTruncate("f", 8))
	if e, _ = tr.Lookup("f"); string(e.Data()) != "ab\x00\x00\x00\x00\x00\x00" {
		t.Errorf("content is %q", e.Data())
	}
}

// held is what a reader keeps: an entry and the digest of its content then.
type held struct {
	e   *Entry
	sum Digest
}

func hold(e *Entry) held { return held{e, sha256.Sum256(e.Data())} }

func (h held) unchanged() bool { return sha256.Sum256(h.e.Data()) == h.sum }

func TestEntriesThatAreHeldNeverChange(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	tr := plant(t, "f=")
	var kept []held
	var d Delta
	for range 3000 {
		e, _ := tr.Lookup("f")
		kept = append(kept, hold(e.Entry))
		data := bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(300))
		var op Op
		switch rnd.IntN(10) {
		case 0:
			op = opTruncate("f", uint32(rnd.IntN(2*e.Size()+10)))
		case 1:
			op = opWrite("f", uint32(rnd.IntN(e.Size()+1)), string(data))
		case 2:
			op = opReplace("f", string(data))
		case 3:
			tr.Revert(&d)
			d = Delta{}
			continue
		case 4:
			tr.Trim()
			continue
		case 5:
			op = opMTime("f", rnd.Uint32())
		default:
			op = opWrite("f", uint32(e.Size()), string(data))
		}
		if int(op.Offset)+len(op.Data) > MaxFileSize {
			op = opTruncate("f", 1)
		}
		if rnd.IntN(4) == 0 {
			d = Delta{}
		}
		d.Add(do(t, tr, op).Changes)
	}
	for i, h := range kept {
		if !h.unchanged() {
			t.Fatalf("the entry read before step %d has changed", i)
		}
	}
	checkSound(t, tr)
}

func TestAppendsInSmallPiecesCopyTheFileRarely(t *testing.T) {
	tr := plant(t, "f=x")
	piece := strings.Repeat("p", 4096)
	arrays := 0
	var last *byte
	for i := range uint32(128) {
		e := do(t, tr, opWrite("f", 1+i*4096, piece)).Change().New
		if at := unsafe.SliceData(e.Data()); at != last {
			arrays, last = arrays+1, at
		}
	}
	if arrays > 16 {
		t.Errorf("128 appends of 4 KiB copied the file %d times", arrays)
	}
}

func TestTrimGivesSpareRoomBackOnceAFileIsQuiet(t *testing.T) {
	tr := plant(t, "busy=x", "quiet=x")
	more := strings.Repeat("y", 100)
	do(t, tr, opWrite("busy", 1, more), opWrite("quiet", 1, more))
	spare := func(path string) int {
		n := tr.find(path)
		return cap(n.e.data) - len(n.e.data)
	}
	if spare("busy") < 1024 || spare("quiet") < 1024 {
		t.Fatal("appends leave no spare room")
	}
	tr.Trim()
	do(t, tr, opWrite("busy", 101, "z"))
	before := pictureOf(tr)
	tr.Trim()
	if spare("busy") < 1024 {
		t.Error("a file that changes lost its room")
	}
	if tr.find("quiet").e.index.Load() == nil {
		t.Error("Trim lost a digest that was kept")
	}
	if spare("quiet") > 64 {
		t.Errorf("a quiet file keeps %d bytes of spare room", spare("quiet"))
	}
	tr.Trim()
	if spare("busy") > 64 || len(tr.spare) != 0 {
		t.Errorf("%d bytes of spare room are left", spare("busy"))
	}
	if d := before.exactDiff(pictureOf(tr)); d != "" {
		t.Errorf("Trim changed the tree: %s", d)
	}
	do(t, tr, opWrite("quiet", 101, "z"))
	if e, _ := tr.Lookup("quiet"); string(e.Data()) != "x"+more+"z" {
		t.Errorf("content after Trim and an append is %q", e.Data())
	}
	checkSound(t, tr)
}
