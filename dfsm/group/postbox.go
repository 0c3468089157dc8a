package group

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pmxcfs/internal/event"
)

const (
	// maxPosted bounds the messages without a waiter that the group does
	// not take: in bytes, each counting postCost more than its payload. They may
	// come without end, as samples do, while corosync stands still.
	maxPosted = 4 << 20
	postCost  = 64
	// maxUnsent bounds in the same way the messages that callers wait for or have given up.
	maxUnsent = 64 << 20
)

// postbox holds posts until there is room for them in the outbox. Of one key it
// holds the newest message only, and when it is full it drops the oldest one.
type postbox struct {
	queue fifo[*post]
	byKey map[string]*post
	bytes int

	held     bool           // the outbox has no room for them
	since    time.Time      // of the first one dropped; zero: none was since the last report
	dropped  map[uint16]int // since then, by subtype
	replaced int            // since the box was last empty
}

// post is a message without a waiter.
type post struct {
	key     string // "": none
	subtype uint16
	payload []byte
}

func (p *post) cost() int { return postCost + len(p.key) + len(p.payload) }

// add puts a message in, and returns what had to go for it: how many messages of the
// same key, and how many others with how many bytes.
func (b *postbox) add(p *post) (replaced, dropped, bytes int) {
	if p.key != "" {
		if old := b.byKey[p.key]; old != nil {
			b.bytes += p.cost() - old.cost()
			*old = *p
			b.replaced++
			replaced = 1
		} else {
			if b.byKey == nil {
				b.byKey = make(map[string]*post)
			}
			b.byKey[p.key] = p
		}
	}
	if replaced == 0 {
		b.queue.push(p)
		b.bytes += p.cost()
	}
	for b.bytes > maxPosted {
		old := b.take()
		if b.since.IsZero() {
			b.since, b.dropped = time.Now(), make(map[uint16]int)
		}
		b.dropped[old.subtype]++
		dropped++
		bytes += len(old.payload)
	}
	return replaced, dropped, bytes
}

// take removes the oldest message; nil means there is none.
func (b *postbox) take() *post {
	if b.queue.len() == 0 {
		return nil
	}
	p := *b.queue.first()
	b.queue.pop()
	b.bytes -= p.cost()
	if p.key != "" {
		delete(b.byKey, p.key)
	}
	if b.queue.len() == 0 {
		b.replaced = 0
	}
	return p
}

// report ends an episode of dropping: a function that logs it; nil means there was none.
func (b *postbox) report(log *slog.Logger) func() {
	if b.since.IsZero() || b.queue.len() > 0 {
		return nil
	}
	total, kinds, since := 0, []string(nil), b.since
	for subtype, n := range b.dropped {
		total += n
		kinds = append(kinds, fmt.Sprintf("%d of type %d", n, subtype))
	}
	slices.Sort(kinds)
	b.since, b.dropped = time.Time{}, nil
	return func() {
		log.Warn("messages were dropped because corosync took none", "dropped", total, "types", strings.Join(kinds, ", "),
			"since", since, event.MessagesDropped.Attr("lasted", time.Since(since)))
	}
}
