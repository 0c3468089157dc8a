package memdb

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// model is the tree once more, as naively as the specification can be written
// down: paths and plain maps. It shares no code with the tree.
type model struct {
	at      map[string]modelEntry // by path; the root is ""
	version uint64
	writer  uint32
	mtime   uint32
	guests  map[string]string // VMID → directory of its configuration
}

type modelEntry struct {
	dir            bool
	data           string
	inode, version uint64
	writer, mtime  uint32
}

func newModel() *model {
	return &model{at: map[string]modelEntry{"": {dir: true}}, version: 1, guests: map[string]string{}}
}

func (m *model) clone() *model {
	c := *m
	c.at, c.guests = maps.Clone(m.at), maps.Clone(m.guests)
	return &c
}

func (m *model) empty(dir string) bool {
	for p := range m.at {
		if p != "" && p != dir && (dir == "" || strings.HasPrefix(p, dir+"/")) {
			return false
		}
	}
	return true
}

func modelGuest(p string) (vmid, dir string, ok bool) {
	if s := guestPattern.FindStringSubmatch(p); s != nil {
		return s[3], path.Dir(p), true
	}
	return "", "", false
}

func modelSplit(p string) (dir, base string) {
	dir, base = path.Split(p)
	return strings.TrimSuffix(dir, "/"), base
}

func (m *model) place(p string) (errno syscall.Errno) {
	dir, base := modelSplit(p)
	d, ok := m.at[dir]
	switch {
	case !ok:
		return syscall.ENOENT
	case !d.dir:
		return syscall.ENOTDIR
	case base == "" || base == "." || base == "..":
		return syscall.EACCES
	}
	return 0
}

func (m *model) isLock(p string) bool {
	return m.at[p].dir && path.Dir(p) == "priv/lock"
}

func (m *model) apply(op Op) syscall.Errno {
	p, to := strings.Trim(op.Path, "/"), strings.Trim(op.To, "/")
	e, exists := m.at[p]
	vmid, guestDir, isGuest := modelGuest(p)
	next := m.version + 1
	stamp := func(e modelEntry) modelEntry {
		e.version, e.writer, e.mtime = next, op.Writer, op.MTime
		return e
	}
	switch op.Kind {
	case OpMkdir:
		if errno := m.place(p); errno != 0 {
			return errno
		}
		if exists {
			return syscall.EEXIST
		}
		m.at[p] = stamp(modelEntry{dir: true, inode: next})
	case OpCreate, OpWrite:
		if op.Kind == OpWrite && int(op.Offset)+len(op.Data) > 1048576 {
			return syscall.EFBIG
		}
		if errno := m.place(p); errno != 0 {
			return errno
		}
		if have, ok := m.guests[vmid]; isGuest && ok && have != guestDir {
			return syscall.EEXIST
		}
		switch {
		case exists && e.dir:
			return syscall.ENOTDIR
		case exists && op.Kind == OpCreate:
			return syscall.EEXIST
		case !exists && op.Kind == OpWrite:
			return syscall.ENOENT
		}
		if op.Kind == OpCreate {
			m.at[p] = stamp(modelEntry{inode: next})
		} else {
			end := int(op.Offset) + len(op.Data)
			old := e.data
			e.data += strings.Repeat("\x00", max(0, end-len(e.data)))
			e.data = e.data[:op.Offset] + string(op.Data) + e.data[end:]
			if op.Truncate {
				e.data = e.data[:end]
			} else if end < len(old) && e.data[end:] != old[end:] {
				panic("the model is wrong")
			}
			m.at[p] = stamp(e)
		}
		if isGuest {
			m.guests[vmid] = guestDir
		}
	case OpMTime:
		if errno := m.place(p); errno != 0 {
			return errno
		}
		if !exists {
			return syscall.ENOENT
		}
		if m.isLock(p) && (op.MTime < e.mtime || op.Writer != e.writer) {
			return syscall.EACCES
		}
		m.at[p] = stamp(e)
	case OpDelete:
		switch {
		case !exists:
			return syscall.ENOENT
		case p == "":
			return syscall.EACCES
		case e.dir && !m.empty(p):
			return syscall.ENOTEMPTY
		}
		m.remove(p)
	case OpRename:
		toVMID, toDir, toGuest := modelGuest(to)
		target, onto := m.at[to]
		switch {
		case !exists:
			return syscall.ENOENT
		case p == "":
			return syscall.EACCES
		}
		if have, ok := m.guests[toVMID]; !e.dir && toGuest && ok && have != toDir && !(isGuest && vmid == toVMID) {
			return syscall.EEXIST
		}
		switch {
		case m.isLock(p):
			return syscall.EACCES
		case to == "":
			return syscall.EACCES
		case onto && to != p && target.dir && !m.empty(to):
			return syscall.ENOTEMPTY
		}
		if errno := m.place(to); errno != 0 {
			return errno
		}
		switch {
		case e.dir && !m.empty(p):
			return syscall.ENOTEMPTY
		case strings.HasPrefix(to, p+"/"):
			return syscall.EINVAL
		}
		if onto && to != p {
			m.remove(to)
		}
		delete(m.at, p)
		m.at[to] = stamp(e)
		if isGuest {
			delete(m.guests, vmid)
		}
		if toGuest && !e.dir {
			m.guests[toVMID] = toDir
		}
	}
	m.version, m.writer, m.mtime = next, op.Writer, op.MTime
	return 0
}

