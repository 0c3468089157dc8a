package dcdb

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"pmxcfs/dfsm"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// filled returns a tree of n entries with small files, a hundred to a directory.
func filled(tb testing.TB, n int) *memdb.Tree {
	entries := []*memdb.Entry{memdb.NewEntry(0, 0, uint64(n)+1, 1, 1000, memdb.TypeDir, "", nil)}
	dir := uint64(0)
	for i := uint64(2); len(entries) < n; i++ {
		if i%100 == 2 {
			dir = i
			entries = append(entries, memdb.NewEntry(i, 0, i, 1, 1000, memdb.TypeDir, fmt.Sprint("d", i), nil))
			continue
		}
		data := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 350)
		entries = append(entries, memdb.NewEntry(i, dir, i, 1, 1000, memdb.TypeFile, fmt.Sprint("f", i), data))
	}
	return build(tb, entries)
}

// BenchmarkSync measures what an empty node's join costs: on the leader the
// state and what to send, then the encoding; on the new node taking the updates
// in and the commit, with a real file.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		tree := filled(b, n)
		leader := newTestApp(tree, newMemFile(tree))
		empty := newTestApp(memdb.New(), newMemFile(memdb.New()))
		both := states(b, 0, leader, empty)
		b.Run(fmt.Sprintf("states/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := leader.ProcessStates(both); err != nil {
					b.Fatal(err)
				}
			}
		})
		s, err := leader.ProcessStates(both)
		if err != nil {
			b.Fatal(err)
		}
		u := s.Updates.(*updates)
		var payloads [][]byte
		for p, ok := u.Next(); ok; p, ok = u.Next() {
			payloads = append(payloads, bytes.Clone(p))
		}
		b.Run(fmt.Sprintf("encode/%d", n), func(b *testing.B) {
			for b.Loop() {
				u.next = 0
				for _, ok := u.Next(); ok; _, ok = u.Next() {
				}
			}
		})
		join := func() *app {
			a := newTestApp(memdb.New(), newMemFile(memdb.New()))
			both[0].Self, both[1].Self = false, true
			if _, err := a.ProcessStates(both); err != nil {
				b.Fatal(err)
			}
			return a
		}
		b.Run(fmt.Sprintf("updates/%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				a := join()
				b.StartTimer()
				if err := a.ApplyUpdates(payloads); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("commit/%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				a := join()
				db, entries, _, err := sqlite.Open(sqlite.Config{Path: filepath.Join(b.TempDir(), "config.db")})
				if err != nil {
					b.Fatal(err)
				}
				a.tree, a.db = build(b, entries), newClocked(db, nil)
				a.start()
				if err := a.ApplyUpdates(payloads); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := a.Commit(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		both[0].Self, both[1].Self = true, false
	}
}

func BenchmarkCodec(b *testing.B) {
	op := memdb.Op{Kind: memdb.OpWrite, Path: "nodes/node1/qemu-server/100.conf", Data: make([]byte, 700), Truncate: true}
	payload := encodeOp(&op)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encodeOp(&op)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeOp(op.Kind, payload); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkApply measures a batch of overwrites with a real file.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db, entries, _, err := sqlite.Open(sqlite.Config{Path: filepath.Join(b.TempDir(), "config.db")})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			a := newTestApp(build(b, entries), db)
			var batch []dfsm.Message
			for i := range n {
				f := create(fmt.Sprint("f", i))
				a.Apply([]dfsm.Message{opFrom(2, f)})
				batch = append(batch, opFrom(2, memdb.Op{Kind: memdb.OpWrite, Path: f.Path, Data: make([]byte, 700), Truncate: true}))
			}
			for b.Loop() {
				a.Apply(batch)
			}
		})
	}
}
