package dfsmtest

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("dfsm.seed", 0, "run this random history only, and print what happens in it")
	cutFlag   = flag.Int("dfsm.cut", 0, "with -dfsm.seed: 0 safe, 1 agreed delivery")
	storeFlag = flag.Bool("dfsm.store", false, "with -dfsm.seed: the store in place of the model")
	evilFlag  = flag.Bool("dfsm.hostile", false, "with -dfsm.seed: with a misbehaving member")
	runsFlag  = flag.Int("dfsm.runs", 100_000, "how many random histories to run; with -short or the race detector 2,000 at most")
	firstFlag = flag.Uint64("dfsm.first", 0, "the first seed; 0: by the clock")
)

// TestSeed repeats one random history, with a trace.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no -dfsm.seed")
	}
	out, err := Random(Plan{Seed: *seedFlag, Cut: Cut(*cutFlag), Hostile: *evilFlag, Store: *storeFlag, Trace: os.Stdout})
	t.Logf("%+v", out)
	if err != nil {
		t.Fatal(err)
	}
}

// histories runs many random histories on all processors and returns the sum
// of what happened.
func histories(t *testing.T, runs int, plan Plan) (sum Outcome, forked int) {
	t.Helper()
	if *seedFlag != 0 {
		t.Skip("-dfsm.seed is for TestSeed")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // much garbage, little that lives
	first := *firstFlag
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	var next atomic.Uint64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !t.Failed() {
				n := next.Add(1) - 1
				if n >= uint64(runs) {
					return
				}
				p := plan
				p.Seed = first + n
				out, err := Random(p)
				mu.Lock()
				if err != nil {
					t.Errorf("%v\nrepeat it with: go test ./dfsm/dfsmtest -run TestSeed -v -dfsm.seed=%d -dfsm.cut=%d -dfsm.hostile=%v -dfsm.store=%v", err, p.Seed, p.Cut, p.Hostile, p.Store)
				}
				sum.Acked += out.Acked
				sum.Refused += out.Refused
				sum.Unknown += out.Unknown
				sum.Syncs += out.Syncs
				sum.Commits += out.Commits
				sum.Leaves += out.Leaves
				sum.Messages += out.Messages
				sum.Steps += out.Steps
				if out.Forked {
					forked++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d histories from seed %d: %+v, %d forked", runs, first, sum, forked)
	if plan.Store {
		return sum, forked
	}
	for what, n := range map[string]int{"acknowledged": sum.Acked, "unknown": sum.Unknown, "commits": sum.Commits} {
		if n < runs/10 {
			t.Errorf("only %d %s in %d histories: they show nothing", n, what, runs)
		}
	}
	return sum, forked
}

func runs(share int) int {
	if testing.Short() || raced {
		return min(*runsFlag, 2000) * share / 100
	}
	return *runsFlag * share / 100
}

func TestRandomHistoriesKeepAllMembersAlike(t *testing.T) {
	n := runs(80)
	_, forked := histories(t, n, Plan{Cut: CutSafe})
	if forked > n/3 {
		t.Errorf("%d of %d histories lost all holders of a write", forked, n)
	}
}

func TestRandomHistoriesWithAgreedDeliveryConverge(t *testing.T) {
	histories(t, runs(20), Plan{Cut: CutAgreed})
}

func TestRandomHistoriesOfTheStoreConverge(t *testing.T) {
	sum, _ := histories(t, runs(10), Plan{Cut: CutAgreed, Store: true})
	if sum.Messages < 10*runs(10) {
		t.Errorf("only %d messages: they show nothing", sum.Messages)
	}
}

func TestMisbehavingMemberNeverStopsTheOthers(t *testing.T) {
	histories(t, runs(10), Plan{Cut: CutSafe, Hostile: true})
}

// Seeds of histories that once failed, and one of each kind. The large one: a
// member was past a sync, applied what came after, and had left again when the
// slowest one ended that sync.
func TestKnownSeeds(t *testing.T) {
	for _, p := range []Plan{
		{Seed: 1},
		{Seed: 1795260595360593904},
		{Seed: 1, Cut: CutAgreed},
		{Seed: 1, Hostile: true},
		{Seed: 1, Store: true},
		{Seed: 1, Store: true, Hostile: true},
	} {
		t.Run(fmt.Sprint(p.Seed, p.Cut, p.Hostile, p.Store), func(t *testing.T) {
			if _, err := Random(p); err != nil {
				t.Error(err)
			}
		})
	}
}
