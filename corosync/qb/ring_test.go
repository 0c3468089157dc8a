package qb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory returns a ring's memory outside of any file, with page-aligned ends.
func memory(words int) shared {
	aligned := func(n int) []byte {
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(make([]uint64, n/8+1)))), n)
	}
	return shared{header: aligned(headerSize), data: aligned(4 * words)}
}

// FuzzReader reads whatever a client may have left in the ring.
func FuzzReader(f *testing.F) {
	chunk := func(n, mark uint32, data ...byte) []byte {
		return append(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, n), mark), data...)
	}
	for _, n := range []uint32{0, 1, 16, 4092, 4096, 1 << 31, 1<<32 - 1} {
		f.Add(chunk(n, markWritten, []byte("0123456789abcdef")...), uint32(0))
		f.Add(chunk(n, markWritten, []byte("0123456789abcdef")...), uint32(1023))
		f.Add(chunk(n, markRead), uint32(5))
	}
	f.Fuzz(func(t *testing.T, data []byte, pos uint32) {
		const words = 1024
		m := memory(words)
		pos %= words
		n := copy(m.data[4*pos:], data)
		copy(m.data, data[n:])
		copy(m.header, data)
		r := reader{shared: m, words: words, pos: pos}
		for {
			before := r.pos
			got, err := r.next(nil)
			if r.pos >= words || len(got) > 4*words {
				t.Fatalf("position %d, %d bytes", r.pos, len(got))
			}
			if err != nil {
				if r.pos != before {
					t.Fatal("went on after an error")
				}
				return
			}
			if *r.mark(before, words) != markRead {
				t.Fatal("not given back")
			}
		}
	})
}

// FuzzWriter writes while the client claims to have read any amount.
func FuzzWriter(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2, 0xff, 0xff}, uint16(100))
	f.Add([]byte{0, 4, 3, 255, 3, 253, 0, 1}, uint16(2000))
	f.Fuzz(func(t *testing.T, reads []byte, size uint16) {
		const words = 1024
		w := writer{shared: memory(words), words: words}
		guardZone := bytes.Clone(w.header)
		for ; len(reads) >= 2; reads = reads[2:] {
			*word(w.header, offReadPos) = uint32(binary.BigEndian.Uint16(reads))
			err := w.write([]byte("head"), make([]byte, size))
			if w.pos >= words || w.used >= words {
				t.Fatalf("position %d, used %d, %v", w.pos, w.used, err)
			}
			if err == nil && 4*int(w.used) < int(size) {
				t.Fatalf("%d words used by %d bytes", w.used, size)
			}
		}
		copy(guardZone, w.header[:offWords])
		copy(guardZone[offSemaphore:], w.header[offSemaphore:offSemaphore+8])
		if !bytes.Equal(guardZone, w.header) {
			t.Fatal("wrote elsewhere in the header")
		}
	})
}

// What a writer writes a reader reads, at every offset of the ring.
func TestChunksComeThroughAroundTheEnd(t *testing.T) {
	const words = 64
	m := memory(words)
	w, r := writer{shared: m, words: words}, reader{shared: m, words: words}
	for i := range 2000 {
		n := i % 100
		want := bytes.Repeat([]byte{byte(i)}, n)
		if err := w.write([]byte("head"), want); err != nil {
			t.Fatal(i, err)
		}
		got, err := r.next(nil)
		if err != nil || string(got) != "head"+string(want) {
			t.Fatalf("chunk %d: %q, %v", i, got, err)
		}
	}
	full := 0
	for ; ; full++ {
		if err := w.write(nil, make([]byte, 16)); err == errFull {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if full != (words-1-chunkMargin)/6 {
		t.Errorf("%d chunks of 6 words fit into %d", full, words)
	}
	*word(m.header, offReadPos) = (w.pos + 3) % words // beyond what was written
	if err := w.write(nil, nil); err != errCorrupt {
		t.Errorf("a client that has read more than there was: %v", err)
	}
}

func TestMemoryThatIsGoneIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	mem, err := makeFile(path, Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, 8192, 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for _, size := range []int64{4096, 0} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		for range 3 { // not only once
			err := guard(func() error { mem[size] = 1; return nil })
			if !errors.Is(err, errGone) {
				t.Fatalf("got %v", err)
			}
			if err := guard(func() error { copy(mem[size:], "data"); return nil }); err != errGone {
				t.Fatalf("got %v", err)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a mistake of our own was taken for the client's")
		}
	}()
	_ = guard(func() error { var none []byte; none[len(path)] = 1; return nil })
}
