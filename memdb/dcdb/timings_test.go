package dcdb

import (
	"sync"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// timed is a LatencyObserver that counts.
type timed struct {
	mu                sync.Mutex
	delivered, stored map[memdb.Kind]int
	odd               []time.Duration
	least             time.Duration
}

func (w *timed) note(m *map[memdb.Kind]int, kind memdb.Kind, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if *m == nil {
		*m = make(map[memdb.Kind]int)
	}
	(*m)[kind]++
	if w.least == 0 || took < w.least {
		w.least = took
	}
	if took < 0 || took > time.Minute {
		w.odd = append(w.odd, took)
	}
}

func (w *timed) Delivered(kind memdb.Kind, took time.Duration) { w.note(&w.delivered, kind, took) }
func (w *timed) Stored(kind memdb.Kind, took time.Duration)    { w.note(&w.stored, kind, took) }

func TestChangesAreTimedWhereTheyAreMadeAndWhereTheyAreStored(t *testing.T) {
	r := newRing()
	watch := make([]*timed, 2)
	var nodes []*testNode
	for i := range watch {
		watch[i] = &timed{}
		nodes = append(nodes, r.start(t, corosync.NodeID(i+1), func(c *ClusterConfig) { c.Latencies = watch[i] }))
	}
	for _, n := range nodes {
		n.synced(t, 2)
	}
	nodes[0].do(t, create("a"))
	nodes[0].do(t, memdb.Op{Kind: memdb.OpWrite, Path: "a", Data: []byte("x")})
	nodes[0].do(t, memdb.Op{Kind: memdb.OpMTime, Path: "a", MTime: 5})
	nodes[1].do(t, memdb.Op{Kind: memdb.OpDelete, Path: "a"})
	if _, err := nodes[0].Do(nil, &memdb.Op{Kind: memdb.OpDelete, Path: "a"}); err == nil {
		t.Error("deleted twice")
	}
	for i, want := range []map[memdb.Kind]int{
		{memdb.OpCreate: 1, memdb.OpWrite: 1, memdb.OpMTime: 1}, {memdb.OpDelete: 1},
	} {
		w := watch[i]
		testutil.WaitFor(t, "all are stored", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.stored[memdb.OpCreate] == 1 && w.stored[memdb.OpWrite] == 1 && w.stored[memdb.OpMTime] == 1 && w.stored[memdb.OpDelete] == 1
		})
		w.mu.Lock()
		for kind := memdb.OpWrite; kind <= memdb.OpMTime; kind++ {
			if w.delivered[kind] != want[kind] {
				t.Errorf("node %d: %v delivered %d times, want %d", i+1, kind, w.delivered[kind], want[kind])
			}
		}
		if len(w.odd) > 0 {
			t.Errorf("odd times: %v", w.odd)
		}
		w.mu.Unlock()
	}
}
