package report

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"pmxcfs/contrib/bench/server"
)

// WriteTables writes everything as tables of Markdown.
func (r *Report) WriteTables(w io.Writer) error {
	t := &tables{w: w}
	m := r.Machine
	t.text("%s, %d CPUs (%s), Linux %s, %s; took %.0f s, others used %.0f %% of the CPUs\n",
		m.Began.Format(time.DateTime), m.CPUs, m.CPU, m.Kernel, m.Go, m.Took, 100*m.Others)
	if len(r.Ops) > 0 {
		t.head("operation", "clients", "daemon/s", "floor/s", "ratio", "of rounds", "p50", "floor", "p99", "floor", "CPU/op", "floor", "disk/op")
		for _, o := range r.Ops {
			s, f := o.Subject, o.Floor
			t.row(o.Name, fmt.Sprint(o.Clients), rate(s.PerSecond), rate(f.PerSecond),
				fmt.Sprintf("%.2f", o.Ratio), fmt.Sprintf("%.2f-%.2f", o.Low, o.High),
				span(s.P50), span(f.P50), span(s.P99), span(f.P99), span(s.CPU), span(f.CPU), size(s.Written))
		}
		t.end()
	}
	if len(r.SQLite) > 0 {
		t.head("bare SQLite", "rows/s", "transactions/s", "p50", "p99", "CPU/row", "disk/row")
		for _, x := range r.SQLite {
			f := x.Figures
			t.row(fmt.Sprintf("%d × %s", x.Batch, size(float64(x.Size))), rate(f.PerSecond), rate(f.PerSecond/float64(x.Batch)),
				span(f.P50), span(f.P99), span(f.CPU), size(f.Written))
		}
		t.end()
	}
	r.againstTables(t)
	r.clusterTables(t)
	if len(r.Metrics) > 0 {
		t.head("with metrics", "with/s", "without/s", "ratio", "±", "of two without", "of rounds", "p50", "without", "p99", "without", "CPU/op", "without")
		for _, o := range r.Metrics {
			s, f := o.Subject, o.Floor
			t.row(o.Name, rate(s.PerSecond), rate(f.PerSecond), fmt.Sprintf("%.3f", o.Ratio), fmt.Sprintf("%.3f", o.Error), fmt.Sprintf("%.3f", o.Control), fmt.Sprintf("%.2f-%.2f", o.Low, o.High),
				span(s.P50), span(f.P50), span(s.P99), span(f.P99), span(s.CPU), span(f.CPU))
		}
		t.end()
	}
	if len(r.Start) > 0 {
		t.head("start with", "median", "all")
		for _, s := range r.Start {
			all := ""
			for _, d := range s.Took {
				all += " " + span(d)
			}
			t.row(s.Tree, span(s.Median), all)
		}
		t.end()
	}
	if len(r.Memory) > 0 {
		t.head("resident MiB", "entries", "mounted", "idle", "writing", "after", "peak", "anonymous after", "writes/s")
		for _, x := range r.Memory {
			t.row(x.Name, fmt.Sprint(x.Entries), resident(x.Mounted), resident(x.Idle), resident(x.Busy), resident(x.After),
				mebi(x.After.Peak), mebi(x.After.Anonymous), rate(float64(x.Writes)/x.Writing.Seconds()))
		}
		t.end()
	}
	if len(r.Goals) > 0 {
		t.head("goal", "limit", "measured", "met")
		for _, g := range r.Goals {
			bound, met := "at least ", "yes"
			if g.AtMost {
				bound = "at most "
			}
			switch {
			case !g.Judged:
				met = "not judged"
			case !g.Met:
				met = "NO"
			}
			t.row(g.Goal, bound+fmt.Sprintf(g.format, g.Limit), fmt.Sprintf(g.format, g.Measured), met)
		}
		t.end()
		t.text("\nmet: whether the median of the rounds reached the limit, yes or NO.\n"+
			" Nothing is judged below %d rounds, or if others used more than %.0f %% of the CPUs.\n", leastRounds, 100*mostOthers)
		if doubt := r.Machine.doubt(); doubt != "" {
			t.text("Not judged here: %s.\n", doubt)
		}
	}
	return t.err
}

// tables writes Markdown with the columns in line.
type tables struct {
	w   io.Writer
	tab *tabwriter.Writer
	err error
}

func (t *tables) text(format string, args ...any) {
	if _, err := fmt.Fprintf(t.w, format, args...); err != nil {
		t.err = err
	}
}

func (t *tables) head(columns ...string) {
	t.text("\n")
	t.tab = tabwriter.NewWriter(t.w, 0, 0, 1, ' ', 0)
	t.row(columns...)
	rule := make([]string, len(columns))
	for i := range rule {
		rule[i] = "---"
	}
	t.row(rule...)
}

func (t *tables) row(cells ...string) {
	for _, c := range cells {
		if _, err := fmt.Fprintf(t.tab, "| %s\t", c); err != nil {
			t.err = err
		}
	}
	if _, err := fmt.Fprintln(t.tab, "|"); err != nil {
		t.err = err
	}
}

func (t *tables) end() {
	if err := t.tab.Flush(); err != nil {
		t.err = err
	}
}

func rate(x float64) string {
	switch {
	case x >= 1e5:
		return fmt.Sprintf("%.0fk", x/1e3)
	case x >= 1e4:
		return fmt.Sprintf("%.1fk", x/1e3)
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.1f", x)
}

// span writes a duration with three digits.
func span(d time.Duration) string {
	us := float64(d) / 1e3
	switch {
	case us >= 1e5:
		return fmt.Sprintf("%.0fms", us/1e3)
	case us >= 1e3:
		return fmt.Sprintf("%.3gms", us/1e3)
	}
	return fmt.Sprintf("%.3gµs", us)
}

// size writes a number of bytes in decimal units.
func size(x float64) string {
	switch {
	case x >= mB:
		return fmt.Sprintf("%.2fMB", x/mB)
	case x >= kB:
		return fmt.Sprintf("%.1fkB", x/kB)
	}
	return fmt.Sprintf("%.0fB", x)
}

func resident(m server.Memory) string { return mebi(m.Resident) }

func mebi(n int64) string { return fmt.Sprintf("%.1f", float64(n)/miB) }