func (m *model) remove(p string) {
	if vmid, _, ok := modelGuest(p); ok {
		delete(m.guests, vmid)
	}
	delete(m.at, p)
}

// rebuild makes the VM list anew, as after loading.
func (m *model) rebuild() {
	paths := slices.SortedFunc(maps.Keys(m.at), func(a, b string) int { return int(m.at[a].inode) - int(m.at[b].inode) })
	clear(m.guests)
	for _, p := range paths {
		if vmid, dir, ok := modelGuest(p); ok && !m.at[p].dir {
			if _, taken := m.guests[vmid]; !taken {
				m.guests[vmid] = dir
			}
		}
	}
}

// diff says how the tree differs from the model; empty if it doesn't.
func (m *model) diff(tr *Tree) string {
	var size int64
	for p, e := range m.at {
		got, ok := tr.Lookup(p)
		switch {
		case !ok:
			return fmt.Sprintf("%q is missing", p)
		case got.IsDir() != e.dir || string(got.Data()) != e.data:
			return fmt.Sprintf("%q is a %v with %d bytes, not what the model has", p, got.Type, got.Size())
		case p == "" && (got.Version != m.version || got.Writer != m.writer || got.MTime != m.mtime):
			return fmt.Sprintf("the root is %+v", got.Entry)
		case p != "" && (got.Inode != e.inode || got.Version != e.version || got.Writer != e.writer || got.MTime != e.mtime):
			return fmt.Sprintf("%q is %+v, the model has %+v", p, got.Entry, e)
		}
		if dir, base := modelSplit(p); p != "" && (got.Parent != m.at[dir].inode || got.Name != base) {
			return fmt.Sprintf("%q is called %q in %d", p, got.Name, got.Parent)
		}
		if again, ok := tr.Path(got.Inode); !ok || again != p {
			return fmt.Sprintf("%q has the path %q", p, again)
		}
		size += int64(len(e.data))
		if e.dir {
			list, _ := tr.ReadDir(got.Inode)
			var want []string
			for q := range m.at {
				if dir, base := modelSplit(q); q != "" && dir == p {
					want = append(want, base)
				}
			}
			slices.Sort(want)
			if !slices.Equal(names(list), want) {
				return fmt.Sprintf("%q lists %q, want %q", p, names(list), want)
			}
		}
	}
	if n, entries := tr.Usage(); n != size || entries != len(m.at) {
		return fmt.Sprintf("usage is %d bytes, %d entries, want %d, %d", n, entries, size, len(m.at))
	}
	got := map[string]string{}
	guests, _ := tr.Guests()
	for _, g := range guests {
		got[itoa(uint64(g.VMID))] = path.Dir(g.Path())
	}
	for g, e := range tr.GuestFiles {
		if len(guests) == 0 || g != guests[0] {
			return fmt.Sprintf("files of guests: %v out of turn", g)
		}
		guests = guests[1:]
		if at, _ := tr.Path(e.Inode); at != g.Path() {
			return fmt.Sprintf("the configuration of %v is %q", g, at)
		}
	}
	if len(guests) > 0 {
		return fmt.Sprintf("files of guests: %v are missing", guests)
	}
	if !maps.Equal(got, m.guests) {
		return fmt.Sprintf("the VM list is %v, want %v", got, m.guests)
	}
	return ""
}

