package dcdb

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pmxcfs/memdb"
)

// noted is a Recorder that writes down what it is told.
type noted struct {
	mu   sync.Mutex
	list []string
	root *memdb.Entry
	torn bool // the order of roots was broken
}

func (n *noted) Stored(steps []memdb.Step) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range steps {
		before, after := s.Roots()
		n.torn = n.torn || n.root != nil && n.root != before
		n.root = after
		n.list = append(n.list, fmt.Sprintf("%v %s%s %d", s.Kind, s.Path, s.To, after.Version))
	}
}

func (n *noted) Synced(leader uint32, before, after *memdb.Entry, list []memdb.Difference) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.torn = n.torn || n.root != nil && n.root != before
	n.root = after
	for _, d := range list {
		n.list = append(n.list, fmt.Sprintf("sync %s>%s", d.From, d.To))
	}
}

func TestRecorderHearsOfEachStoredChangeOnceAndOfNoOther(t *testing.T) {
	tree := memdb.New()
	db := newMemFile(tree)
	n := &noted{root: tree.Root()}
	l := NewLocal(Config{Tree: tree, DB: db, Recorder: n})
	defer l.Close()
	do := func(want bool, op memdb.Op) {
		t.Helper()
		if _, err := l.Do(nil, &op); (err == nil) != want {
			t.Fatalf("%v %s: %v", op.Kind, op.Path, err)
		}
	}
	do(true, memdb.Op{Kind: memdb.OpMkdir, Path: "d"})
	do(true, memdb.Op{Kind: memdb.OpCreate, Path: "d/a"})
	do(false, memdb.Op{Kind: memdb.OpCreate, Path: "d/a"})
	db.setFail(errors.New("broken"))
	do(false, memdb.Op{Kind: memdb.OpCreate, Path: "never"})
	db.setFail(nil)
	do(true, memdb.Op{Kind: memdb.OpRename, Path: "d/a", To: "b"})
	if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpWrite, Path: "b", Data: []byte("x")}, false); err != nil {
		t.Fatal(err)
	}
	if err := l.c.flush(nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"mkdir d 2", "create d/a 3", "rename d/ab 4", "write b 5"}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.list, want) || n.torn {
		t.Errorf("%q (torn: %v)", n.list, n.torn)
	}
}

func TestRecorderHearsBeforeTheCallReturns(t *testing.T) {
	tree := memdb.New()
	n := &noted{}
	l := NewLocal(Config{Tree: tree, DB: newMemFile(tree), Recorder: n})
	defer l.Close()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				path := fmt.Sprintf("%d-%d", i, j)
				if _, err := l.Do(nil, &memdb.Op{Kind: memdb.OpCreate, Path: path}); err != nil {
					t.Error(err)
				}
				n.mu.Lock()
				if !slices.ContainsFunc(n.list, func(s string) bool { return len(s) > 7+len(path) && s[7:7+len(path)+1] == path+" " }) {
					t.Errorf("%s is not recorded", path)
				}
				n.mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(n.list) != 400 || n.torn {
		t.Errorf("%d changes, torn: %v", len(n.list), n.torn)
	}
}

func TestRecorderHearsOfASynchronisationAsOneStep(t *testing.T) {
	ahead, late := memdb.New(), memdb.New()
	a, b := newTestApp(ahead, newMemFile(ahead)), newTestApp(late, newMemFile(late))
	n := &noted{root: late.Root()}
	b.recorder, b.saver.recorder = n, n
	for _, op := range []memdb.Op{
		{Kind: memdb.OpMkdir, Path: "d", Writer: 1},
		{Kind: memdb.OpCreate, Path: "d/a", Writer: 1},
	} {
		if _, err := ahead.Apply(&op); err != nil {
			t.Fatal(err)
		}
	}
	a.db.Database = newMemFile(ahead)
	syncAll(t, a, b)
	if want := []string{"sync >d", "sync >d/a"}; !slices.Equal(n.list, want) || n.torn {
		t.Errorf("%q (torn: %v)", n.list, n.torn)
	}
	if n.root != late.Root() {
		t.Error("the root that it was told is not the tree's")
	}
}
