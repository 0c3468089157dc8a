package peers

import (
	"slices"
	"testing"

	"pmxcfs/dfsm"
	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// TestADifferenceCountsWhenTwoLooksInARowFindIt has looks find what they are told to.
func TestADifferenceCountsWhenTwoLooksInARowFindIt(t *testing.T) {
	for _, tt := range []struct {
		name  string
		looks [][]uint64 // inodes that differ; none: equal
		want  []uint64
		equal bool
		took  int
	}{
		{"equal", [][]uint64{nil}, nil, true, 1},
		{"what stays", [][]uint64{{1, 2}, {2, 3}}, []uint64{2}, false, 2},
		{"equal again", [][]uint64{{1}, nil}, nil, true, 2},
		{"stays from the third look on", [][]uint64{{1}, {2}, {2, 3}}, []uint64{2}, false, 3},
		{"stays from the last but one on", [][]uint64{{1}, {2}, {3}, {3}}, []uint64{3}, false, 4},
		{"others each time", [][]uint64{{1}, {2}, {3}, {4}}, nil, false, 4},
	} {
		n := 0
		c, err := settle(func() (*inspect.Comparison, error) {
			c := &inspect.Comparison{Equal: tt.looks[n] == nil, Nodes: []inspect.ComparedNode{{State: inspect.NodeCompared}, {State: inspect.NodeCompared}}}
			for _, inode := range tt.looks[n] {
				c.Differences = append(c.Differences, inspect.Difference{Inode: inode})
			}
			n++
			return c, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, d := range c.Differences {
			got = append(got, d.Inode)
		}
		if !slices.Equal(got, tt.want) || c.Equal != tt.equal || n != tt.took {
			t.Errorf("%s: %v, equal %v, after %d looks; want %v, %v, %d", tt.name, got, c.Equal, n, tt.want, tt.equal, tt.took)
		}
	}
}

// TestWhoIsLostOnTheWayIsNotCompared has a member answer the first question only, or
// all but the last.
func TestWhoIsLostOnTheWayIsNotCompared(t *testing.T) {
	for _, from := range []kind{kindRanges, kindEntries, kindDetails} {
		c := newCluster(t, 3, smallTree(t))
		c.nodes[2].apply(memdb.Op{Kind: memdb.OpWrite, Path: "d0/f0", Data: []byte("another"), Truncate: true})
		for _, n := range c.nodes[:2] {
			n.apply(memdb.Op{Kind: memdb.OpWrite, Path: "d0/f0", Data: []byte("one"), Truncate: true})
		}
		silent := c.nodes[2].selfMember()
		c.alter(func(m dfsm.Member, msg []byte) ([]byte, bool) {
			h, _, err := decodeHeader(msg)
			return msg, err != nil || m != silent || h.Kind < from
		})
		r := c.compare()
		last := r.Nodes[2]
		if !r.Equal || len(r.Differences) > 0 || r.Omitted || r.AtLeast != 0 || last.State != inspect.NodeSilent || last.Reason == "" || last.Digest != "" {
			t.Errorf("silent from kind %d on: %+v", from, r)
		}
		for _, n := range r.Nodes[:2] {
			if n.State != inspect.NodeCompared {
				t.Errorf("silent from kind %d on: %+v", from, n)
			}
		}
	}
}
