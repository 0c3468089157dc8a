package inspect

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxProblems is how many warnings and errors are remembered, maxText the
	// bytes of each one's text.
	maxProblems = 64
	maxText     = 1024
)

// Recent remembers the last warnings and errors of a daemon's log. Its zero
// value is empty; its methods may be called from any goroutine.
type Recent struct {
	mu   sync.Mutex // guards list
	list []Problem  // by Last, ascending
}

// Add remembers a problem whose First is set. One with the text of another that
// is remembered counts that one up: what goes on for hours must not push
// everything else out.
func (r *Recent) Add(p Problem) {
	if len(p.Text) > maxText {
		p.Text = strings.ToValidUTF8(p.Text[:maxText], "") + " …"
	}
	p.Last, p.Count = p.First, 1
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(o Problem) bool { return o.Domain == p.Domain && o.Level == p.Level && o.Text == p.Text }
	if i := slices.IndexFunc(r.list, same); i >= 0 {
		p.First, p.Count = r.list[i].First, r.list[i].Count+1
		r.list = slices.Delete(r.list, i, i+1)
	} else if len(r.list) == maxProblems {
		r.list = slices.Delete(r.list, 0, 1)
	}
	r.list = append(r.list, p)
}

// Problems returns what is remembered, the most recent first. The caller owns it.
func (r *Recent) Problems() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.list)
	slices.Reverse(list)
	return list
}

// since returns those problems that came last after a time.
func since(list []Problem, t time.Time) []Problem {
	return slices.DeleteFunc(list, func(p Problem) bool { return p.Last.Before(t) })
}
