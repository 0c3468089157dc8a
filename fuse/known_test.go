package fuse

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/memdb"
)

// TestNothingStaleStaysCached changes names behind the kernel's back while others
// look at them, and change the same ones through the mount. What the kernel was not
// told then would stay wrong for the whole of cacheTime.
func TestNothingStaleStaysCached(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	m.mkdir("d/sub")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("d/%d", i), fmt.Sprintf("d/sub/%d", i))
	}
	rounds := 1500
	if testing.Short() {
		rounds = 300
	}
	stop := make(chan struct{})
	var lookers, changers sync.WaitGroup
	for i := range 4 {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name := m.path(names[rnd.IntN(len(names))])
				switch rnd.IntN(4) {
				case 0:
					_, _ = os.Stat(name)
				case 1:
					_, _ = os.ReadFile(name)
				case 2:
					_, _ = os.ReadDir(m.path("d"))
				case 3:
					_, _ = os.ReadDir(m.path("d/sub"))
				}
			}
		})
	}
	var mu sync.Mutex // makes a change and its telling one step, as an applier does
	foreign := func(op memdb.Op) {
		mu.Lock()
		defer mu.Unlock()
		op.Writer, op.MTime = 2, 1700000000
		if res, err := m.tree.Apply(&op); err == nil {
			m.fs.Applied(&op, res.Changes, true)
		}
	}
	for i := range 2 {
		changers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for range rounds {
				a, b := names[rnd.IntN(len(names))], names[rnd.IntN(len(names))]
				switch rnd.IntN(5) {
				case 0, 1:
					foreign(memdb.Op{Kind: memdb.OpCreate, Path: a})
				case 2:
					foreign(memdb.Op{Kind: memdb.OpDelete, Path: a})
				case 3:
					foreign(memdb.Op{Kind: memdb.OpRename, Path: a, To: b})
				case 4:
					foreign(memdb.Op{Kind: memdb.OpWrite, Path: a, Data: []byte(b), Truncate: true})
				}
				time.Sleep(time.Duration(rnd.IntN(200)) * time.Microsecond)
			}
		})
		changers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(200+i)))
			for range rounds {
				a, b := m.path(names[rnd.IntN(len(names))]), m.path(names[rnd.IntN(len(names))])
				switch rnd.IntN(3) {
				case 0:
					_ = os.WriteFile(a, []byte("local"), 0o640)
				case 1:
					_ = os.Remove(a)
				case 2:
					_ = os.Rename(a, b)
				}
			}
		})
	}
	changers.Wait()
	close(stop)
	lookers.Wait()

	eventually(t, func() string {
		var wrong []string
		for _, name := range names {
			e, there := m.tree.Lookup(name)
			content, err := os.ReadFile(m.path(name))
			switch {
			case there && err != nil:
				wrong = append(wrong, fmt.Sprintf("%s is there: %v", name, err))
			case there && string(content) != string(e.Data()):
				wrong = append(wrong, fmt.Sprintf("%s holds %q: %q", name, e.Data(), content))
			case !there && !errors.Is(err, syscall.ENOENT):
				wrong = append(wrong, fmt.Sprintf("%s is not there: %v", name, err))
			}
		}
		for _, dir := range []string{"d", "d/sub"} {
			list, err := os.ReadDir(m.path(dir))
			if err != nil {
				wrong = append(wrong, err.Error())
			}
			var shown, want []string
			for _, e := range list {
				shown = append(shown, e.Name())
			}
			d, _ := m.tree.Lookup(dir)
			entries, _ := m.tree.ReadDir(d.Inode)
			for _, e := range entries {
				want = append(want, e.Name)
			}
			slices.Sort(shown)
			slices.Sort(want)
			if !slices.Equal(shown, want) {
				wrong = append(wrong, fmt.Sprintf("%s lists %v, want %v", dir, shown, want))
			}
		}
		return strings.Join(wrong, "\n")
	})
}

