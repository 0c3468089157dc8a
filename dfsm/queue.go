package dfsm

import (
	"cmp"
	"slices"
)

// messageQueue holds messages in the order of arrival, until sort puts them in
// the order of their counts, equal ones as they arrived. Sorting when the
// queue is walked gives the same order as sorting every message in, without
// moving the queue for each.
type messageQueue struct {
	items []Message
	bytes int // sum of their sizes
}

func (q *messageQueue) add(m *Message) {
	q.items = append(q.items, *m)
	q.bytes += m.size()
}

func (q *messageQueue) dropLast() {
	last := len(q.items) - 1
	q.bytes -= q.items[last].size()
	q.items[last] = Message{}
	q.items = q.items[:last]
}

func (q *messageQueue) sort() {
	slices.SortStableFunc(q.items, func(a, b Message) int { return cmp.Compare(a.Count, b.Count) })
}

func (q *messageQueue) reset() { q.items, q.bytes = nil, 0 }

// deliverQueue walks the message queue in order (the DFSM protocol, "The two
// queues"): messages of members that are gone are dropped; those of synced
// members go to the application, or in mode update to the sync queue; the
// others stay.
func (m *Machine) deliverQueue() {
	if len(m.queue.items) == 0 {
		return
	}
	m.queue.sort()
	all := m.queue.items
	m.queue.reset()
	for i := range all {
		sender := m.find(all[i].From)
		switch {
		case sender == nil:
		case !sender.synced:
			m.queue.add(&all[i])
		case m.mode == ModeUpdate:
			m.syncQ.add(&all[i])
		default:
			m.batch = append(m.batch, all[i])
		}
	}
}

// waiters are the local submissions without a reply yet, ascending by count.
// They are mostly answered in their order; a taken one has id 0 until the
// front reaches it.
type waiters struct {
	items []waiter
	head  int
	open  int // how many have an id
}

type waiter struct{ count, id uint64 }

func (w *waiters) len() int { return w.open }

func (w *waiters) add(count, id uint64) {
	if w.head > 64 && w.head > len(w.items)/2 {
		w.items = w.items[:copy(w.items, w.items[w.head:])]
		w.head = 0
	}
	w.items = append(w.items, waiter{count, id})
	w.open++
}

// take removes the waiter for count and returns its id.
func (w *waiters) take(count uint64) (id uint64, ok bool) {
	open := w.items[w.head:]
	i, found := slices.BinarySearchFunc(open, count, func(it waiter, count uint64) int { return cmp.Compare(it.count, count) })
	if !found || open[i].id == 0 {
		return 0, false
	}
	id, open[i].id = open[i].id, 0
	w.open--
	for w.head < len(w.items) && w.items[w.head].id == 0 {
		w.head++
	}
	return id, true
}

// drain removes all waiters, in their order.
func (w *waiters) drain(f func(id uint64)) {
	for _, it := range w.items[w.head:] {
		if it.id != 0 {
			f(it.id)
		}
	}
	*w = waiters{}
}
