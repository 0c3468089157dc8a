package peers

import (
	"context"
	"fmt"
	"testing"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/memdb"
)

// BenchmarkCompare compares two full trees, equal ones and such that differ in one
// entry.
func BenchmarkCompare(b *testing.B) {
	tree := memdb.New()
	for d := range 64 {
		mustApply(b, tree, memdb.Op{Kind: memdb.OpMkdir, Path: fmt.Sprintf("d%d", d)})
		for f := range (memdb.MaxEntries - 128) / 64 {
			mustApply(b, tree, memdb.Op{Kind: memdb.OpCreate, Path: fmt.Sprintf("d%d/f%d", d, f)})
		}
	}
	for _, equal := range []bool{true, false} {
		b.Run(fmt.Sprintf("equal=%v", equal), func(b *testing.B) {
			i := 0
			c := newCluster(b, 2, func() *memdb.Tree {
				t, _, err := memdb.Build(tree.Entries())
				if err != nil {
					b.Fatal(err)
				}
				i++
				data := "same"
				if !equal {
					data = fmt.Sprint("other", i)
				}
				mustApply(b, t, memdb.Op{Kind: memdb.OpWrite, Path: "d5/f5", Data: []byte(data)})
				return t
			})
			b.ResetTimer()
			for b.Loop() {
				before := c.sent.Load()
				r, err := c.nodes[0].Compare(context.Background(), c.names)
				if err != nil || r.Equal != equal || len(r.Differences) > 1 {
					b.Fatalf("%+v, %v", r, err)
				}
				b.ReportMetric(float64(c.sent.Load()-before), "sent-B/op")
			}
		})
	}
}

// BenchmarkChanged is what each change costs while nobody asks.
func BenchmarkChanged(b *testing.B) {
	s, err := New(Config{
		Connect: func() (transport.Conn, error) { return nil, grouptest.ErrDown },
		Tree:    memdb.New(), Node: "a",
		Mode: func() (dfsm.Mode, bool) { return dfsm.ModeSynced, true },
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Applied(nil, nil, false)
	}
}
