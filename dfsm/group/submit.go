package group

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pmxcfs/dfsm"
	"pmxcfs/internal/event"
)

// Errors of a Submission. After each of them but ErrWithdrawn it is unknown whether
// the message is or will be applied.
var (
	// ErrTimeout: the context's deadline was over first.
	ErrTimeout = errors.New("group: no delivery in time")
	// ErrInterrupted: the context was cancelled first.
	ErrInterrupted = errors.New("group: interrupted")
	// ErrWithdrawn accompanies ErrTimeout or ErrInterrupted when the message
	// had not been sent, and will not be.
	ErrWithdrawn = errors.New("group: not sent")
)

// request is a submission on its way to the machine, or a call.
type request struct {
	id      uint64
	subtype uint16
	payload []byte
	call    func() error // nil means a submission
}

// Submission is a message with a waiter.
type Submission struct {
	group  *Group
	id     uint64
	result chan dfsm.Result
}

// Begin sends a message, or sees to it that it is sent. Done gives its result when it has
// been delivered and applied here. The payload must not be changed before that, and never
// after a GiveUp that doesn't tell of ErrWithdrawn. The application must not wait for a result
// within its methods: it would wait for itself.
func (g *Group) Begin(subtype uint16, payload []byte) *Submission {
	s := &Submission{group: g, result: make(chan dfsm.Result, 1)}
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		s.result <- dfsm.Result{Err: dfsm.ErrDisconnected}
		return s
	}
	if unsent := g.requested + int(g.out.bytes.Load()); unsent > 0 && unsent+len(payload) > maxUnsent {
		g.mu.Unlock()
		s.result <- gaveUp(context.DeadlineExceeded, true) // as it would be in the end
		return s
	}
	g.lastID++
	s.id = g.lastID
	g.waiters[s.id] = s.result
	g.stats.waiting.Add(1)
	g.requests = append(g.requests, request{id: s.id, subtype: subtype, payload: payload})
	g.requested += len(payload)
	g.mu.Unlock()
	g.pump()
	return s
}

// Done gives the result, once: the application's, or ErrDisconnected if this node
// is not in the group or drops out of it meanwhile.
func (s *Submission) Done() <-chan dfsm.Result { return s.result }

// GiveUp ends the waiting. It returns Done's result, if there is one after all; else
// ErrTimeout or ErrInterrupted, by cause, the error of a context, joined with ErrWithdrawn
// if it is certain that the message has no effect.
func (s *Submission) GiveUp(cause error) dfsm.Result {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case r := <-s.result:
		return r
	default:
	}
	delete(g.waiters, s.id)
	g.stats.waiting.Add(-1)
	at := slices.IndexFunc(g.requests, func(r request) bool { return r.id == s.id && r.call == nil })
	if at >= 0 {
		g.requested -= len(g.requests[at].payload)
		g.requests = slices.Delete(g.requests, at, at+1)
	}
	return gaveUp(cause, at >= 0)
}

func gaveUp(cause error, withdrawn bool) dfsm.Result {
	err := ErrInterrupted
	if errors.Is(cause, context.DeadlineExceeded) {
		err = ErrTimeout
	}
	if withdrawn {
		err = fmt.Errorf("%w: %w", err, ErrWithdrawn)
	}
	return dfsm.Result{Err: err}
}

// Post sends a message without a waiter. Without membership it is
// dropped. While the group takes no messages it may be replaced by a newer one of the same
// key, or be dropped, the oldest first: what is kept is bounded. The payload must not be
// changed afterwards. The application may call it from within its methods.
func (g *Group) Post(subtype uint16, payload []byte) {
	p := &post{subtype: subtype, payload: payload}
	if g.cfg.Key != nil {
		p.key = g.cfg.Key(subtype, payload)
	}
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return
	}
	first := g.posts.since.IsZero()
	replaced, dropped, bytes := g.posts.add(p)
	g.stats.posted.Store(int64(g.posts.queue.len()))
	g.mu.Unlock()
	g.stats.replaced.Add(uint64(replaced))
	g.stats.dropped.Add(uint64(dropped))
	g.stats.droppedBytes.Add(uint64(bytes))
	if first && dropped > 0 {
		g.cfg.Logger.Warn("corosync takes no messages: the oldest of those without a waiter are dropped",
			"kept_bytes", maxPosted, event.MessagesDropped.Attr("unsent", g.Status().Unsent))
	}
	g.pump()
}

