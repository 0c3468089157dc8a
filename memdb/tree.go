package memdb

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// The tree's limits.
const (
	MaxFileSize  = 1 << 20   // bytes in one file
	MaxTreeBytes = 128 << 20 // bytes of content in all files
	MaxEntries   = 256 << 10 // entries, the root included
	MaxNameLen   = 255       // bytes in one name that a change made here gives: see ValidName
)

// MaxShownName is the length in bytes of the longest name that a mount shows: the one that every
// kernel takes from a FUSE file system, and the stock daemon's limit.
const MaxShownName = 1024

// Tree is the configuration tree. All methods may be called from any
// goroutine. One lock guards everything in it; it is held for the change or
// look-up itself, never for I/O or for hashing files.
type Tree struct {
	mu     sync.RWMutex
	nodes  map[uint64]*node // by inode
	root   *node
	order  []*node // ascending by inode; deleted ones stay as holes (e == nil) for a while
	holes  int
	bytes  int64
	guests guestList
	locks  map[string]lockNote // by path
	spare  map[*node]uint64    // nodes whose content has much spare room, and the version seen last

	guestView atomic.Pointer[guestView] // nil means nobody has asked yet

	counts counts
}

// node is the place of one inode in the tree. Its entry is replaced with each
// change; the node stays until the entry is deleted.
type node struct {
	inode  uint64
	e      *Entry // nil once deleted
	parent *node  // nil for the root
	kids   map[string]*node
	used   int // bytes of e.data's backing array that have been handed out; -1 unknown

	// sorted is kids in the order of their names; nil until somebody asks and
	// after each change of the names. Readers fill it in, hence the atomic.
	sorted atomic.Pointer[[]*node]
}

// put enters n into the directory d under its present name.
func (d *node) put(n *node) {
	d.kids[n.e.Name] = n
	d.sorted.Store(nil)
}

// drop takes n out of the directory d, unless another has taken its name.
func (d *node) drop(n *node) {
	if d.kids[n.e.Name] == n {
		delete(d.kids, n.e.Name)
		d.sorted.Store(nil)
	}
}

// byName returns d's children, ascending by name. The slice is shared.
func (d *node) byName() []*node {
	if list := d.sorted.Load(); list != nil {
		return *list
	}
	list := make([]*node, 0, len(d.kids))
	for _, k := range d.kids {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b *node) int { return strings.Compare(a.e.Name, b.e.Name) })
	d.sorted.Store(&list)
	return list
}

// New returns an empty tree: a root at version 1.
func New() *Tree {
	t := newTree(0)
	t.setRoot(NewEntry(RootInode, RootInode, 1, 0, 0, TypeDir, "", nil))
	t.publish()
	return t
}

func newTree(n int) *Tree {
	return &Tree{
		nodes:  make(map[uint64]*node, n),
		order:  make([]*node, 0, n+n/8),
		guests: guestList{ids: make(map[uint32]Guest)},
		locks:  make(map[string]lockNote),
		spare:  make(map[*node]uint64),
	}
}

func (t *Tree) setRoot(e *Entry) {
	if t.root == nil {
		t.root = &node{inode: RootInode, kids: make(map[string]*node)}
		t.nodes[RootInode] = t.root
		t.order = append(t.order, t.root)
	}
	t.root.e = e
}

// Info is the result of a look-up: an entry, and what its place in the tree
// says about it.
type Info struct {
	*Entry
	Private bool // at or below priv or nodes/NAME/priv
}

// Root returns the root's entry: its version, writer and modification time are
// the database's.
func (t *Tree) Root() *Entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.root.e
}

// Get returns the entry with the given inode.
func (t *Tree) Get(inode uint64) (Info, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.nodes[inode]
	if !ok {
		return Info{}, false
	}
	return Info{n.e, n.private()}, true
}

// Locate is Get and Path in one.
func (t *Tree) Locate(inode uint64) (e Info, path string, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.nodes[inode]
	if !ok {
		return Info{}, "", false
	}
	return Info{n.e, n.private()}, t.path(n), true
}

// Child returns the entry called name in the directory with the given inode.
func (t *Tree) Child(dir uint64, name string) (Info, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	d, ok := t.nodes[dir]
	if !ok {
		return Info{}, false
	}
	n, ok := d.kids[name]
	if !ok {
		return Info{}, false
	}
	return Info{n.e, n.private()}, true
}

