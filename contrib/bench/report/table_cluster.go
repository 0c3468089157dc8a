package report

import "fmt"

// clusterTables writes what was found in a cluster, and of the service for Proxmox's
// tools.
func (r *Report) clusterTables(t *tables) {
	if len(r.Cluster) > 0 {
		t.head("3 nodes", "clients", "daemon/s", "messages/s", "times as long", "of rounds", "by 1 client", "p50", "message", "p99", "message", "CPU/op", "message", "disk/op")
		for _, o := range r.Cluster {
			s, f := o.Subject, o.Floor
			t.row(o.Name, fmt.Sprint(o.Clients), rate(s.PerSecond), rate(f.PerSecond),
				fmt.Sprintf("%.2f", o.Times), fmt.Sprintf("%.2f-%.2f", o.Low, o.High), fmt.Sprintf("%.2f", o.Speedup),
				span(s.P50), span(f.P50), span(s.P99), span(f.P99), span(s.CPU), span(f.CPU), size(s.Written))
		}
		t.end()
	}
	if len(r.Visible) > 0 {
		t.head("visible on another node", "writers beside", "changes", "p50", "p99", "longest")
		for _, v := range r.Visible {
			t.row(v.Change, fmt.Sprint(v.Writers), fmt.Sprint(v.Seen), span(v.P50), span(v.P99), span(v.Max))
		}
		t.end()
	}
	if len(r.Joins) > 0 {
		t.head("join, entries", "median", "all", "reads on another node", "p99", "longest", "on the bare file system")
		for _, j := range r.Joins {
			all := ""
			for _, d := range j.Took {
				all += " " + span(d)
			}
			t.row(fmt.Sprint(j.Entries), span(j.Median), all, fmt.Sprint(j.Reads.Total), span(j.P99), span(j.LongestRead), span(j.FloorRead))
		}
		t.end()
	}
	if len(r.Requests) > 0 {
		t.head("request", "answer", "clients", "on", "daemon/s", "echo/s", "ratio", "of rounds", "p50", "echo", "p99", "echo", "CPU/op", "echo")
		for _, q := range r.Requests {
			s, f := q.Subject, q.Floor
			t.row(q.Name, size(float64(q.Answer)), fmt.Sprint(q.Clients), q.Place, rate(s.PerSecond), rate(f.PerSecond),
				fmt.Sprintf("%.2f", q.Ratio), fmt.Sprintf("%.2f-%.2f", q.Low, q.High),
				span(s.P50), span(f.P50), span(s.P99), span(f.P99), span(s.CPU), span(f.CPU))
		}
		t.end()
	}
	if len(r.Beside) > 0 {
		t.head("overwrites beside request 11", "asked/s", "answer", "daemon/s", "floor/s", "p50", "floor", "p99", "floor", "longest", "floor")
		for _, b := range r.Beside {
			what := "nobody asks"
			switch {
			case b.Clients > 0 && b.Every > 0:
				what = fmt.Sprintf("%s, each every %v", plural(b.Clients, "client"), b.Every)
			case b.Clients > 0:
				what = plural(b.Clients, "client") + " without pause"
			}
			s, f := b.Subject, b.Floor
			t.row(what, rate(b.Asked), span(b.Answer), rate(s.PerSecond), rate(f.PerSecond), span(s.P50), span(f.P50), span(s.P99), span(f.P99), span(s.Longest), span(f.Longest))
		}
		t.end()
	}
	if len(r.Polling) > 0 {
		t.head(".version polled by", "clients", "polls/s", "p50", "p99", "the daemon's part of a processor")
		for _, p := range r.Polling {
			t.row(p.By, fmt.Sprint(p.Clients), rate(p.PerSecond), span(p.P50), span(p.P99), fmt.Sprintf("%.2f %%", 100*p.CPU))
		}
		t.end()
	}
}
