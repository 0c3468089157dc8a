package sqlite

import (
	"testing"
	"time"

	"pmxcfs/memdb"
)

// told is an Observer that remembers.
type told struct {
	rows, bytes, commits, syncs int
	took                        time.Duration
}

func (o *told) Committed(rows, bytes int, took time.Duration) {
	o.rows += rows
	o.bytes += bytes
	o.commits++
	o.took += took
}
func (o *told) Synced(took time.Duration)       { o.syncs++; o.took += took }
func (o *told) Checkpointed(took time.Duration) {}

func TestObserverIsToldOfWhatSucceeded(t *testing.T) {
	o := &told{}
	db, entries, _, err := Open(Config{Path: t.TempDir() + "/config.db", Observer: o})
	if err != nil {
		t.Fatal(err)
	}
	tree, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	var delta memdb.Delta
	for _, op := range []*memdb.Op{{Kind: memdb.OpCreate, Path: "a"}, {Kind: memdb.OpWrite, Path: "a", Data: []byte("12345")}, {Kind: memdb.OpMkdir, Path: "d"}} {
		res, err := tree.Apply(op)
		if err != nil {
			t.Fatal(err)
		}
		delta.Add(res.Changes)
	}
	if err := db.Commit(delta.Changes()); err != nil {
		t.Fatal(err)
	}
	if err := db.Sync(); err != nil {
		t.Fatal(err)
	}
	if o.rows != 2 || o.bytes != 5 || o.commits != 1 || o.syncs != 1 || o.took <= 0 {
		t.Errorf("%+v", o)
	}
	db.mu.Lock() // as a transaction does
	file, log, err := db.Sizes()
	done := db.Stats().Transactions.Load()
	db.mu.Unlock()
	if done != 1 {
		t.Errorf("%d transactions", done)
	}
	if err != nil || file == 0 || log == 0 {
		t.Errorf("sizes %d, %d, %v", file, log, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, log, err := db.Sizes(); err != nil || log != 0 {
		t.Errorf("a log of %d bytes after the end, %v", log, err)
	}
	if db.Commit(delta.Changes()) == nil || o.commits != 1 {
		t.Errorf("told of a transaction that failed")
	}
}