// modelPaths are few, so that operations meet.
var modelPaths = []string{
	"a", "b", "c", "a/x", "a/y", "b/x", "b/x/deep", "c/x",
	"nodes", "nodes/n", "nodes/m", "nodes/n/lxc", "nodes/m/lxc", "nodes/n/qemu-server",
	"nodes/n/lxc/100.conf", "nodes/n/lxc/101.conf", "nodes/m/lxc/100.conf", "nodes/m/lxc/101.conf",
	"nodes/n/qemu-server/100.conf", "nodes/n/lxc/tmp",
	"priv", "priv/lock", "priv/lock/l", "priv/lock/k", "priv/lock/l/x",
}

// randomOp returns an operation, mostly a sensible one. pick(n) chooses below n.
func randomOp(pick func(int) int, m *model) Op {
	anyPath := func() string {
		switch pick(40) {
		case 0:
			return ""
		case 1:
			return modelPaths[pick(len(modelPaths))] + "/.."
		case 2:
			return modelPaths[pick(len(modelPaths))] + "/."
		}
		return modelPaths[pick(len(modelPaths))]
	}
	// path mostly returns one that is there, or one that could be made.
	path := func(there bool) string {
		if pick(5) == 0 {
			return anyPath()
		}
		var some []string
		for _, p := range modelPaths {
			_, exists := m.at[p]
			if dir, _ := modelSplit(p); exists == there && m.at[dir].dir {
				some = append(some, p)
			}
		}
		if len(some) == 0 {
			return anyPath()
		}
		return some[pick(len(some))]
	}
	op := Op{Writer: uint32(pick(3)), MTime: uint32(pick(100)), Now: t0}
	switch pick(16) {
	case 0, 1, 2:
		op.Kind, op.Path = OpMkdir, path(false)
	case 3, 4, 5:
		op.Kind, op.Path = OpCreate, path(false)
	case 6:
		op.Kind, op.Path = OpMTime, path(true)
	case 7:
		op.Kind, op.Path = OpDelete, path(true)
	case 8, 9, 10:
		op.Kind, op.Path, op.To = OpRename, path(true), path(pick(2) == 0)
	default:
		op.Kind, op.Path = OpWrite, path(true)
		for range 4 { // rather a file
			if m.at[op.Path].dir {
				op.Path = path(true)
			}
		}
		size := len(m.at[op.Path].data)
		op.Data = bytes.Repeat([]byte{byte('a' + pick(26))}, pick(200))
		switch pick(12) {
		case 0:
			op.Offset, op.Data = uint32(MaxFileSize-pick(2)), make([]byte, 2+pick(2))
			if pick(20) == 0 { // large files make the comparisons slow
				op.Data = op.Data[:1]
			}
		case 1, 2:
			op.Offset, op.Data, op.Truncate = uint32(pick(2*size+5)), nil, true
		case 3, 4:
			op.Truncate = true
		case 5, 6:
			op.Offset = uint32(pick(size + 20))
		default:
			op.Offset = uint32(size)
		}
	}
	return op
}

// batch is operations that can be reverted together, and the state before.
type batch struct {
	delta  Delta
	before picture
	rows   []*Entry
	model  *model
}

