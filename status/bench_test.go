package status

import (
	"fmt"
	"testing"

	"pmxcfs/memdb"
)

// busy is a store of a cluster of 32 nodes with 20 values each.
func busy() *Store {
	s := mustNew(Config{Tree: memdb.New(), NodeName: "node1"})
	s.SetCluster(labCluster(1, 32, 1))
	app := s.App()
	for node := 1; node <= 32; node++ {
		for i := range 20 {
			key := fmt.Sprintf("some-key-%d", i)
			if node == 1 {
				s.Set(key, []byte("value"))
			} else {
				deliver(app, node, key, "value")
			}
		}
	}
	return s
}

func BenchmarkVersionUnchanged(b *testing.B) {
	s := busy()
	b.ReportAllocs()
	for b.Loop() {
		s.Version()
	}
}

func BenchmarkVersionAfterAWrite(b *testing.B) {
	s := busy()
	op := memdb.Op{Kind: memdb.OpWrite, Path: "user.cfg"}
	b.ReportAllocs()
	for b.Loop() {
		s.Applied(&op, nil, false)
		s.Version()
	}
}

func BenchmarkVersionAfterASet(b *testing.B) {
	s := busy()
	value := []byte("value")
	b.ReportAllocs()
	for b.Loop() {
		s.Set("some-key-7", value)
		s.Version()
	}
}

func BenchmarkSet(b *testing.B) {
	s := busy()
	value := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		s.Set("some-key-7", value)
	}
}

func BenchmarkGet(b *testing.B) {
	s := busy()
	b.ReportAllocs()
	for b.Loop() {
		s.Get("some-key-7", "node17")
	}
}

func BenchmarkMembersUnchanged(b *testing.B) {
	s := busy()
	b.ReportAllocs()
	for b.Loop() {
		s.Members()
	}
}

func BenchmarkApplyUpdate(b *testing.B) {
	app := busy().App()
	b.ReportAllocs()
	for b.Loop() {
		deliver(app, 5, "some-key-7", "value")
	}
}
