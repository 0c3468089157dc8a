package qb

import (
	"encoding/binary"
	"syscall"
	"testing"
)

func FuzzBodyLength(f *testing.F) {
	for _, c := range [][3]int64{{16, 16, 1 << 20}, {15, 16, 1 << 20}, {1 << 20, 1 << 20, 1 << 20}, {-1, -1, 1 << 20}, {20, 16, 1 << 20}} {
		f.Add(c[0], c[1], c[2])
	}
	f.Fuzz(func(t *testing.T, claimed, arrived, bufferSize int64) {
		n, ok := bodyLength(claimed, arrived, bufferSize)
		fits := claimed >= 16 && claimed <= bufferSize && claimed <= arrived
		if ok != fits || ok && int64(n) != claimed-16 {
			t.Fatalf("claimed %d, arrived %d, buffer %d: %d, %v", claimed, arrived, bufferSize, n, ok)
		}
	})
}

func FuzzHello(f *testing.F) {
	hello := func(id int32, size, buffer uint32) []byte {
		b := binary.NativeEndian.AppendUint64(nil, uint64(uint32(id)))
		b = binary.NativeEndian.AppendUint64(b, uint64(size))
		return binary.NativeEndian.AppendUint64(b, uint64(buffer))
	}
	f.Add(hello(idAuthenticate, helloSize, 1<<20))
	f.Add(hello(idAuthenticate, 0, 1<<20))
	f.Add(hello(1, helloSize, 1<<32-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < helloSize {
			return
		}
		size, err := decodeHello((*[helloSize]byte)(b))
		if good := int32(binary.NativeEndian.Uint32(b)) == -1 && binary.NativeEndian.Uint32(b[8:]) == helloSize; good != (err == nil) {
			t.Fatalf("%v", err)
		}
		if err == nil && size != binary.NativeEndian.Uint32(b[16:]) {
			t.Fatalf("asks for %d bytes", size)
		}
	})
}

func TestWelcomeOfARefusedClientHasTheErrno(t *testing.T) {
	b := encodeWelcome(syscall.EACCES, 0, nil)
	if len(b) != welcomeSize || int32(binary.NativeEndian.Uint32(b[16:])) != -int32(syscall.EACCES) {
		t.Fatalf("%d bytes, % x", len(b), b[:ResponseHeader])
	}
}