// compareWithModel drives a tree and a model with the same operations until
// more says no.
func compareWithModel(t *testing.T, tr *Tree, pick func(int) int, steps int) {
	t.Helper()
	m := newModel()
	var undo []*batch
	var kept []held
	counts := map[string]int{}
	for step := range steps {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("step %d: "+format, append([]any{step}, args...)...)
		}
		if len(undo) == 0 || pick(4) == 0 { // a new batch begins
			undo = append(undo, &batch{before: pictureOf(tr), rows: tr.Entries(), model: m.clone()})
			if len(undo) > 6 {
				undo = undo[1:]
			}
		}
		switch pick(40) {
		case 0:
			n := 1 + pick(len(undo))
			first := undo[len(undo)-n]
			for _, b := range slices.Backward(undo[len(undo)-n:]) {
				checkDelta(t, &b.delta)
				tr.Revert(&b.delta)
				checkSound(t, tr)
			}
			undo = undo[:len(undo)-n]
			m = first.model
			m.rebuild()
			// The VM list from before may differ from a rebuilt one where a
			// directory took a guest's path; the model knows.
			first.before.guests, _ = tr.Guests()
			if d := first.before.diff(pictureOf(tr)); d != "" {
				fail("after %d batches were reverted: %s", n, d)
			}
			if !slices.Equal(first.rows, tr.Entries()) {
				fail("after a revert the entries are not those from before")
			}
			counts["revert"]++
		case 1:
			tr.Trim() // makes new entries with the same content
			for _, b := range undo {
				b.rows = nil
			}
			undo = undo[:0]
			counts["trim"]++
			continue
		case 2:
			next, _, err := Build(tr.Entries())
			if err != nil {
				fail("%v", err)
			}
			if changes := tr.Replace(next); len(changes) != 0 {
				fail("replacing the tree by the same changes %v", changes)
			}
			m.rebuild()
			undo = undo[:0]
			counts["replace"]++
		default:
			op := randomOp(pick, m)
			if e, ok := tr.Lookup(op.Path); ok && pick(4) == 0 && !e.IsDir() {
				kept = append(kept, hold(e.Entry))
			}
			root := tr.Root()
			foretold := errnoOf(tr.Check(&op))
			res, err := tr.Apply(&op)
			want := m.apply(op)
			if got := errnoOf(err); got != want || foretold != want {
				fail("%v %q %q answers %v (foretold %v), want %v", op.Kind, op.Path, op.To, got, foretold, want)
			}
			if err != nil && tr.Root() != root {
				fail("a refused %v uses a version", op.Kind)
			}
			if len(undo) > 0 {
				undo[len(undo)-1].delta.Add(res.Changes)
			}
			counts[op.Kind.String()+" "+want.Error()]++
		}
		if step%5 == 0 || step == steps-1 {
			if d := m.diff(tr); d != "" {
				fail("%s", d)
			}
			checkSound(t, tr)
		}
	}
	for _, h := range kept {
		if !h.unchanged() {
			t.Fatalf("an entry that a reader held has changed: %+v", h.e)
		}
	}
	if testing.Verbose() {
		t.Log(counts)
	}
}

func TestRandomOperationsAgreeWithTheModel(t *testing.T) {
	runs, steps := 40, 1500
	if testing.Short() {
		runs = 5
	}
	base := rand.Uint64()
	for i := range runs {
		seed := base + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			compareWithModel(t, New(), rnd.IntN, steps)
		})
	}
}

func TestReadersSeeWholeStatesWhileOperationsAreMadeAndReverted(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tr := New()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for r := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1+r))
			var kept []held
			for {
				select {
				case <-stop:
					for _, h := range kept {
						if !h.unchanged() {
							t.Errorf("an entry that a reader held has changed: %+v", h.e)
						}
					}
					return
				default:
				}
				switch rnd.IntN(8) {
				case 0:
					last := uint64(0)
					for i, e := range tr.Entries() {
						if i > 0 && e.Inode <= last {
							t.Errorf("inode %d after %d", e.Inode, last)
						}
						last = e.Inode
					}
				case 1:
					if _, err := DecodeIndex(tr.Index()); err != nil {
						t.Error(err)
					}
				case 2:
					tr.Checksum()
				case 3:
					tr.Guests()
					tr.Usage()
					tr.ObserveLocks(t0)
				case 4:
					list, _ := tr.ReadDir(RootInode)
					for _, e := range list {
						if e.Parent != RootInode {
							t.Errorf("the root lists %+v", e)
						}
						tr.Path(e.Inode)
						tr.Child(RootInode, e.Name)
					}
				case 5:
					op := randomOp(rnd.IntN, newModel())
					tr.Check(&op)
				default:
					if e, ok := tr.Lookup(modelPaths[rnd.IntN(len(modelPaths))]); ok {
						if h := hold(e.Entry); len(kept) < 2000 {
							kept = append(kept, h)
						} else {
							kept[rnd.IntN(len(kept))] = h
						}
					}
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	compareWithModel(t, tr, rnd.IntN, 2000)
	close(stop)
	wg.Wait()
}

// FuzzOperations reads a run of operations from bytes.
func FuzzOperations(f *testing.F) {
	for seed := range uint64(8) {
		b := make([]byte, 600)
		rnd := rand.New(rand.NewPCG(seed, 7))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		steps := len(b) / 8
		compareWithModel(t, New(), func(n int) int {
			if len(b) == 0 {
				return 0
			}
			v := int(b[0])
			b = b[1:]
			if n > 256 && len(b) > 0 {
				v = v<<8 | int(b[0])
				b = b[1:]
			}
			return v % n
		}, steps)
	})
}
