package dcdb

import (
	"compress/gzip"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/memdb"
)

// memFile is a Database in memory: the entries by inode.
type memFile struct {
	mu      sync.Mutex
	rows    map[uint64]*memdb.Entry
	commits int
	fail    error // what Commit answers; nil means it works
}

func newMemFile(t *memdb.Tree) *memFile {
	f := &memFile{rows: make(map[uint64]*memdb.Entry)}
	for _, e := range t.Entries() {
		f.rows[e.Inode] = e
	}
	return f
}

func (f *memFile) Commit(changes []memdb.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.commits++
	for _, c := range changes {
		if c.New == nil {
			delete(f.rows, c.Inode)
		} else {
			f.rows[c.Inode] = c.New
		}
	}
	return nil
}

func (f *memFile) setFail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *memFile) Sync() error  { return nil }
func (f *memFile) Close() error { return nil }

// tree builds a tree of what the file holds.
func (f *memFile) tree(tb testing.TB) *memdb.Tree {
	tb.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var entries []*memdb.Entry
	for _, e := range f.rows {
		entries = append(entries, e)
	}
	return build(tb, entries)
}

func build(tb testing.TB, entries []*memdb.Entry) *memdb.Tree {
	tb.Helper()
	tree, _, err := memdb.Build(entries)
	if err != nil {
		tb.Fatal(err)
	}
	return tree
}

var quiet = slog.New(slog.DiscardHandler)

// newTestApp returns an application of a node that has quorum and sends nothing. It
// stores every batch at once.
func newTestApp(tree *memdb.Tree, db Database) *app {
	a := &app{
		tree: tree, db: newClocked(db, nil), log: quiet, clock: time.Now,
		calls:     newCalls(nobody{}),
		self:      func() dfsm.Member { return dfsm.Member{Node: 1, PID: 1} },
		reason:    func() group.SyncReason { return group.SyncOwnJoin },
		post:      func(uint16, []byte) {},
		latencies: noLatencies{},
		failed:    func(error) {},
	}
	a.start()
	a.saver.delay = 0 // no timers
	a.quorate.Store(true)
	return a
}

func gunzip(tb testing.TB, path string) []byte {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
