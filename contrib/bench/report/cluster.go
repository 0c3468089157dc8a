package report

import (
	"slices"
	"time"

	"pmxcfs/contrib/bench/load"
)

// ClusterOp is one operation by clients on one node of a cluster, beside bare messages
// of that node, as many in flight as there are clients.
type ClusterOp struct {
	Name    string  `json:"name"`
	Clients int     `json:"clients"`
	Message int     `json:"message_bytes"` // of a bare message
	Subject Figures `json:"daemon"`
	Floor   Figures `json:"messages"`

	// Times is how many times as long as a bare message the operation takes, by the
	// rates: the median over the rounds, in each of which both ran right after each
	// other; Low and High are the extremes.
	Times float64 `json:"times"`
	Low   float64 `json:"times_low"`
	High  float64 `json:"times_high"`

	// Speedup is the rate by that of one client: the median over the rounds. 0 means one
	// client was not measured.
	Speedup float64 `json:"speedup"`
}

// CompareCluster makes a ClusterOp of the results of all rounds; one are those of one
// client, empty if there are none.
func CompareCluster(name string, clients, message int, subject, floor, one []*load.Result) ClusterOp {
	o := ClusterOp{Name: name, Clients: clients, Message: message, Subject: FiguresOf(subject), Floor: FiguresOf(floor)}
	var times, speedups []float64
	for i := range subject {
		times = append(times, floor[i].PerSecond()/subject[i].PerSecond())
		if i < len(one) {
			speedups = append(speedups, subject[i].PerSecond()/one[i].PerSecond())
		}
	}
	o.Times, o.Low, o.High = median(times), slices.Min(times), slices.Max(times)
	if len(speedups) > 0 {
		o.Speedup = median(speedups)
	}
	return o
}

// Visible is how long after a call's return on one node its effect shows on another.
type Visible struct {
	Change  string        `json:"change"`
	Writers int           `json:"writers"` // that overwrite other files all the time
	Seen    int           `json:"seen"`    // changes
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Max     time.Duration `json:"max"`
}

// NewVisible sums up a result.
func NewVisible(change string, writers int, r *load.Result) Visible {
	return Visible{Change: change, Writers: writers, Seen: r.Ops,
		P50: r.Latency.Quantile(0.50), P99: r.Latency.Quantile(0.99), Max: r.Latency.Quantile(1)}
}

// Join is an empty node's catching up with two others.
type Join struct {
	Entries int             `json:"entries"`
	Took    []time.Duration `json:"took"` // from the joiner's first view to all data, in whole milliseconds
	Median  time.Duration   `json:"median"`

	// Of small files read on one of the others meanwhile, in all rounds:
	Reads       load.Histogram `json:"reads"`
	P99         time.Duration  `json:"read_p99"`
	LongestRead time.Duration  `json:"longest_read"`
	// FloorRead is the longest read on the bare file system, on the same machine at
	// the same time: what of LongestRead is due to the processors being busy.
	FloorRead time.Duration `json:"longest_floor_read"`
}

// Sum computes what follows from the rest.
func (j *Join) Sum() {
	j.Median = median(j.Took)
	j.P99 = j.Reads.Quantile(0.99)
}

// Where a lone client runs.
const (
	SameCPU  = "same CPU"
	OtherCPU = "other CPU"
)

// Request is one kind of request to the service that Proxmox's tools call, beside
// requests of the same lengths to a bare libqb server.
type Request struct {
	Name    string  `json:"name"`
	Clients int     `json:"clients"`
	Place   string  `json:"place"`  // of the clients
	Answer  int     `json:"answer"` // bytes after the header
	Subject Figures `json:"daemon"`
	Floor   Figures `json:"echo"`
	Ratio   float64 `json:"ratio"` // of the rates: the median over the rounds
	Low     float64 `json:"ratio_low"`
	High    float64 `json:"ratio_high"`
}

// CompareRequests makes a Request of the results of all rounds.
func CompareRequests(name, place string, clients, answer int, subject, floor []*load.Result) Request {
	o := Compare(name, clients, subject, floor)
	return Request{Name: name, Clients: clients, Place: place, Answer: answer,
		Subject: o.Subject, Floor: o.Floor, Ratio: o.Ratio, Low: o.Low, High: o.High}
}

// Beside is a writer in the mount while clients ask for a property of all guests, beside one on
// the bare file system meanwhile: what of the difference is due to the processors being busy.
type Beside struct {
	Clients int           `json:"clients"` // that ask; 0: none
	Every   time.Duration `json:"every"`   // each of them; 0: without a pause
	Asked   float64       `json:"asked_per_second"`
	Answer  time.Duration `json:"answer_p50"`
	Subject Figures       `json:"daemon"` // of the writer
	Floor   Figures       `json:"floor"`
}

// NewBeside sums up all rounds; asked is what the clients did beside the daemon's writer.
func NewBeside(clients int, every time.Duration, asked, subject, floor []*load.Result) Beside {
	b := Beside{Clients: clients, Every: every, Subject: FiguresOf(subject), Floor: FiguresOf(floor)}
	if len(asked) > 0 {
		f := FiguresOf(asked)
		b.Asked, b.Answer = f.PerSecond, f.P50
	}
	return b
}

// Polling is what clients cost that ask for .version at intervals, while it changes.
type Polling struct {
	By        string        `json:"by"`
	Clients   int           `json:"clients"`
	PerSecond float64       `json:"per_second"`
	P50       time.Duration `json:"p50"`
	P99       time.Duration `json:"p99"`
	CPU       float64       `json:"cpu"` // of the daemon: the part of one processor's time
}

// NewPolling sums up a result.
func NewPolling(by string, clients int, r *load.Result) Polling {
	return Polling{By: by, Clients: clients, PerSecond: r.PerSecond(),
		P50: r.Latency.Quantile(0.50), P99: r.Latency.Quantile(0.99),
		CPU: r.Used.CPU.Seconds() / r.Elapsed.Seconds()}
}
