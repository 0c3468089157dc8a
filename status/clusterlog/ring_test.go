package clusterlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// testRand gives a random source whose seed a failing test prints.
func testRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func testEntry(node string, uid, time uint32, text int) Entry {
	return pack(Message{Priority: 6, PID: 1, Ident: "root", Tag: "t", Text: strings.Repeat("x", text)}, node, uid, time)
}

func TestEmptyRingHasNoEntries(t *testing.T) {
	if list, err := ParseRing(newRing().buf); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestRingKeepsTheNewestEntriesWhateverTheirSizes(t *testing.T) {
	rnd := testRand(t)
	for range 6 {
		r := newRing()
		var added []Entry
		size := rnd.IntN(4000) + 1
		for i := range 3000 {
			e := testEntry("node1", uint32(i+1), uint32(i), rnd.IntN(size))
			r.add(e)
			added = append(added, e)
			if i%100 != 0 && i < 2990 {
				continue
			}
			list, err := ParseRing(r.buf)
			if err != nil {
				t.Fatalf("after %d entries: %v", i+1, err)
			}
			bytesKept := 0
			for k, got := range list {
				if want := added[len(added)-1-k]; got.UID() != want.UID() || !bytes.Equal(got.raw[8:], want.raw[8:]) {
					t.Fatalf("after %d entries: the %d. from the end is %d", i+1, k, got.UID())
				}
				bytesKept += align8(len(got.raw))
			}
			// What was overwritten, its neighbourhood of one largest entry, and
			// the unused end of the buffer are lost, no more.
			if len(list) < len(added) && bytesKept < RingSize-ringHeader-3*MaxEntrySize {
				t.Fatalf("after %d entries: only %d bytes kept", i+1, bytesKept)
			}
		}
	}
}

func TestRingWrapsWhereAnEntryWouldReachTheEnd(t *testing.T) {
	// Entries of 4096 bytes: 31 fit after the header, then 4088 bytes are
	// left, of which an entry must not take the last.
	full := testEntry("n", 1, 1, 5000)
	if len(full.raw) != MaxEntrySize {
		t.Fatalf("%d bytes", len(full.raw))
	}
	for _, tt := range []struct {
		size int // of the entry, rounded
		pos  uint32
	}{{4080, 8 + 31*4096}, {4088, 8}, {4096, 8}} {
		r := newRing()
		for range 31 {
			r.add(full)
		}
		last := testEntry("n", 2, 2, tt.size-entryOverhead-2-5-2-1)
		if align8(len(last.raw)) != tt.size {
			t.Fatalf("entry of %d bytes", len(last.raw))
		}
		r.add(last)
		if pos := le.Uint32(r.buf[4:]); pos != tt.pos {
			t.Errorf("%d bytes at the end: at %d, want %d", tt.size, pos, tt.pos)
		}
		list, err := ParseRing(r.buf)
		if err != nil || list[0].UID() != 2 {
			t.Errorf("%d entries, %v", len(list), err)
		}
	}
}

func TestEntryRightBehindTheLargestNewestIsKept(t *testing.T) {
	// 31 entries of the largest size fill the ring, one behind the other: the
	// newest has overwritten the 4096 bytes from its position, and no more.
	r := newRing()
	for i := range uint32(40) {
		r.add(testEntry("n", i+1, i, 5000))
	}
	list, err := ParseRing(r.buf)
	if err != nil || len(list) != 31 || list[30].UID() != 10 {
		t.Errorf("%d entries, %v", len(list), err)
	}
}

func TestRingThatLeadsAstrayIsRefused(t *testing.T) {
	ring3 := func() []byte { // entries at 8, 80, 152
		r := newRing()
		for i := range uint32(3) {
			r.add(testEntry("node1", i+1, i, 5))
		}
		return r.buf
	}
	wrapped := func() []byte {
		r := newRing()
		for i := range uint32(2500) {
			r.add(testEntry("node1", i+1, i, 5))
		}
		return r.buf
	}
	put := func(b []byte, off int, v uint32) []byte { le.PutUint32(b[off:], v); return b }
	newestOf := func(b []byte) int { return int(le.Uint32(b[4:])) }
	if n := newestOf(ring3()); n != 152 {
		t.Fatalf("newest at %d", n)
	}
	if n := newestOf(wrapped()); n < 8192 || n > RingSize-16384 {
		t.Fatalf("newest at %d", n)
	}
	tests := map[string][]byte{
		"nothing":                     nil,
		"short":                       ring3()[:RingSize-1],
		"long":                        append(ring3(), 0),
		"size field":                  put(ring3(), 0, RingSize-8),
		"newest beyond the end":       put(ring3(), 4, RingSize),
		"newest far beyond the end":   put(ring3(), 4, 0xfffffff8),
		"newest in the header":        put(ring3(), 4, 4),
		"newest unaligned":            put(ring3(), 4, 81),
		"newest at the last bytes":    put(ring3(), 4, RingSize-48),
		"newest where nothing is":     put(ring3(), 4, 50000),
		"prev beyond the end":         put(ring3(), 80, RingSize+8),
		"prev far beyond the end":     put(ring3(), 80, 0xfffffff8),
		"prev in the header":          put(ring3(), 80, 1),
		"prev unaligned":              put(ring3(), 80, 9),
		"prev into an entry":          put(ring3(), 152, 88),
		"prev where nothing is":       put(ring3(), 8, 100000),
		"next beyond the end":         put(ring3(), 84, RingSize+8),
		"next backwards":              put(ring3(), 84, 8),
		"message length over the end": put(ring3(), 80+40, 131000),
		"message length 0":            put(ring3(), 80+40, 0),
	}
	// A loop in the upper part of a ring that has wrapped: the lowest entry
	// there points to the highest.
	loop := wrapped()
	list, err := ParseRing(loop)
	if err != nil {
		t.Fatal(err)
	}
	newest, highest, lowest := newestOf(loop), 0, RingSize
	for _, e := range list {
		if pos := int(le.Uint32(e.raw[4:])) - align8(len(e.raw)); pos > newest {
			highest, lowest = max(highest, pos), min(lowest, pos)
		}
	}
	if lowest < newest+MaxEntrySize || highest <= lowest {
		t.Fatalf("entries from %d to %d above %d", lowest, highest, newest)
	}
	tests["loop after wrapping"] = put(bytes.Clone(loop), lowest, uint32(highest))
	tests["below the newest after wrapping"] = put(bytes.Clone(loop), lowest, 8)
	// The same to an entry that no other leads to, with an end.
	aside := bytes.Clone(loop)
	put(aside, int(le.Uint32(aside[8+4:])), le.Uint32(aside[8:])) // the second entry passes over the first
	put(aside, 8, 0)
	if _, err := ParseRing(aside); err != nil {
		t.Fatal(err)
	}
	tests["to an entry aside after wrapping"] = put(aside, lowest, 8)
	// A good entry where none may be: inside another one, and unaligned.
	small := testEntry("node1", 9, 9, 1).raw
	within := newRing()
	within.add(testEntry("node1", 1, 1, 300))
	copy(within.buf[80:], small)
	put(within.buf, 80, 8)
	put(within.buf, 84, uint32(80+align8(len(small))))
	tests["entry within another"] = put(within.buf, 4, 80)
	unaligned := newRing().buf
	copy(unaligned[12:], small)
	put(unaligned, 16, uint32(12+align8(len(small))))
	tests["good entry, unaligned"] = put(unaligned, 4, 12)
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			if list, err := ParseRing(b); !errors.Is(err, ErrRing) {
				t.Errorf("%d entries, error %v, want ErrRing", len(list), err)
			}
		})
	}
}

