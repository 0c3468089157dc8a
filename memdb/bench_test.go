package memdb

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// cityOf returns the entries of a tree with n guests of size bytes, spread over
// 10 nodes.
func cityOf(n, size int) []*Entry {
	entries := []*Entry{rootEntry(), dirEntry(1, 0, "nodes")}
	next := uint64(2)
	var dirs []uint64
	for i := range 10 {
		node := next
		entries = append(entries, dirEntry(node, 1, fmt.Sprintf("node%d", i)), dirEntry(node+1, node, "qemu-server"))
		dirs = append(dirs, node+1)
		next += 2
	}
	text := strings.Repeat("configuration\n", size/14+1)
	for i := range n {
		entries = append(entries, NewEntry(next, dirs[i%10], next, 1, 1e9, TypeFile, fmt.Sprintf("%d.conf", 100+i), []byte(text[:size])))
		next++
	}
	entries[0] = NewEntry(0, 0, next, 0, 0, TypeDir, "", nil)
	return entries
}

func city(b *testing.B, n, size int) *Tree {
	b.Helper()
	tr, _, err := Build(cityOf(n, size))
	if err != nil {
		b.Fatal(err)
	}
	return tr
}

func must(b *testing.B, tr *Tree, op *Op) {
	if _, err := tr.Apply(op); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkCreateAndDelete(b *testing.B) {
	tr := city(b, 10_000, 700)
	create, remove := opCreate("nodes/node5/file"), opDelete("nodes/node5/file")
	b.ReportAllocs()
	for b.Loop() {
		must(b, tr, &create)
		must(b, tr, &remove)
	}
}

func BenchmarkMkdirAndDelete(b *testing.B) {
	tr := city(b, 10_000, 700)
	mkdir, remove := opMkdir("nodes/node5/dir"), opDelete("nodes/node5/dir")
	b.ReportAllocs()
	for b.Loop() {
		must(b, tr, &mkdir)
		must(b, tr, &remove)
	}
}

func BenchmarkOverwrite700(b *testing.B) {
	tr := city(b, 10_000, 700)
	op := opReplace("nodes/node5/qemu-server/105.conf", strings.Repeat("x", 700))
	b.ReportAllocs()
	for b.Loop() {
		must(b, tr, &op)
	}
}

// BenchmarkWrite is what a write of the mount asks of the tree on a single node.
func BenchmarkWrite(b *testing.B) {
	tr := city(b, 10_000, 700)
	e, _ := tr.Lookup("nodes/node5/qemu-server/105.conf")
	data := strings.Repeat("x", 700)
	b.ReportAllocs()
	for b.Loop() {
		_, path, _ := tr.Locate(e.Inode)
		op := opReplace(path, data)
		if _, err := tr.ApplyWithin(&op); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend4KTo512K(b *testing.B) {
	tr := city(b, 1000, 700)
	do(b, tr, opCreate("big"))
	op := opWrite("big", 0, strings.Repeat("x", 4096))
	b.ReportAllocs()
	b.SetBytes(4096)
	for b.Loop() {
		op.Truncate = op.Offset == 0
		must(b, tr, &op)
		op.Offset = (op.Offset + 4096) % (512 << 10)
	}
}

func BenchmarkRename(b *testing.B) {
	tr := city(b, 10_000, 700)
	there := opRename("nodes/node5/qemu-server/105.conf", "nodes/node6/qemu-server/105.conf")
	back := opRename(there.To, there.Path)
	b.ReportAllocs()
	for b.Loop() {
		must(b, tr, &there)
		must(b, tr, &back)
	}
}

func BenchmarkCheck(b *testing.B) {
	tr := city(b, 10_000, 700)
	op := opWrite("nodes/node5/qemu-server/105.conf", 0, "x")
	b.ReportAllocs()
	for b.Loop() {
		if tr.Check(&op) != nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkGet(b *testing.B) {
	tr := city(b, 10_000, 700)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := uint64(0); pb.Next(); i++ {
			if _, ok := tr.Get(100 + i%9000); !ok {
				b.Fatal("not found")
			}
		}
	})
}

func BenchmarkChild(b *testing.B) {
	tr := city(b, 10_000, 700)
	dir, _ := tr.Lookup("nodes/node5/qemu-server")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tr.Child(dir.Inode, "105.conf"); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	tr := city(b, 10_000, 700)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tr.Lookup("nodes/node5/qemu-server/105.conf"); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkPath(b *testing.B) {
	tr := city(b, 10_000, 700)
	e, _ := tr.Lookup("nodes/node5/qemu-server/105.conf")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tr.Path(e.Inode); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkReadDir1000(b *testing.B) {
	tr := city(b, 10_000, 700)
	dir, _ := tr.Lookup("nodes/node5/qemu-server")
	b.ReportAllocs()
	for b.Loop() {
		if list, _ := tr.ReadDir(dir.Inode); len(list) != 1000 {
			b.Fatal(len(list))
		}
	}
}

func BenchmarkReadDir1000AfterAChangeOfNames(b *testing.B) {
	tr := city(b, 10_000, 700)
	dir, _ := tr.Lookup("nodes/node5/qemu-server")
	b.ReportAllocs()
	for b.Loop() {
		tr.nodes[dir.Inode].sorted.Store(nil)
		tr.ReadDir(dir.Inode)
	}
}

func BenchmarkGuests10k(b *testing.B) {
	tr := city(b, 10_000, 700)
	b.ReportAllocs()
	for b.Loop() {
		if list, _ := tr.Guests(); len(list) != 10_000 {
			b.Fatal(len(list))
		}
	}
}

func BenchmarkIndex100k(b *testing.B) {
	b.Run("digests kept", func(b *testing.B) {
		tr := city(b, 100_000, 700)
		tr.Index()
		b.ReportAllocs()
		for b.Loop() {
			tr.Index()
		}
	})
	b.Run("first", func(b *testing.B) {
		entries := cityOf(100_000, 700)
		for b.Loop() {
			b.StopTimer()
			for _, e := range entries {
				e.index.Store(nil)
			}
			b.StartTimer()
			EncodeIndex(entries)
		}
	})
}

func BenchmarkDecodeIndex100k(b *testing.B) {
	index := city(b, 100_000, 0).Index()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeIndex(index); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChecksum100k(b *testing.B) {
	tr := city(b, 100_000, 700)
	for b.Loop() {
		tr.Checksum()
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{10_000, MaxEntries - 22} {
		entries := cityOf(n, 10)
		b.Run(fmt.Sprint(len(entries)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Build(entries); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReplace100kWithTenChanges(b *testing.B) {
	tr := city(b, 100_000, 700)
	for b.Loop() {
		b.StopTimer()
		next, _, _ := Build(tr.Entries())
		for i := range 10 {
			do(b, next, opMTime(fmt.Sprintf("nodes/node%d", i), 5))
		}
		b.StartTimer()
		if n := len(tr.Replace(next)); n != 11 {
			b.Fatal(n)
		}
	}
}

func BenchmarkRevertOneWriteOf10k(b *testing.B) {
	tr := city(b, 10_000, 700)
	op := opReplace("nodes/node5/qemu-server/105.conf", "x")
	for b.Loop() {
		var d Delta
		d.Add(do(b, tr, op).Changes)
		tr.Revert(&d)
	}
}

// heap returns the bytes of heap that make's result holds.
func heap(make func() any) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := make()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(v)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

func TestMemoryPerEntryIsBounded(t *testing.T) {
	for _, c := range []struct {
		guests, size int
		bound        float64 // bytes per entry besides its content
	}{
		{10_000, 700, 350},
		{128, 1 << 20, 10_000},
		{MaxEntries - 22, 512, 350},
	} {
		if c.guests > 10_000 && testing.Short() {
			continue
		}
		used := heap(func() any { tr, _, _ := Build(cityOf(c.guests, c.size)); return tr })
		over := float64(used)/float64(c.guests) - float64(c.size)
		t.Logf("%d guests of %d bytes: %.1f MiB of heap, %.0f bytes an entry besides its content", c.guests, c.size, float64(used)/(1<<20), over)
		if over > c.bound {
			t.Errorf("more than %.0f bytes", c.bound)
		}
		grown := heap(func() any {
			tr := New()
			sow(t, tr, "nodes/", "nodes/a/", "nodes/a/qemu-server/")
			data := strings.Repeat("x", c.size)
			for i := range c.guests {
				path := fmt.Sprintf("nodes/a/qemu-server/%d.conf", 100+i)
				do(t, tr, opCreate(path), opWrite(path, 0, data))
			}
			return tr
		})
		over = float64(grown)/float64(c.guests) - float64(c.size)
		t.Logf("made by operations: %.1f MiB, %.0f bytes an entry besides its content", float64(grown)/(1<<20), over)
		if over > 1.3*c.bound {
			t.Errorf("more than %.0f bytes", 1.3*c.bound)
		}
	}
}