// TestSizeFollowsANewFileThatIsBeingLookedUp has another node make a file and write
// to it while somebody keeps asking for it: the kernel is told of the write at the very
// time when it learns of the file.
func TestSizeFollowsANewFileThatIsBeingLookedUp(t *testing.T) {
	m := mountNode(t, nil, true)
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			var st syscall.Stat_t
			for {
				select {
				case <-stop:
					return
				default:
					_ = syscall.Stat(m.path("f"), &st)
				}
			}
		})
	}
	for i := range 2500 {
		m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: "f"})
		for begin := time.Now(); time.Since(begin) < time.Duration(i%100)*time.Microsecond; {
		}
		m.foreign(memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("x"), Truncate: true})
		eventually(t, func() string {
			if st, err := os.Stat(m.path("f")); err != nil || st.Size() != 1 {
				return fmt.Sprintf("file %d: %v, %v, want 1 byte", i, st, err)
			}
			return ""
		})
		m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: "f"})
		if t.Failed() {
			break
		}
	}
	close(stop)
	lookers.Wait()
}

func TestWhatTheKernelForgetsIsForgottenHere(t *testing.T) {
	k := newKnown()
	k.add(7)
	k.add(7)
	k.add(8)
	if k.forget(7, 1) || !k.has(7) {
		t.Error("an inode that was named twice is gone after one forgetting")
	}
	if !k.forget(7, 1) || k.has(7) || !k.has(8) || !k.has(rootID) {
		t.Error("an inode that was forgotten as often as named is still known, or another is not")
	}
	if all := k.all(); len(all) != 2 || !slices.Contains(all, 8) || !slices.Contains(all, rootID) {
		t.Errorf("known: %v, want 8 and the root", all)
	}
	for i := range maxAbsent {
		if !k.addAbsent(1, fmt.Sprint(i)) {
			t.Fatalf("absence %d is refused, of %d", i, maxAbsent)
		}
	}
	if k.addAbsent(1, "one more") {
		t.Error("an absence is noted beyond the limit")
	}
	if !k.addAbsent(1, "5") {
		t.Error("an absence that is noted already is refused")
	}
	if !k.takeAbsent(1, "5") || k.takeAbsent(1, "5") || k.takeAbsent(2, "6") {
		t.Error("a note is not taken once")
	}
	if !k.addAbsent(1, "one more") {
		t.Error("an absence is refused although there is room")
	}
	for a := range k.absent {
		k.absent[a] = time.Now().Add(-time.Second)
	}
	if !k.addAbsent(1, "yet one more") || len(k.absent) != 1 {
		t.Errorf("%d notes, want those dropped that the kernel does not believe any more", len(k.absent))
	}
}

// BenchmarkForeignNameSeen is how long a name that another node made stays
// unseen, while eight clients make and delete files in the same directory, each
// change taking a millisecond, as in a cluster, and other nodes a thousand others
// a second.
func BenchmarkForeignNameSeen(b *testing.B) {
	m := mountTest(b, nil)
	m.mkdir("d")
	m.store.delay = time.Millisecond
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			name := m.path(fmt.Sprintf("d/local%d", c))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if f, err := os.Create(name); err == nil {
					f.Close()
				}
				_ = os.Remove(name)
			}
		})
	}
	var lags []time.Duration
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range b.N {
		for j := range 20 {
			<-tick.C
			name := fmt.Sprintf("d/other%d-%d", i, j)
			m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: name})
			m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: name})
		}
		name := fmt.Sprintf("d/seen%d", i)
		var st syscall.Stat_t
		_ = syscall.Stat(m.path(name), &st)
		m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: name})
		begin := time.Now()
		for syscall.Stat(m.path(name), &st) != nil {
			time.Sleep(50 * time.Microsecond)
		}
		lags = append(lags, time.Since(begin))
	}
	close(stop)
	clients.Wait()
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "p99-µs")
}
