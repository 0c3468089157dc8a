package memdb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// t0 is when the tests' operations happen, unless they say otherwise.
var t0 = time.Unix(1_000_000, 0)

const (
	testWriter = 1
	testMTime  = 1000
)

func opMkdir(path string) Op {
	return Op{Kind: OpMkdir, Path: path, Writer: testWriter, MTime: testMTime, Now: t0}
}
func opCreate(path string) Op {
	return Op{Kind: OpCreate, Path: path, Writer: testWriter, MTime: testMTime, Now: t0}
}
func opDelete(path string) Op {
	return Op{Kind: OpDelete, Path: path, Writer: testWriter, MTime: testMTime, Now: t0}
}
func opRename(from, to string) Op {
	return Op{Kind: OpRename, Path: from, To: to, Writer: testWriter, MTime: testMTime, Now: t0}
}
func opMTime(path string, mtime uint32) Op {
	return Op{Kind: OpMTime, Path: path, Writer: testWriter, MTime: mtime, Now: t0}
}
func opWrite(path string, offset uint32, data string) Op {
	return Op{Kind: OpWrite, Path: path, Offset: offset, Data: []byte(data), Writer: testWriter, MTime: testMTime, Now: t0}
}
func opTruncate(path string, size uint32) Op {
	return Op{Kind: OpWrite, Path: path, Offset: size, Truncate: true, Writer: testWriter, MTime: testMTime, Now: t0}
}
func opReplace(path, data string) Op {
	op := opWrite(path, 0, data)
	op.Truncate = true
	return op
}

// do applies operations that must succeed and returns the last one's result.
func do(tb testing.TB, tr *Tree, ops ...Op) (res Result) {
	tb.Helper()
	for i := range ops {
		var err error
		if res, err = tr.Apply(&ops[i]); err != nil {
			tb.Fatal(err)
		}
	}
	return res
}

// plant makes a tree. Each item is a directory ("a/b/"), or a file with its
// content ("a/b/c=text").
func plant(tb testing.TB, items ...string) *Tree {
	tb.Helper()
	tr := New()
	sow(tb, tr, items...)
	return tr
}

func sow(tb testing.TB, tr *Tree, items ...string) {
	tb.Helper()
	for _, item := range items {
		if path, isDir := strings.CutSuffix(item, "/"); isDir {
			do(tb, tr, opMkdir(path))
			continue
		}
		path, content, _ := strings.Cut(item, "=")
		do(tb, tr, opCreate(path))
		if content != "" {
			do(tb, tr, opWrite(path, 0, content))
		}
	}
}

// errnoOf returns the errno in err; 0 for nil.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var errno syscall.Errno
	var pe *fs.PathError
	if !errors.As(err, &pe) || !errors.As(err, &errno) {
		panic(fmt.Sprintf("%v (%T) is not a path error around an errno", err, err))
	}
	return errno
}

// row is an entry as plain values, with its path.
type row struct {
	path                   string
	inode, parent, version uint64
	writer, mtime          uint32
	typ                    Type
	name, data             string
}

// picture is everything about a tree that an operation could change.
type picture struct {
	rows          []row
	index         []byte
	checksum      Digest
	bytes         int64
	entries       int
	guests        []Guest
	guestsVersion uint32
	locks         map[string]lockNote
}

func pictureOf(tr *Tree) picture {
	var p picture
	for _, e := range tr.Entries() {
		path, _ := tr.Path(e.Inode)
		p.rows = append(p.rows, row{path, e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, string(e.Data())})
	}
	p.index, p.checksum = tr.Index(), tr.Checksum()
	p.bytes, p.entries = tr.Usage()
	p.guests, p.guestsVersion = tr.Guests()
	tr.mu.RLock()
	p.locks = maps.Clone(tr.locks)
	tr.mu.RUnlock()
	return p
}

