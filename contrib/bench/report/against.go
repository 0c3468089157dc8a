package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/server"
)

// Against is one operation on the daemon and on another one.
type Against struct {
	Nodes    int     `json:"nodes"` // of the cluster; 1: there is none
	Name     string  `json:"name"`
	Clients  int     `json:"clients"`
	Subject  Figures `json:"daemon"`
	Other    Figures `json:"other"`
	Rate     Ratio   `json:"rate"`
	P50      Ratio   `json:"p50"` // times, like the next: lower is better
	P99      Ratio   `json:"p99"`
	CPU      Ratio   `json:"cpu"`
	Requests Pair    `json:"requests"` // per operation, by kind; empty: not counted

	// Of one of the nodes that only follow, their mean, per operation.
	FollowerCPU    [2]time.Duration `json:"follower_cpu"`
	FollowerWrites [2]float64       `json:"follower_writes"` // write calls
}

// Pair are the requests to the daemon and to the other.
type Pair [2]map[string]float64

// Ratio is one figure of the daemon's by the other's: the median over the rounds, in each of which
// both ran right after each other, and the extremes.
type Ratio struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func ratioOf(subject, other []*load.Result, figure func(*load.Result) float64) Ratio {
	var list []float64
	for i := range subject {
		list = append(list, figure(subject[i])/figure(other[i]))
	}
	return Ratio{median(list), slices.Min(list), slices.Max(list)}
}

// CompareAgainst makes an Against of the results of all rounds, and of a round of each in which requests
// were counted; nil means there is none.
func CompareAgainst(nodes int, name string, clients int, subject, other []*load.Result, counted [2]*load.Result) Against {
	quantile := func(q float64) func(*load.Result) float64 {
		return func(r *load.Result) float64 { return float64(r.Latency.Quantile(q)) }
	}
	a := Against{
		Nodes: nodes, Name: name, Clients: clients, Subject: FiguresOf(subject), Other: FiguresOf(other),
		Rate: ratioOf(subject, other, (*load.Result).PerSecond),
		P50:  ratioOf(subject, other, quantile(0.50)),
		P99:  ratioOf(subject, other, quantile(0.99)),
		CPU: ratioOf(subject, other, func(r *load.Result) float64 {
			return max(float64(r.Used.CPU), 1) / float64(max(r.Ops, 1))
		}),
	}
	for i, r := range counted {
		if r != nil {
			a.Requests[i] = perOp(r.Requests, r.Ops)
		}
	}
	for i, rounds := range [2][]*load.Result{subject, other} {
		var used server.Counters
		ops := 0
		for _, r := range rounds {
			used.Add(r.Others)
			ops += r.Ops
		}
		if n := max(ops, 1) * (nodes - 1); n > 0 {
			a.FollowerCPU[i] = used.CPU / time.Duration(n)
			a.FollowerWrites[i] = float64(used.Writes) / float64(n)
		}
	}
	return a
}

// perOp returns requests per operation, without those that have little to do with it.
func perOp(r server.Requests, ops int) map[string]float64 {
	m := make(map[string]float64)
	for kind, n := range r {
		if x := float64(n) / float64(max(ops, 1)); x >= 0.005 {
			m[kind] = x
		}
	}
	return m
}

func (r *Report) againstTables(t *tables) {
	if len(r.Against) == 0 {
		return
	}
	cluster := slices.ContainsFunc(r.Against, func(a Against) bool { return a.Nodes > 1 })
	columns := []string{"nodes", "operation", "clients", "daemon/s", "other/s", "ratio", "of rounds", "p50", "other", "by", "of rounds", "p99", "other", "CPU/op", "other", "by", "switches/op", "other"}
	if cluster {
		columns = append(columns, "follower's CPU/op", "other", "writes/op", "other")
	}
	t.head(columns...)
	for _, a := range r.Against {
		s, o := a.Subject, a.Other
		cells := []string{fmt.Sprint(a.Nodes), a.Name, fmt.Sprint(a.Clients), rate(s.PerSecond), rate(o.PerSecond),
			fmt.Sprintf("%.2f", a.Rate.Median), a.Rate.bounds(), span(s.P50), span(o.P50), fmt.Sprintf("%.2f", a.P50.Median), a.P50.bounds(),
			span(s.P99), span(o.P99), span(s.CPU), span(o.CPU), fmt.Sprintf("%.2f", a.CPU.Median),
			fmt.Sprintf("%.2f", s.Switches), fmt.Sprintf("%.2f", o.Switches)}
		if cluster {
			cells = append(cells, span(a.FollowerCPU[0]), span(a.FollowerCPU[1]), fmt.Sprintf("%.1f", a.FollowerWrites[0]), fmt.Sprintf("%.1f", a.FollowerWrites[1]))
		}
		t.row(cells...)
	}
	t.end()
	t.head("nodes", "requests per operation", "clients", "daemon", "other", "the daemon's", "the other's")
	for _, a := range r.Against {
		if a.Requests[0] == nil {
			continue
		}
		t.row(fmt.Sprint(a.Nodes), a.Name, fmt.Sprint(a.Clients), a.Requests.sum(0), a.Requests.sum(1), a.Requests.list(0), a.Requests.list(1))
	}
	t.end()
}

func (r Ratio) bounds() string { return fmt.Sprintf("%.2f-%.2f", r.Low, r.High) }

func (p Pair) sum(i int) string {
	sum := 0.0
	for _, n := range p[i] {
		sum += n
	}
	return fmt.Sprintf("%.2f", sum)
}

// list names the requests, the most frequent first.
func (p Pair) list(i int) string {
	type kind struct {
		name string
		n    float64
	}
	var kinds []kind
	for name, n := range p[i] {
		kinds = append(kinds, kind{name, n})
	}
	slices.SortFunc(kinds, func(a, b kind) int {
		if a.n != b.n && max(a.n-b.n, b.n-a.n) > 0.05 {
			if a.n > b.n {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	var words []string
	for _, k := range kinds {
		if k.n > 0.95 && k.n < 1.05 {
			words = append(words, k.name)
		} else {
			words = append(words, fmt.Sprintf("%.2g %s", k.n, k.name))
		}
	}
	return strings.Join(words, ", ")
}
