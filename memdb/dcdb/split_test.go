package dcdb

import (
	"fmt"
	"slices"
	"testing"

	"pmxcfs/dfsm"
	"pmxcfs/memdb"
)

// Two sides of a split, of which the one with more changes wins: who loses keeps what the winner
// never had, and nothing else. A node that was only away loses nothing.
func TestWhatTheWinnerOfASplitNeverHadIsKept(t *testing.T) {
	one, two := dfsm.Member{Node: 1, PID: 1}, dfsm.Member{Node: 2, PID: 1}
	for _, c := range []struct {
		name    string
		restart bool // of the loser, after the split: it knows nothing of it
		alone   func(t *testing.T, a *app)
		want    []string
	}{
		{"only away", false, func(*testing.T, *app) {}, nil},
		{"away and restarted", true, func(*testing.T, *app) {}, nil},
		{"split", false, func(t *testing.T, a *app) {
			apply(t, a, opFrom(1, create("m.cfg")), opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "m.cfg", Data: []byte("m")}),
				opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "both", Data: []byte("mine"), Truncate: true}),
				opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "same", Data: []byte("equal"), Truncate: true}))
		}, []string{"both+", "m.cfg"}},
		{"split, with directories", false, func(t *testing.T, a *app) {
			apply(t, a, opFrom(1, mkdir("new")), opFrom(1, mkdir("new/empty")), opFrom(1, mkdir("now-a-file")), opFrom(1, mkdir("priv/lock/held")),
				opFrom(1, memdb.Op{Kind: memdb.OpMTime, Path: "d", MTime: 7}))
		}, []string{"new", "new/empty", "now-a-file+"}},
		{"split, and restarted", true, func(t *testing.T, a *app) {
			apply(t, a, opFrom(1, create("x1")), opFrom(1, create("x2")), opFrom(1, create("x3")),
				opFrom(1, memdb.Op{Kind: memdb.OpWrite, Path: "both", Data: []byte("mine"), Truncate: true}))
		}, []string{"both+", "x1", "x2", "x3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			loser, _ := emptyApp()
			winner, _ := emptyApp()
			var got []string
			keep := func(list []Lost) (string, error) {
				for _, l := range list {
					name := l.Path
					if l.Replaced {
						name += "+"
					}
					got = append(got, name)
				}
				return "/there", nil
			}
			loser.keepLost = keep
			winner.keepLost = func([]Lost) (string, error) { t.Error("the winner loses something"); return "", nil }
			for _, a := range []*app{loser, winner} {
				a.ViewChanged([]dfsm.Member{one, two})
				apply(t, a, opFrom(2, mkdir("priv")), opFrom(2, mkdir("priv/lock")), opFrom(2, mkdir("d")), opFrom(2, create("both")), opFrom(2, create("same")), opFrom(2, create("d/old")))
			}
			loser.ViewChanged([]dfsm.Member{one})
			winner.ViewChanged([]dfsm.Member{two})
			c.alone(t, loser)
			if c.restart {
				loser.parted, loser.members = make(parted), nil
			}
			apply(t, winner, opFrom(2, create("early")), opFrom(2, create("now-a-file")))
			for i := range 20 {
				apply(t, winner, opFrom(2, memdb.Op{Kind: memdb.OpWrite, Path: "both", Data: fmt.Append(nil, i), Truncate: true}),
					opFrom(2, memdb.Op{Kind: memdb.OpWrite, Path: "same", Data: []byte("equal"), Truncate: true}))
			}
			apply(t, winner, opFrom(2, memdb.Op{Kind: memdb.OpDelete, Path: "d/old"}))
			for _, a := range []*app{loser, winner} {
				a.ViewChanged([]dfsm.Member{one, two})
			}
			if leader, _ := syncAll(t, loser, winner); leader != 1 {
				t.Fatalf("%d leads", leader)
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("%q are kept, want %q", got, c.want)
			}
			if loser.tree.Checksum() != winner.tree.Checksum() {
				t.Error("the trees differ")
			}
		})
	}
}