// diff says how q differs from p, but for the VM list's versions and the notes
// of locks; empty if it doesn't.
func (p picture) diff(q picture) string {
	for i := range max(len(p.rows), len(q.rows)) {
		switch {
		case i >= len(p.rows):
			return fmt.Sprintf("more rows: %+.200v", q.rows[i])
		case i >= len(q.rows):
			return fmt.Sprintf("a row less: %+.200v", p.rows[i])
		case p.rows[i] != q.rows[i]:
			return fmt.Sprintf("row %d: %+.200v, before %+.200v", i, q.rows[i], p.rows[i])
		}
	}
	sameGuest := func(a, b Guest) bool { return a.VMID == b.VMID && a.sameOwner(b) }
	switch {
	case !bytes.Equal(p.index, q.index):
		return "the index differs"
	case p.checksum != q.checksum:
		return "the checksum differs"
	case p.bytes != q.bytes || p.entries != q.entries:
		return fmt.Sprintf("usage %d bytes, %d entries; before %d, %d", q.bytes, q.entries, p.bytes, p.entries)
	case !slices.EqualFunc(p.guests, q.guests, sameGuest):
		return fmt.Sprintf("guests %v, before %v", q.guests, p.guests)
	}
	return ""
}

// exactDiff is diff with the VM list's versions and the notes.
func (p picture) exactDiff(q picture) string {
	if d := p.diff(q); d != "" {
		return d
	}
	switch {
	case p.guestsVersion != q.guestsVersion || !slices.Equal(p.guests, q.guests):
		return fmt.Sprintf("VM list %v at %d, before %v at %d", q.guests, q.guestsVersion, p.guests, p.guestsVersion)
	case !maps.Equal(p.locks, q.locks):
		return "the notes of locks differ"
	}
	return ""
}

// checkSound fails the test if the tree's parts contradict each other.
func checkSound(tb testing.TB, tr *Tree) {
	tb.Helper()
	tr.mu.RLock()
	defer tr.mu.RUnlock()
	bad := func(format string, args ...any) {
		tb.Helper()
		tb.Fatalf("unsound tree: "+format, args...)
	}

	var size int64
	seen := make(map[uint64]bool)
	var walk func(n *node)
	walk = func(n *node) {
		if seen[n.inode] {
			bad("inode %d is linked twice", n.inode)
		}
		seen[n.inode] = true
		switch {
		case n.e == nil:
			bad("inode %d is linked but deleted", n.inode)
		case n.e.Inode != n.inode || tr.nodes[n.inode] != n:
			bad("inode %d is not at its place", n.inode)
		case n.e.IsDir() != (n.kids != nil):
			bad("inode %d is a %v, its children say otherwise", n.inode, n.e.Type)
		case n.used > cap(n.e.data), n.used >= 0 && n.used < len(n.e.data):
			bad("inode %d: %d bytes handed out, %d in use of %d", n.inode, n.used, len(n.e.data), cap(n.e.data))
		}
		size += int64(len(n.e.data))
		for name, k := range n.kids {
			if k.parent != n || k.e.Parent != n.inode || k.e.Name != name {
				bad("inode %d (%q) does not belong into directory %d as %q", k.inode, k.e.Name, n.inode, name)
			}
			walk(k)
		}
		if list := n.sorted.Load(); list != nil {
			if len(*list) != len(n.kids) {
				bad("directory %d lists %d names and has %d", n.inode, len(*list), len(n.kids))
			}
			for i, k := range *list {
				if n.kids[k.e.Name] != k || i > 0 && (*list)[i-1].e.Name >= k.e.Name {
					bad("directory %d lists %q wrongly", n.inode, k.e.Name)
				}
			}
		}
	}
	walk(tr.root)
	if len(seen) != len(tr.nodes) {
		bad("%d entries are linked, %d known", len(seen), len(tr.nodes))
	}
	if size != tr.bytes {
		bad("%d bytes in files, %d counted", size, tr.bytes)
	}
	holes := 0
	for i, n := range tr.order {
		if i > 0 && tr.order[i-1].inode >= n.inode {
			bad("the order has %d before %d", tr.order[i-1].inode, n.inode)
		}
		switch {
		case n.e == nil:
			holes++
			if n.kids != nil || n.sorted.Load() != nil {
				bad("the deleted inode %d keeps its children", n.inode)
			}
		case tr.nodes[n.inode] != n:
			bad("the order has a stranger at inode %d", n.inode)
		}
	}
	if holes != tr.holes || len(tr.order)-holes != len(tr.nodes) {
		bad("%d in order, of those %d holes (%d counted), %d entries", len(tr.order), holes, tr.holes, len(tr.nodes))
	}
	for n := range tr.spare {
		if tr.nodes[n.inode] != n {
			bad("inode %d has spare room but is gone", n.inode)
		}
	}
}
