package history

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pmxcfs/memdb"
)

func TestOfABurstTheLastStateIsRecordedAndTheRestCounted(t *testing.T) {
	n := newNode(t).start()
	n.flush()
	n.create("a")
	for i := range 1000 {
		n.write("a", fmt.Sprint(i))
	}
	n.write("other", "is not concerned")
	if q := n.r.Status().Waiting; q != burstOfPath+1+2 {
		t.Errorf("%d change sets wait", q)
	}
	n.flush()
	n.write("a", "after a flush, and still in the burst")
	n.write("a", "the burst's last")
	n.pass(burstTime)
	n.write("a", "later")
	list := n.list("a")
	want := []string{`2 create a ""`}
	for i := range burstOfPath - 1 {
		want = append(want, fmt.Sprintf(`%d write a "%d"`, i+3, i))
	}
	want = append(want, fmt.Sprintf(`1002 write a "999" omitted %d`, 1000-burstOfPath), `1006 write a "the burst's last" omitted 1`, `1007 write a "later"`)
	if !slices.Equal(list, want) {
		t.Errorf("got  %q\nwant %q", list, want)
	}
	n.want("other", `1003 create other ""`, `1004 write other "is not concerned"`)
}

func TestTheLastContentOfAFileThatIsDeletedInABurstStays(t *testing.T) {
	n := newNode(t).start()
	n.flush()
	for i := range 1000 {
		n.write("a", fmt.Sprint(i)) // two changes
		n.remove("a")
	}
	list := n.list("a")
	if got := list[len(list)-2:]; !strings.HasPrefix(got[0], `3000 write a "999" omitted `) || got[1] != "3001 delete a" {
		t.Errorf("the last of %d are %q", len(list), got)
	}
	// The queue may have been stored meanwhile: what was left out is said in several places then.
	said := len(list)
	for _, s := range list {
		if _, omitted, ok := strings.Cut(s, " omitted "); ok {
			n, err := strconv.Atoi(omitted)
			if err != nil {
				t.Fatal(err)
			}
			said += n
		}
	}
	if said != 3000 {
		t.Errorf("%d changes are recorded or counted, of 3000", said)
	}
	if len(list) > 500 {
		t.Errorf("%d of 3000 changes of one file are recorded", len(list))
	}
}

func TestABurstOfManyPathsLosesNoPath(t *testing.T) {
	n := newNode(t).start()
	n.flush()
	for i := range 3 * burstPaths {
		n.write(fmt.Sprint("f", i), "x")
	}
	r := n.read()
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Errorf("%d of %d files", len(got), 3*burstPaths)
	}
	if g := n.gaps(); len(g) > 0 {
		t.Errorf("gaps: %+v", g)
	}
}

func TestALargeFileThatIsRewrittenAllTheTimeTakesNoRoomAndIsNoGap(t *testing.T) {
	n := newNode(t).start()
	n.flush()
	big := make([]byte, memdb.MaxFileSize/2)
	for i := range 200 {
		big[0] = byte(i)
		n.write(fmt.Sprint("big", i%16), string(big))
	}
	n.r.mu.Lock()
	if n.r.queue.bytes > burstTotal+memdb.MaxFileSize {
		t.Errorf("%d bytes in the queue", n.r.queue.bytes)
	}
	n.r.mu.Unlock()
	n.rename("big7", "big16")
	r := n.read()
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Error("the latest point is not the tree")
	}
	if s := n.r.Status(); s.Gaps > 0 || s.Lost > 0 {
		t.Errorf("%+v", s)
	}
}

// In bursts, too: what is recorded of a path are states that it had, in order, none is missing without being
// counted, and the last point is the tree.
func TestRandomBursts(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	n := newNode(t).start()
	n.flush()
	states := map[string][]string{} // of each path, all
	is := func(path, state string) { states[path] = append(states[path], state) }
	for i := range 6000 {
		path := fmt.Sprint("f", rnd.IntN(6))
		_, ok := n.tree.Lookup(path)
		switch k := rnd.IntN(40); {
		case !ok:
			n.create(path)
			is(path, "")
		case k < 8:
			n.remove(path)
			is(path, gone)
		case k == 8:
			to := fmt.Sprint("f", rnd.IntN(6))
			if to != path {
				e, _ := n.tree.Lookup(path)
				n.rename(path, to)
				is(path, gone)
				is(to, string(e.Data()))
			}
		case k == 9:
			n.flush()
		case k == 10:
			n.pass(burstTime)
		default:
			text := fmt.Sprint(i, strings.Repeat("x", rnd.IntN(300)))
			n.apply(memdb.Op{Kind: memdb.OpWrite, Path: path, Data: []byte(text), Truncate: true})
			is(path, text)
		}
	}
	r := n.read()
	for path, want := range states {
		at := 0
		var list []Change
		if err := r.List(Query{Path: path}, func(c Change) bool {
			list = append(list, c)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		for _, c := range slices.Backward(list) {
			state := gone
			if c.State == File {
				data, err := r.Content(c)
				if err != nil {
					t.Fatal(err)
				}
				state = string(data)
			}
			at += int(c.Omitted)
			if at >= len(want) || want[at] != state {
				t.Fatalf("%s: state %d: %v %d", path, at, c.Kind, c.Version)
			}
			at++
		}
		if at != len(want) {
			t.Errorf("%s: %d of %d states are recorded or counted", path, at, len(want))
		}
	}
	p, err := r.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if got := at(t, r, p); !maps.Equal(got, files(n.tree)) {
		t.Errorf("latest:\ngot  %q\nwant %q", got, files(n.tree))
	}
}

const gone = "(gone)"
