package group

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/dfsm/wire"
)

// outbox holds the unsent messages. Normal messages and the protocol's own
// are two queues, served in turns: a long sync does not hold up the writers,
// nor they the sync.
type outbox struct {
	normals fifo[[]byte]
	bytes   atomic.Int64      // of normals; others read it
	others  fifo[dfsm.Action] // Send or SendUpdates
	frame   []byte            // the present update message, if it was not taken yet
	wait    time.Duration     // since the queues are full; 0 means they are not
}

// fifo is a queue that keeps its memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int  { return len(f.items) - f.head }
func (f *fifo[T]) first() *T { return &f.items[f.head] }
func (f *fifo[T]) push(it T) {
	if f.head > 0 && len(f.items) == cap(f.items) {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, it)
}
func (f *fifo[T]) pop() {
	var zero T
	f.items[f.head] = zero
	if f.head++; f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
}
func (f *fifo[T]) drop() { *f = fifo[T]{} }

// pushNormal queues a normal message so that counts leave in order: one that is
// sent once more, because someone joined, goes before newer ones.
func (o *outbox) pushNormal(msg []byte) {
	o.normals.push(msg)
	o.bytes.Add(int64(len(msg)))
	open := o.normals.items[o.normals.head:]
	for i := len(open) - 1; i > 0 && count(open[i-1]) > count(msg); i-- {
		open[i-1], open[i] = open[i], open[i-1]
	}
}

// popNormal says that the first of the normal messages has been sent.
func (o *outbox) popNormal() {
	o.bytes.Add(-int64(len(*o.normals.first())))
	o.normals.pop()
}

// count reads the counter of a normal message of our own.
func count(msg []byte) uint64 { return binary.LittleEndian.Uint64(msg[wire.HeaderSize:]) }

func (o *outbox) empty() bool { return o.normals.len() == 0 && o.others.len() == 0 }

func (o *outbox) dropOthers() {
	o.others.drop()
	o.frame = nil
}

func (o *outbox) drop() {
	o.normals.drop()
	o.bytes.Store(0)
	o.dropOthers()
	o.wait = 0
}

// next returns the next message of the protocol's own.
func (o *outbox) next() []byte {
	switch a := (*o.others.first()).(type) {
	case dfsm.SendUpdates:
		if o.frame == nil && a.Source != nil {
			if payload, ok := a.Source.Next(); ok {
				o.frame = a.Frame(payload)
			} else {
				a.Source = nil
				*o.others.first() = a
			}
		}
		if o.frame != nil {
			return o.frame
		}
		return a.Complete
	case dfsm.Send:
		return a.Bytes
	}
	return nil
}

// taken notes that the message returned by next has been sent.
func (o *outbox) taken() {
	if o.frame != nil {
		o.frame = nil
		return
	}
	o.others.pop()
}

// send sends a turn of each kind, as much as the group takes. It returns how
// long to wait for events before the rest is tried: 0 if there is more to
// send, idle if there is not.
func (g *Group) send() (time.Duration, error) {
	o := &g.out
	for range turn {
		if o.normals.len() == 0 {
			break
		}
		if err := g.mcast(*o.normals.first()); err != nil {
			return g.full(err)
		}
		o.popNormal()
	}
	g.release()
	for range turn {
		if o.others.len() == 0 {
			break
		}
		if err := g.mcast(o.next()); err != nil {
			return g.full(err)
		}
		o.taken()
	}
	if o.empty() {
		return idle, nil
	}
	return 0, nil
}

func (g *Group) mcast(msg []byte) error {
	if err := g.conn.Mcast(msg); err != nil {
		return err
	}
	g.out.wait = 0
	g.owed++
	g.stats.sent.add(msg)
	return nil
}

// full turns a refused message into a time to wait.
func (g *Group) full(err error) (time.Duration, error) {
	if !errors.Is(err, transport.ErrTryAgain) {
		return 0, err
	}
	g.out.wait = min(max(2*g.out.wait, g.cfg.RetryAfter), maxRetryAfter)
	g.stats.retries.Add(1)
	return g.out.wait, nil
}
