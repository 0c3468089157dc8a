package report

import (
	"slices"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/server"
)

// Report is everything that a run has found. Durations are in nanoseconds,
// memory and sizes in bytes.
type Report struct {
	Machine  Machine       `json:"machine"`
	Ops      []Op          `json:"operations,omitempty"`
	SQLite   []Transaction `json:"sqlite,omitempty"`
	Against  []Against     `json:"against,omitempty"`
	Cluster  []ClusterOp   `json:"cluster,omitempty"`
	Visible  []Visible     `json:"visible,omitempty"`
	Joins    []Join        `json:"joins,omitempty"`
	Requests []Request     `json:"requests,omitempty"`
	Beside   []Beside      `json:"beside_requests,omitempty"`
	Polling  []Polling     `json:"polling,omitempty"`
	Metrics  []Cost        `json:"with_metrics,omitempty"`
	Start    []Start       `json:"start,omitempty"`
	Memory   []Tree        `json:"memory,omitempty"`
	Goals    []Verdict     `json:"goals,omitempty"`
}

// Op is one operation at one number of clients, on the daemon and on the floor.
type Op struct {
	Name    string  `json:"name"`
	Clients int     `json:"clients"`
	Subject Figures `json:"daemon"`
	Floor   Figures `json:"floor"`

	// Ratio is the daemon's rate by the floor's: the median over the rounds, in
	// each of which both ran right after each other; Low and High are the
	// extremes.
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"ratio_low"`
	High  float64 `json:"ratio_high"`
}

// Figures are one server's at one operation.
type Figures struct {
	Ops       int           `json:"operations"`      // in all rounds
	PerSecond float64       `json:"per_second"`      // operations, median over the rounds
	P50       time.Duration `json:"p50"`             // of all operations of all rounds
	P99       time.Duration `json:"p99"`             //
	Longest   time.Duration `json:"longest"`         // 0: not measured
	CPU       time.Duration `json:"cpu_per_op"`      // of the serving process
	Written   float64       `json:"bytes_per_op"`    // to the disk, by the serving process
	Writes    float64       `json:"writes_per_op"`   // write calls of the serving process: if nothing is stored, the FUSE requests it answered
	Switches  float64       `json:"switches_per_op"` // how often a thread of the serving process stopped to wait
}

// Compare makes an Op of the results of all rounds.
func Compare(name string, clients int, subject, floor []*load.Result) Op {
	var ratios []float64
	for i := range subject {
		ratios = append(ratios, subject[i].PerSecond()/floor[i].PerSecond())
	}
	return opOf(name, clients, subject, floor, ratios)
}

// opOf makes an Op of the results of all rounds, and of the rounds' ratios.
func opOf(name string, clients int, subject, floor []*load.Result, ratios []float64) Op {
	return Op{
		Name: name, Clients: clients, Subject: FiguresOf(subject), Floor: FiguresOf(floor),
		Ratio: median(ratios), Low: slices.Min(ratios), High: slices.Max(ratios),
	}
}

// FiguresOf sums up the results of all rounds, of which there must be one.
func FiguresOf(rounds []*load.Result) Figures {
	var (
		rates   []float64
		latency load.Histogram
		used    server.Counters
		ops     int
		longest time.Duration
	)
	for _, r := range rounds {
		longest = max(longest, r.Longest)
		rates = append(rates, r.PerSecond())
		latency.Merge(r.Latency)
		used.Add(r.Used)
		ops += r.Ops
	}
	n := float64(max(ops, 1))
	quantile := func(q float64) time.Duration {
		d := latency.Quantile(q) // the end of a bucket
		if longest > 0 {
			d = min(d, longest)
		}
		return d
	}
	return Figures{
		Ops:       ops,
		PerSecond: median(rates),
		P50:       quantile(0.50),
		P99:       quantile(0.99),
		Longest:   longest,
		CPU:       time.Duration(float64(used.CPU) / n),
		Written:   float64(used.Written) / n,
		Writes:    float64(used.Writes) / n,
		Switches:  float64(used.Switches) / n,
	}
}

// Transaction is bare SQLite with one size of transaction and row.
type Transaction struct {
	Batch   int     `json:"rows_per_transaction"`
	Size    int     `json:"row_bytes"`
	Figures Figures `json:"figures"` // an operation is a row; latencies are a transaction's
}

// Start is how long the daemon takes to come up.
type Start struct {
	Tree   string          `json:"tree"`
	Took   []time.Duration `json:"took"` // from exec to a mount that can be read
	Median time.Duration   `json:"median"`
}

// NewStart sums up the starts on one tree.
func NewStart(tree string, took []time.Duration) Start {
	return Start{Tree: tree, Took: took, Median: median(took)}
}

// Tree is the daemon's memory with one tree.
type Tree struct {
	Name    string        `json:"name"`
	Content int64         `json:"content"`
	Entries int           `json:"entries"`
	Mounted server.Memory `json:"mounted"` // as soon as the mount is up
	Idle    server.Memory `json:"idle"`    // some time later
	Busy    server.Memory `json:"busy"`    // at the end of a time of writing
	After   server.Memory `json:"after"`   // some idle time after that
	Writing time.Duration `json:"writing"` // how long was written
	Writes  int           `json:"writes"`  // operations in that time
}

// most returns the greatest resident memory seen between the stages and at
// them, without the peak of the start itself.
func (t *Tree) most() int64 {
	return max(t.Mounted.Resident, t.Idle.Resident, t.Busy.Resident, t.After.Resident)
}

type number interface{ ~int64 | ~float64 }

// median returns the middle of list, which must not be empty; of an even number
// the mean of both.
func median[T number](list []T) T {
	s := slices.Clone(list)
	slices.Sort(s)
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
