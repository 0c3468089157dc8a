package load

import "time"

// pace says when a client's next operation is due.
type pace struct {
	every time.Duration // 0 means at once
	next  time.Time
}

// newPace returns the pace, from begin on, of client i of n, which begin one after the other.
func newPace(begin time.Time, every time.Duration, i, n int) *pace {
	return &pace{every, begin.Add(every * time.Duration(i) / time.Duration(n))}
}

// wait returns true when the next operation is due, or false at the end.
func (p *pace) wait(end time.Time) bool {
	now := time.Now()
	if p.every == 0 {
		return now.Before(end)
	}
	if !p.next.Before(end) {
		time.Sleep(end.Sub(now))
		return false
	}
	time.Sleep(p.next.Sub(now))
	p.next = p.next.Add(p.every)
	return true
}
