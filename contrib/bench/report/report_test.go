package report

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/server"
)

// rounds makes results of the given operations per second.
func rounds(rates ...int) []*load.Result {
	var list []*load.Result
	for _, n := range rates {
		r := &load.Result{Ops: n, Elapsed: time.Second, Used: server.Counters{CPU: time.Second / 2, Written: int64(n) * 8192}}
		for range n {
			r.Latency.Add(time.Second / time.Duration(n))
		}
		list = append(list, r)
	}
	return list
}

func TestRatioIsTheMedianOfTheRoundsRatios(t *testing.T) {
	// The machine was slow in the second round, for both.
	o := Compare("create", 1, rounds(900, 90, 700), rounds(1000, 100, 1000))
	if o.Ratio < 0.899 || o.Ratio > 0.901 || o.Low < 0.699 || o.Low > 0.701 {
		t.Errorf("ratio %v, lowest %v", o.Ratio, o.Low)
	}
	if o.Subject.PerSecond != 700 || o.Subject.Written != 8192 {
		t.Errorf("%+v", o.Subject)
	}
}

func TestNoQuantileIsAboveTheLongest(t *testing.T) {
	r := &load.Result{Ops: 1, Elapsed: time.Second, Longest: 82_189_279}
	r.Latency.Add(r.Longest)
	if f := FiguresOf([]*load.Result{r}); f.P50 != r.Longest || f.P99 != r.Longest {
		t.Errorf("p50 %v, p99 %v of one operation of %v", f.P50, f.P99, r.Longest)
	}
}

func TestCostIsThatOfTwoDaemonsOfEachKind(t *testing.T) {
	start := func(with float64) CostStart {
		at := func(rate float64) []*load.Result { return rounds(int(rate), int(rate/2)) } // slow in the second round
		// One of each kind is faster, by where it happens to lie.
		return CostStart{
			With:    [2][]*load.Result{at(1000 * with), at(2000 * with)},
			Without: [2][]*load.Result{at(2000), at(1000)},
		}
	}
	c := CompareCost("create", []CostStart{start(0.9), start(0.9), start(0.9)})
	if math.Abs(c.Ratio-0.9) > 0.001 || math.Abs(c.Control-0.5) > 0.001 || c.Error > 0.001 {
		t.Errorf("ratio %v ± %v, control %v", c.Ratio, c.Error, c.Control)
	}
	// Daemons that differ by chance leave it uncertain, the more the fewer they are.
	few := CompareCost("create", []CostStart{start(0.8), start(0.9), start(1)})
	var list []CostStart
	for range 20 {
		list = append(list, start(0.8), start(0.9), start(1))
	}
	many := CompareCost("create", list)
	if math.Abs(few.Ratio-0.9) > 0.001 || few.Error < 0.09 || many.Error > few.Error/2 {
		t.Errorf("%v ± %v of three starts, %v ± %v of sixty", few.Ratio, few.Error, many.Ratio, many.Error)
	}
}

func TestGoalsAreJudgedOnlyIfMeasured(t *testing.T) {
	r := &Report{Ops: []Op{
		{Name: "create", Clients: 1, Ratio: 0.75, Subject: Figures{Written: 17_001}},
		{Name: "read", Clients: 8, Ratio: 0.94},
	}}
	r.Judge()
	got := map[string]bool{}
	for _, v := range r.Goals {
		got[v.Goal] = v.Met
	}
	want := map[string]bool{
		"create, 1 client: rate by the floor's": true,
		"create, 1 client: bytes to disk":       false,
		"read, 8 clients: rate by the floor's":  false,
	}
	if len(got) != len(want) {
		t.Errorf("judged %v", got)
	}
	for goal, met := range want {
		if m, ok := got[goal]; !ok || m != met {
			t.Errorf("%s: judged %v, met %v; want met %v", goal, ok, m, met)
		}
	}
}

func TestMemoryGoalTakesTheWorstShapeAndStage(t *testing.T) {
	r := &Report{Memory: []Tree{
		{Name: "a", Content: FullTree, Busy: server.Memory{Resident: 170 << 20}},
		{Name: "b", Content: FullTree, After: server.Memory{Resident: 181 << 20}},
		{Name: "c", Content: 1, After: server.Memory{Resident: 500 << 20}},
	}}
	r.Judge()
	if len(r.Goals) != 1 || r.Goals[0].Met || r.Goals[0].Measured != 181 {
		t.Errorf("%+v", r.Goals)
	}
}

func TestTablesShowEverything(t *testing.T) {
	r := &Report{
		Ops:    []Op{Compare("create", 8, rounds(10), rounds(20))},
		SQLite: []Transaction{{Batch: 8, Size: 700, Figures: FiguresOf(rounds(10))}},
		Start:  []Start{NewStart(Guests, []time.Duration{3e6, 1e6, 2e6})},
		Memory: []Tree{{Name: Guests, Writing: time.Second, Writes: 7}},
	}
	r.Machine.Rounds = 3
	r.Judge()
	var b strings.Builder
	if err := r.WriteTables(&b); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"| create ", "0.50", "8 × 700B", "2ms", Guests, "at most 150 ms", "NO"} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("no %q in:\n%s", part, b.String())
		}
	}
}

// TestPoorRunsAreNotJudged has few rounds, and other processes on the machine.
func TestPoorRunsAreNotJudged(t *testing.T) {
	for _, test := range []struct {
		rounds int
		others float64
		want   string // the verdict; a text below the table
		why    string
	}{
		{3, 0.10, "NO", ""}, {1, 0, "not judged", "1 round, and 3 are needed"},
		{2, 0, "not judged", "2 rounds"}, {3, 0.43, "not judged", "others used 43 %"},
	} {
		r := &Report{Machine: Machine{Rounds: test.rounds, Others: test.others}, Ops: []Op{Compare("create", 8, rounds(10), rounds(20))}}
		r.Judge()
		var b strings.Builder
		if err := r.WriteTables(&b); err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`\| at least 0\.75 +\| 0\.50 +\| `+test.want+` +\|`).MatchString(b.String()) || !strings.Contains(b.String(), "Nothing is judged below 3 rounds") ||
			test.why != "" && !strings.Contains(b.String(), "Not judged here: "+test.why) || test.why == "" && strings.Contains(b.String(), "Not judged here") {
			t.Errorf("%d rounds, others %v:\n%s", test.rounds, test.others, &b)
		}
	}
}
