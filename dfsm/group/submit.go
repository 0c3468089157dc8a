package group

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pmxcfs/dfsm"
)

// request is a submission on its way to the machine.
type request struct {
	id      uint64 // 0: nobody waits
	subtype uint16
	payload []byte
}

// Submit sends a message and waits until it has been delivered and applied
// here. It returns the application's result for it; dfsm.ErrDisconnected if
// this node is not in the group or drops out of it meanwhile; or, if ctx is
// done first, ErrTimeout or ErrInterrupted, joined with ErrWithdrawn if it is
// certain that the message has no effect. payload may be reused afterwards
// only if it was not ErrTimeout or ErrInterrupted. The application must not call
// it from within its methods: it would wait for itself.
func (g *Group) Submit(ctx context.Context, subtype uint16, payload []byte) error {
	if err := ctx.Err(); err != nil {
		return gaveUp(err, true)
	}
	result := make(chan error, 1)
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return dfsm.ErrDisconnected
	}
	g.lastID++
	id := g.lastID
	g.waiters[id] = result
	g.figures.waiting.Add(1)
	g.requests = append(g.requests, request{id, subtype, payload})
	g.wake()
	g.mu.Unlock()

	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-result: // it came after all
		return err
	default:
	}
	delete(g.waiters, id)
	g.figures.waiting.Add(-1)
	at := slices.IndexFunc(g.requests, func(r request) bool { return r.id == id })
	if at >= 0 {
		g.requests = slices.Delete(g.requests, at, at+1)
	}
	return gaveUp(ctx.Err(), at >= 0)
}

func gaveUp(cause error, withdrawn bool) error {
	err := ErrInterrupted
	if errors.Is(cause, context.DeadlineExceeded) {
		err = ErrTimeout
	}
	if withdrawn {
		return fmt.Errorf("%w: %w", err, ErrWithdrawn)
	}
	return err
}

// Post sends a message that nobody waits for. Without membership it is
// dropped. The payload must not be changed afterwards. The application may
// call it from within its methods.
func (g *Group) Post(subtype uint16, payload []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return
	}
	g.requests = append(g.requests, request{0, subtype, payload})
	g.wake()
}

// reply tells a waiter, if it still waits.
func (g *Group) reply(id uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch, ok := g.waiters[id]; ok {
		delete(g.waiters, id)
		g.figures.waiting.Add(-1)
		ch <- err
	}
}

// takeInput returns what came from other goroutines since the last time, and
// answers their pings.
func (g *Group) takeInput() (requests []request, answers []dfsm.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	requests, g.requests = g.requests, g.spare[:0]
	g.spare = requests
	answers, g.answers = g.answers, nil
	g.pong()
	return requests, answers
}
