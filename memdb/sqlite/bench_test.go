package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"pmxcfs/memdb"
)

// benchEntries returns a tree of n files of 700 bytes.
func benchEntries(n int) []*memdb.Entry {
	content := bytes.Repeat([]byte("0123456789"), 70)
	entries := []*memdb.Entry{memdb.NewEntry(0, 0, uint64(n+1), 1, 1, memdb.TypeDir, "", nil)}
	for i := range n {
		inode := uint64(i + 2)
		entries = append(entries, memdb.NewEntry(inode, 0, inode-1, 1, 1, memdb.TypeFile, fmt.Sprintf("%d.conf", i), bytes.Clone(content)))
	}
	return entries
}

// written returns the bytes that this process has sent to disks so far.
func written(tb testing.TB) int64 {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatal("no write_bytes")
	return 0
}

// BenchmarkCommit makes transactions of so many rows of 700 bytes each, and the
// version row.
func BenchmarkCommit(b *testing.B) {
	const rows = 10_000
	for _, batch := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "config.db")
			entries := benchEntries(rows)
			if err := Create(path, entries); err != nil {
				b.Fatal(err)
			}
			db, entries, _, err := Open(Config{Path: path})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			content := bytes.Repeat([]byte("abcdefghij"), 70)
			changes := make([]memdb.Change, batch+1)
			version := entries[0].Version
			next := 1
			before := written(b)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				for i := range batch {
					old := entries[next]
					e := memdb.NewEntry(old.Inode, old.Parent, version+1, 1, 2, memdb.TypeFile, old.Name, content)
					changes[i] = memdb.Change{Inode: e.Inode, Old: old, New: e}
					next = next%rows + 1
				}
				version++
				changes[batch] = memdb.Change{Inode: 0, Old: entries[0], New: memdb.NewEntry(0, 0, version, 1, 2, memdb.TypeDir, "", nil)}
				if err := db.Commit(changes); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(written(b)-before)/float64(b.N*batch), "disk-B/row")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{10_000, memdb.MaxEntries - 1} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "config.db")
			if err := Create(path, benchEntries(n)); err != nil {
				b.Fatal(err)
			}
			runtime.GC()
			b.ReportAllocs()
			for b.Loop() {
				db, entries, _, err := Open(Config{Path: path})
				if err != nil || len(entries) != n+1 {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