// Call has f called while none of the application's methods runs, soon: often before
// Call returns, by this goroutine. An error of f's counts as one of such a method: the
// node leaves the group. It reports false, and f is not called, after the end of Run.
// The application may call it from within its methods.
func (g *Group) Call(f func() error) bool {
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return false
	}
	g.requests = append(g.requests, request{call: f})
	g.mu.Unlock()
	g.pump()
	return true
}

// maxOwed and maxDirect are how many messages of this node may be under way, of whatever
// kind, and how large one may be, for a caller to send by itself. A corosync that stands
// still takes some 250 messages, and then holds up who sends the next one; a message that
// it takes in parts, the first. That must happen to Run only, for whom nobody waits
// without limit.
const (
	maxOwed   = 64
	maxDirect = 512 << 10
)

// pump processes the queues, unless another goroutine is about to: the holder of own looks
// again when they have let go of it. So a message leaves without waiting for another
// goroutine to wake up, and in the order of the counts.
func (g *Group) pump() {
	for g.own.TryLock() {
		g.byCaller = true
		left := g.takeInput() && !g.sendDirectly()
		g.byCaller = false
		g.own.Unlock()
		if left {
			g.mu.Lock()
			g.wake()
			g.mu.Unlock()
		}
		if !g.pending() {
			return
		}
	}
}

// sendDirectly sends the queued messages, and reports whether that was all. The rest, and
// all errors, are Run's.
func (g *Group) sendDirectly() bool {
	if g.conn == nil || g.leaving {
		return g.conn == nil
	}
	o := &g.out
	for o.normals.len() > 0 {
		msg := *o.normals.first()
		if g.owed >= maxOwed || len(msg) > maxDirect || o.wait > 0 || g.mcast(msg) != nil {
			return false
		}
		o.popNormal()
	}
	g.release()
	return o.others.len() == 0
}

// pending tells whether something is queued.
func (g *Group) pending() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.requests) > 0 || len(g.answers) > 0 || g.posts.queue.len() > 0 && !g.posts.held
}

// reply tells a waiter, if it still waits.
func (g *Group) reply(id uint64, r dfsm.Result) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch, ok := g.waiters[id]; ok {
		delete(g.waiters, id)
		g.stats.waiting.Add(-1)
		ch <- r
	}
}

// takeInput steps the input of other goroutines since the last time, and reports
// whether there was anything. own is held.
func (g *Group) takeInput() bool {
	g.mu.Lock()
	requests, answers := g.requests, g.answers
	g.requests, g.spare, g.answers = g.spare[:0], nil, nil
	g.requested = 0
	g.mu.Unlock()
	g.tick()
	for _, a := range answers {
		g.step(a)
	}
	posted := g.takePosts()
	for _, r := range requests {
		if r.call == nil {
			g.step(dfsm.Submit{ID: r.id, Subtype: r.subtype, Payload: r.payload})
		} else if err := r.call(); err != nil {
			g.step(dfsm.Failed{Err: err})
		}
	}
	clear(requests)
	g.spare = requests[:0]
	return len(requests)+len(answers)+posted > 0
}

// takePosts steps posts for as long as the outbox has room, and returns how many. The
// others wait where they can be replaced. own is held.
func (g *Group) takePosts() (n int) {
	for {
		g.mu.Lock()
		g.posts.held = g.out.normals.len() >= turn
		var p *post
		if !g.posts.held {
			p = g.posts.take()
		}
		g.stats.posted.Store(int64(g.posts.queue.len()))
		report := g.posts.report(g.cfg.Logger)
		g.mu.Unlock()
		if report != nil {
			report()
		}
		if p == nil {
			return n
		}
		g.step(dfsm.Submit{Subtype: p.subtype, Payload: p.payload})
		n++
	}
}

// release lets posts go on that were held back, once the outbox has room. own is held.
func (g *Group) release() {
	if g.out.normals.len() >= turn {
		return
	}
	g.mu.Lock()
	g.posts.held = false
	g.mu.Unlock()
}