func TestWalkingEndsWhereTheNewestHasOverwritten(t *testing.T) {
	// A chain whose oldest entry points at or above itself, or just after the newest:
	// what was there is gone.
	for _, prev := range []uint32{80, 152, 160, 152 + 4088} {
		r := newRing()
		for i := range uint32(3) {
			r.add(testEntry("node1", i+1, i, 5))
		}
		le.PutUint32(r.buf[8:], prev)
		if list, err := ParseRing(r.buf); err != nil || len(list) != 3 {
			t.Errorf("prev %d: %d entries, %v", prev, len(list), err)
		}
	}
}

func TestPaddingIsWrittenAsZeros(t *testing.T) {
	clean, dirty := testEntry("node1", 1, 1, 5), testEntry("node1", 1, 1, 5)
	copy(dirty.raw[len(dirty.raw)-4:], "junk")
	if !bytes.Equal(rebuild([]Entry{dirty}).buf, rebuild([]Entry{clean}).buf) {
		t.Error("junk is passed on")
	}
}

func TestRebuildOrdersAndDropsRepetitions(t *testing.T) {
	rnd := testRand(t)
	var want []Entry
	for time := range uint32(30) {
		for _, node := range []string{"node1", "node3", "node2"} { // in the order of their digests
			for uid := range uint32(3) {
				want = append(want, testEntry(node, uid+1, time, int(time)))
			}
		}
	}
	list := append(slices.Clone(want), want[:50]...)
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	got, err := ParseRing(rebuild(list).buf)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(got)
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].key() != want[i].key() {
			t.Fatalf("entry %d is %v, want %v", i, got[i].key(), want[i].key())
		}
	}
}

func TestMergeKeepsTheNewestThatFit(t *testing.T) {
	rnd := testRand(t)
	const nodes = 5
	var lists [][]Entry
	for n := range nodes {
		r := newRing()
		for i := range uint32(2000) {
			r.add(testEntry(fmt.Sprintf("node%d", n), i+1, i, rnd.IntN(100)))
		}
		list, err := ParseRing(r.buf)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, list)
	}
	got, err := ParseRing(merge(lists).buf)
	if err != nil {
		t.Fatal(err)
	}
	used, oldest := 0, got[len(got)-1].key()
	kept := map[key]bool{}
	for i, e := range got {
		if i > 0 && e.key().compare(got[i-1].key()) >= 0 {
			t.Fatal("not in order")
		}
		kept[e.key()] = true
		used += align8(len(e.raw))
	}
	if used < mergeLimit || used >= RingSize-ringHeader {
		t.Errorf("%d bytes used", used)
	}
	for _, list := range lists {
		for _, e := range list {
			if e.key().compare(oldest) > 0 && !kept[e.key()] {
				t.Fatalf("%v left out, %v kept", e.key(), oldest)
			}
		}
	}
}
