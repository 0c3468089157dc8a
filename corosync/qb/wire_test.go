package qb

import "testing"

func FuzzBodyLength(f *testing.F) {
	for _, c := range [][3]int64{{16, 16, 1 << 20}, {15, 16, 1 << 20}, {1 << 20, 1 << 20, 1 << 20}, {-1, -1, 1 << 20}, {1<<31 - 1, -1, 1 << 20}, {20, 16, 1 << 20}} {
		f.Add(c[0], c[1], c[2])
	}
	f.Fuzz(func(t *testing.T, claimed, arrived, bufferSize int64) {
		n, ok := bodyLength(claimed, arrived, bufferSize)
		fits := claimed >= 16 && claimed <= bufferSize && (arrived < 0 || claimed <= arrived)
		if ok != fits || ok && int64(n) != claimed-16 {
			t.Fatalf("claimed %d, arrived %d, buffer %d: %d, %v", claimed, arrived, bufferSize, n, ok)
		}
	})
}
