package report

import (
	"fmt"
	"slices"
)

// goal is one thing that the daemon should reach.
type goal struct {
	what    string
	limit   float64
	atMost  bool // otherwise at least
	format  string
	measure func(*Report) (float64, bool) // false means not measured
}

// Verdict is a goal and what was measured for it.
type Verdict struct {
	Goal     string  `json:"goal"`
	Limit    float64 `json:"limit"`
	AtMost   bool    `json:"at_most"` // otherwise at least
	Measured float64 `json:"measured"`
	Met      bool    `json:"met"`
	Judged   bool    `json:"judged"` // false: the run was not good enough to say

	format string
}

const (
	kB  = 1e3
	mB  = 1e6
	miB = 1 << 20
)

// goals are all of them.
func goals() []goal {
	var list []goal
	for _, clients := range []int{1, 8} {
		for _, g := range []struct {
			op    string
			ratio float64
		}{
			{"create", 0.75}, {"overwrite", 0.85}, {"temp-rename", 0.75},
			{"read", 0.95}, {"stat", 0.95}, {"readdir", 0.95},
			{"mkdir-rmdir", 0.75}, {"512K-in-4K", 0.50}, {"512K-in-1", 0.70}, {"delete", 0.80},
		} {
			list = append(list, goal{
				what:  fmt.Sprintf("%s, %s: rate by the floor's", g.op, plural(clients, "client")),
				limit: g.ratio, format: "%.2f",
				measure: ofOp(g.op, clients, func(o *Op) float64 { return o.Ratio }),
			})
		}
	}
	bytes := func(op string, clients int, limit float64, unit float64, format string) {
		list = append(list, goal{
			what:  fmt.Sprintf("%s, %s: bytes to disk", op, plural(clients, "client")),
			limit: limit, atMost: true, format: format,
			measure: ofOp(op, clients, func(o *Op) float64 { return o.Subject.Written / unit }),
		})
	}
	bytes("create", 1, 17, kB, "%.1f kB")
	bytes("create", 8, 6, kB, "%.1f kB")
	bytes("512K-in-4K", 1, 1.5, mB, "%.2f MB")
	bytes("512K-in-4K", 8, 1.5, mB, "%.2f MB")
	list = append(list, goal{
		what: "read: requests to the daemon (OPEN and RELEASE)", limit: 2.005, atMost: true, format: "%.3g",
		measure: ofOp("read", 1, func(o *Op) float64 { return o.Subject.Writes }),
	})
	list = append(list, goal{
		what: Guests + ": start to mounted", limit: 150, atMost: true, format: "%.0f ms",
		measure: func(r *Report) (float64, bool) {
			i := slices.IndexFunc(r.Start, func(s Start) bool { return s.Tree == Guests })
			if i < 0 {
				return 0, false
			}
			return float64(r.Start[i].Median) / 1e6, true
		},
	})
	memory := func(what string, limit float64, of func(*Tree) bool) {
		list = append(list, goal{
			what: what + ": resident memory, the most of all stages", limit: limit, atMost: true, format: "%.0f MiB",
			measure: func(r *Report) (most float64, ok bool) {
				for i := range r.Memory {
					if t := &r.Memory[i]; of(t) {
						most, ok = max(most, float64(t.most())/miB), true
					}
				}
				return most, ok
			},
		})
	}
	memory(Guests, 40, func(t *Tree) bool { return t.Name == Guests })
	memory("full tree, whatever its shape", 180, func(t *Tree) bool { return t.Content == FullTree })
	for _, op := range CostOps {
		list = append(list, goal{
			what:  op + ": rate with metrics by that without",
			limit: 0.98, format: "%.3f",
			measure: func(r *Report) (float64, bool) {
				i := slices.IndexFunc(r.Metrics, func(o Cost) bool { return o.Name == op })
				if i < 0 {
					return 0, false
				}
				return r.Metrics[i].Ratio, true
			},
		})
	}
	return slices.Concat(list, clusterGoals(), requestGoals())
}

// Guests names the tree that the goals for guests are about.
const Guests = "10,000 guests"

// FullTree is the content of a full tree, in bytes.
const FullTree = 128 << 20

func ofOp(name string, clients int, f func(*Op) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		i := slices.IndexFunc(r.Ops, func(o Op) bool { return o.Name == name && o.Clients == clients })
		if i < 0 {
			return 0, false
		}
		return f(&r.Ops[i]), true
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Judge fills in the verdicts about everything that was measured.
func (r *Report) Judge() {
	r.Goals = nil
	for _, g := range goals() {
		got, ok := g.measure(r)
		if !ok {
			continue
		}
		met := got >= g.limit
		if g.atMost {
			met = got <= g.limit
		}
		r.Goals = append(r.Goals, Verdict{Goal: g.what, Limit: g.limit, AtMost: g.atMost, Measured: got, Met: met, Judged: r.Machine.doubt() == "", format: g.format})
	}
}
