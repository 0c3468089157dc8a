package diagnosis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/status/inspect"
)

// LogFilter says which entries of the cluster log are wanted.
type LogFilter struct {
	User, Node, Tag, Text string    // empty: all
	Since                 time.Time // zero: all
	Priority              int       // the least bad one; 7: all
	Newest                int       // how many, when it is read first; 0: all
}

func (f *LogFilter) wants(e *inspect.LogEntry) bool {
	return (f.User == "" || e.User == f.User) && (f.Node == "" || e.Node == f.Node) && (f.Tag == "" || e.Tag == f.Tag) &&
		(f.Text == "" || strings.Contains(e.Text, f.Text)) && e.Time >= f.Since.Unix() && e.Priority <= f.Priority
}

// LogReader reads the cluster log, and tells new entries from known ones.
type LogReader struct {
	Filter LogFilter
	known  map[logKey]bool // nil: nothing has been read
}

// logKey tells entries apart, as the nodes do, and those of a daemon from those of
// the one before it, which counted from 1, too.
type logKey struct {
	node string
	time int64
	uid  uint32
	pid  uint32
	text string
}

// New returns the entries that are wanted and were not returned before, the oldest
// first.
func (r *LogReader) New(ctx context.Context, h *Host) ([]inspect.LogEntry, error) {
	log, err := ask(ctx, h, func(c *inspect.Client, ctx context.Context) (*inspect.Log, error) {
		return c.Log(ctx, 0, r.Filter.User)
	})
	if err != nil {
		return nil, err
	}
	first := r.known == nil
	known := make(map[logKey]bool, len(log.Entries))
	var list []inspect.LogEntry
	for i := range log.Entries {
		e := &log.Entries[i]
		k := logKey{e.Node, e.Time, e.UID, e.PID, e.Text}
		known[k] = true
		if !r.known[k] && r.Filter.wants(e) {
			list = append(list, *e)
		}
	}
	r.known = known
	if n := r.Filter.Newest; first && n > 0 && len(list) > n {
		list = list[:n]
	}
	slices.Reverse(list)
	return list, nil
}

var priorities = []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

// ParsePriority reads a name or number of syslog's priorities; empty is the last.
func ParsePriority(text string) (int, error) {
	if text == "" {
		return len(priorities) - 1, nil
	}
	if i := slices.Index(priorities, strings.ToLower(text)); i >= 0 {
		return i, nil
	}
	switch strings.ToLower(text) {
	case "error":
		return 3, nil
	case "warn":
		return 4, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n >= len(priorities) {
		return 0, fmt.Errorf("%q is no priority: %s, or 0 to 7", text, strings.Join(priorities, ", "))
	}
	return n, nil
}

// ParseSince reads a time, or how long ago it was; empty is none.
func ParseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 36500 {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: 90m, 2h, 3d, 2026-01-31, \"2026-01-31 15:04:05\"", text)
}

// LogEntry writes an entry of the cluster log for people.
func (p *Painter) LogEntry(e *inspect.LogEntry) {
	priority := strconv.Itoa(e.Priority)
	if e.Priority >= 0 && e.Priority < len(priorities) {
		priority = priorities[e.Priority]
	}
	color := ""
	switch {
	case e.Priority <= 3:
		color = red
	case e.Priority == 4:
		color = yellow
	}
	p.printf("%s %s %s %s[%d] %s: %s\n", when(time.Unix(e.Time, 0)), clean(e.Node), clean(e.User), clean(e.Tag), e.PID,
		p.paint(color, priority), clean(e.Text))
}
