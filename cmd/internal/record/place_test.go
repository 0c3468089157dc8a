package record

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/history"
)

func TestAStateThatWasThinnedOutIsNotShownAsAnother(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	tree := memdb.New()
	file := filepath.Join(t.TempDir(), history.FileName)
	rec := history.Start(history.Config{Path: file, Tree: tree, Clock: func() time.Time { return now }})
	defer rec.Close()
	if err := rec.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		op := memdb.Op{Kind: memdb.OpCreate, Path: path}
		if _, ok := tree.Lookup(path); ok {
			op = memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(text), Truncate: true}
		}
		res, err := tree.Apply(&op)
		if err != nil {
			t.Fatal(err)
		}
		rec.Stored([]memdb.Step{memdb.StepOf(&op, res.Changes)})
	}
	for i := range 101 { // versions 2 to 102
		write("busy", fmt.Sprint(i))
	}
	write("quiet", "") // 103
	if err := rec.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := history.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for version, want := range map[uint64]uint64{10: 10, 102: 102, 103: 102} {
		if c, err := At(r, "busy", version, "", now); err != nil || c.Version != want {
			t.Errorf("at %d: %d %v", version, c.Version, err)
		}
	}
	if c, err := At(r, "busy", 50, "", now); err == nil || !strings.Contains(err.Error(), "thinned out") || !strings.Contains(err.Error(), "and 102") {
		t.Errorf("at 50: %d %v", c.Version, err)
	}
}
