package status

import (
	"log/slog"
	"time"
)

// complaintEvery is how often the log hears of one kind of trouble.
const complaintEvery = 10 * time.Second

// complaints logs what peers do wrong: one line for each kind of trouble, and then
// one every complaintEvery that says how many were held back. One goroutine uses
// it.
type complaints struct {
	log  *slog.Logger
	now  func() time.Time
	last map[string]complaint
}

type complaint struct {
	at   time.Time
	held int
}

// add logs text, unless there was a line of that kind a moment ago. Kinds are few.
func (c *complaints) add(kind, text string, attrs ...any) {
	now := c.now()
	last, known := c.last[kind]
	if age := now.Sub(last.at); known && age >= 0 && age < complaintEvery {
		last.held++
		c.last[kind] = last
		return
	}
	if last.held > 0 {
		attrs = append(attrs, "held_back", last.held)
	}
	if c.last == nil {
		c.last = make(map[string]complaint)
	}
	c.last[kind] = complaint{at: now}
	c.log.Warn(text, attrs...)
}