// Lookup returns the entry at a clean path.
func (t *Tree) Lookup(path string) (Info, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.find(path)
	if n == nil {
		return Info{}, false
	}
	return Info{n.e, n.private()}, true
}

// Path returns the path of the entry with the given inode.
func (t *Tree) Path(inode uint64) (string, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.nodes[inode]
	if !ok {
		return "", false
	}
	return t.path(n), true
}

// ReadDir returns the entries of a directory, ascending by name, and whether
// there is such a directory. The slice is the caller's. Names that a damaged
// database or a peer brought in may be none that a kernel takes: see ShownName.
func (t *Tree) ReadDir(inode uint64) ([]*Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.nodes[inode]
	if !ok || !n.e.IsDir() {
		return nil, false
	}
	list := make([]*Entry, 0, len(n.kids))
	for _, k := range n.byName() {
		list = append(list, k.e)
	}
	return list, true
}

// Usage returns the bytes of content in all files and the number of entries,
// the root included. Both are kept up to date, not counted.
func (t *Tree) Usage() (bytes int64, entries int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bytes, len(t.nodes)
}

// Entries returns all entries, the root first, ascending by inode. It is one
// consistent state of the tree.
func (t *Tree) Entries() []*Entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]*Entry, 0, len(t.nodes))
	for _, n := range t.order {
		if n.e != nil {
			list = append(list, n.e)
		}
	}
	return list
}

// find returns the node at a clean path, or nil.
func (t *Tree) find(path string) *node {
	n := t.root
	for path != "" && n != nil {
		var name string
		name, path, _ = strings.Cut(path, "/")
		n = n.kids[name]
	}
	return n
}

// path returns a node's path.
func (t *Tree) path(n *node) string {
	size := 0
	for p := n; p.parent != nil; p = p.parent {
		size += len(p.e.Name) + 1
	}
	if size == 0 {
		return ""
	}
	b := make([]byte, size-1)
	end := len(b)
	for p := n; p.parent != nil; p = p.parent {
		end -= copy(b[end-len(p.e.Name):], p.e.Name)
		if end > 0 {
			end--
			b[end] = '/'
		}
	}
	return string(b)
}

// private reports whether a node is, or lies below, priv or nodes/NAME/priv.
func (n *node) private() bool {
	var third, second, first *node // the topmost three levels, first next to the root
	for p := n; p.parent != nil; p = p.parent {
		third, second, first = second, first, p
	}
	switch {
	case first == nil:
		return false
	case first.e.Name == "priv":
		return true
	}
	return first.e.Name == "nodes" && second != nil && third != nil && third.e.Name == "priv"
}

// link puts e into the tree, at its inode, below its parent. Whatever was at
// that inode or name must be gone.
func (t *Tree) link(e *Entry) {
	n := t.add(e)
	n.parent = t.nodes[e.Parent]
	n.parent.put(n)
}

// add makes a node for e, which is not yet in its directory.
func (t *Tree) add(e *Entry) *node {
	n := &node{inode: e.Inode, e: e, used: -1}
	if e.IsDir() {
		n.kids = make(map[string]*node)
	}
	t.nodes[e.Inode] = n
	if last := t.order[len(t.order)-1]; last.inode < e.Inode {
		t.order = append(t.order, n)
	} else {
		t.insert(n)
	}
	t.bytes += int64(len(e.data))
	return n
}

// insert places n in the middle of the order, or into the hole that its inode
// left.
func (t *Tree) insert(n *node) {
	i, found := slices.BinarySearchFunc(t.order, n.inode, func(m *node, inode uint64) int {
		switch {
		case m.inode < inode:
			return -1
		case m.inode > inode:
			return 1
		}
		return 0
	})
	if found {
		t.order[i] = n
		t.holes--
		return
	}
	t.order = slices.Insert(t.order, i, n)
}

// unlink takes n out of the tree.
func (t *Tree) unlink(n *node) {
	n.parent.drop(n)
	delete(t.nodes, n.inode)
	delete(t.spare, n)
	t.bytes -= int64(len(n.e.data))
	n.e, n.kids = nil, nil // the order keeps the node for a while
	n.sorted.Store(nil)
	t.holes++
	if t.holes > 1024 && t.holes > len(t.order)/2 {
		t.order = slices.DeleteFunc(t.order, func(m *node) bool { return m.e == nil })
		t.holes = 0
	}
}
