package report

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// clusterGoals are those for a cluster.
func clusterGoals() []goal {
	var list []goal
	of := func(name string, clients int, f func(*ClusterOp) float64) func(*Report) (float64, bool) {
		return func(r *Report) (float64, bool) {
			i := slices.IndexFunc(r.Cluster, func(o ClusterOp) bool { return o.Name == name && o.Clients == clients })
			if i < 0 {
				return 0, false
			}
			return f(&r.Cluster[i]), true
		}
	}
	for _, g := range []struct {
		op    string
		times float64
	}{
		{"create", 2.6}, {"overwrite", 1.4}, {"temp-rename", 3.8}, {"mkdir-rmdir", 2.6},
		{"512K-in-4K", 128 * 1.25}, {"512K-in-1", 1.4}, {"delete", 1.4},
	} {
		list = append(list, goal{
			what:  fmt.Sprintf("cluster, %s, 1 client: time by a bare message's", g.op),
			limit: g.times, atMost: true, format: "%.2f",
			measure: of(g.op, 1, func(o *ClusterOp) float64 { return o.Times }),
		})
	}
	for _, op := range []string{"create", "overwrite", "temp-rename", "mkdir-rmdir"} {
		measure := of(op, 8, func(o *ClusterOp) float64 { return o.Speedup })
		list = append(list, goal{
			what:  fmt.Sprintf("cluster, %s, 8 clients: rate by one client's", op),
			limit: 4, format: "%.2f",
			measure: func(r *Report) (float64, bool) {
				x, ok := measure(r)
				return x, ok && x > 0
			},
		})
	}
	list = append(list, goal{
		what: "cluster: a change is visible on another node, p99", limit: 10, atMost: true, format: "%.2f ms",
		measure: func(r *Report) (worst float64, ok bool) {
			for _, v := range r.Visible {
				worst, ok = max(worst, milliseconds(v.P99)), true
			}
			return worst, ok
		},
	})
	for _, g := range []struct {
		entries int
		limit   time.Duration
	}{{10_000, 500 * time.Millisecond}, {100_000, 4 * time.Second}} {
		list = append(list, goal{
			what:  fmt.Sprintf("cluster: an empty node joins %d entries", g.entries),
			limit: milliseconds(g.limit), atMost: true, format: "%.0f ms",
			measure: func(r *Report) (float64, bool) {
				i := slices.IndexFunc(r.Joins, func(j Join) bool { return j.Entries == g.entries })
				if i < 0 {
					return 0, false
				}
				return milliseconds(r.Joins[i].Median), true
			},
		})
	}
	return append(list, goal{
		what: "cluster: the longest read on another node during a join", limit: 5, atMost: true, format: "%.1f ms",
		measure: func(r *Report) (longest float64, ok bool) {
			for _, j := range r.Joins {
				longest, ok = max(longest, milliseconds(j.LongestRead)), true
			}
			return longest, ok
		},
	})
}

// requestGoals are those for the service that Proxmox's tools call.
func requestGoals() []goal {
	var list []goal
	worst := func(name string, clients int) func(*Report) (float64, bool) {
		return func(r *Report) (ratio float64, ok bool) {
			for _, q := range r.Requests {
				if q.Clients == clients && strings.HasPrefix(q.Name, name) && (!ok || q.Ratio < ratio) {
					ratio, ok = q.Ratio, true
				}
			}
			return ratio, ok
		}
	}
	for _, clients := range []int{1, 8} {
		for _, name := range []string{"1 ", "3 ", "5 ", "6 config 1 KiB", "6 config 1 MiB"} {
			list = append(list, goal{
				what:  fmt.Sprintf("request %s, %s: rate by a bare libqb server's", strings.TrimSpace(name), plural(clients, "client")),
				limit: 0.80, format: "%.2f",
				measure: worst(name, clients),
			})
		}
	}
	return append(list, goal{
		what: "request 11 over 1,000 guests, whoever asks and writes: p50", limit: 5, atMost: true, format: "%.2f ms",
		measure: func(r *Report) (longest float64, ok bool) {
			for _, q := range r.Requests {
				if strings.HasPrefix(q.Name, "11 ") {
					longest, ok = max(longest, milliseconds(q.Subject.P50)), true
				}
			}
			for _, b := range r.Beside {
				longest, ok = max(longest, milliseconds(b.Answer)), true
			}
			return longest, ok
		},
	}, goal{
		what: "overwrite beside 100 requests 11 a second: p50 by that alone", limit: 1.25, atMost: true, format: "%.2f",
		measure: func(r *Report) (float64, bool) {
			alone := slices.IndexFunc(r.Beside, func(b Beside) bool { return b.Clients == 0 })
			beside := slices.IndexFunc(r.Beside, func(b Beside) bool { return b.Every > 0 })
			if alone < 0 || beside < 0 {
				return 0, false
			}
			return float64(r.Beside[beside].Subject.P50) / float64(r.Beside[alone].Subject.P50), true
		},
	}, goal{
		what: "100 clients poll .version once a second: the daemon's part of a processor", limit: 4, atMost: true, format: "%.2f %%",
		measure: func(r *Report) (most float64, ok bool) {
			for _, p := range r.Polling {
				most, ok = max(most, 100*p.CPU), true
			}
			return most, ok
		},
	})
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
