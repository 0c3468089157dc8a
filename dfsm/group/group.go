package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/internal/event"
)

// Group is one node's part in a process group. Begin, Post and Status may be
// called from any goroutine, at any time.
type Group struct {
	cfg Config

	mu        sync.Mutex // guards what is up to the next empty line; taken with own held, not the other way round
	requests  []request
	spare     []request // takeInput's other slice
	requested int       // bytes of the requests' payloads
	posts     postbox
	answers   []dfsm.Event // of checksums
	pings     []chan<- struct{}
	waiters   map[uint64]chan<- dfsm.Result
	lastID    uint64
	waker     transport.Conn // who is to be woken; nil means kick
	running   bool
	stopped   bool

	kick  chan struct{} // wakes Run when there is no connection
	epoch time.Time     // of called
	// called is when Run's present call of the transport began, in nanoseconds
	// after epoch; 0 means it is in none.
	lent   atomic.Int64 // likewise of a caller that sends
	called atomic.Int64

	stats counters

	// own guards the rest. Run holds it but while it waits for events; whoever has
	// queued something carries it out itself if it gets it (see pump).
	own        sync.Mutex
	machine    *dfsm.Machine
	self       dfsm.Member
	conn       transport.Conn // nil means not connected
	out        outbox
	joined     bool              // Join has succeeded, and no Leave
	leaving    bool              // want to leave, or have asked to
	asked      bool              // Leave has been called
	leaveBy    time.Time         // then the connection is closed
	final      bool              // never join again
	notBefore  time.Time         // of the next attempt to connect or join
	now        uint32            // seconds since 1970, as the machine knows
	byCaller   bool              // who holds own is not Run
	owed       int               // messages that were sent and have not come back
	events     []transport.Event // Run's own
	viewDirty  bool
	good, bad  uint64     // the machine's verifications, as counted
	syncSince  time.Time  // when the present sync began; zero: there is none
	syncReason SyncReason // of the present sync
	failure    event.Once
	patient    bool // never joined yet, see Config.Patience
	hashing    sync.WaitGroup
}

// New returns a Group that does nothing until Run.
func New(cfg Config) (*Group, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	g := &Group{
		cfg:     cfg,
		waiters: map[uint64]chan<- dfsm.Result{},
		kick:    make(chan struct{}, 1),
		epoch:   time.Now(),
		patient: cfg.Patience > 0,
	}
	// Until the first connection tells who we are.
	g.machine = dfsm.New(g.machineConfig())
	return g, nil
}

func (g *Group) machineConfig() dfsm.Config {
	return dfsm.Config{Self: g.self, Version: g.cfg.Version, Checksums: g.cfg.Checksums, MaxQueued: g.cfg.MaxQueued}
}

// wake has Run look at the input. mu is held.
func (g *Group) wake() {
	if g.waker != nil {
		g.waker.Wake()
		return
	}
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// Run connects, joins and serves until ctx is done; then it leaves and
// disconnects. A lost connection and a lost membership are taken up again,
// at most once every Backoff. It must be called once.
func (g *Group) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wake()
	})
	defer stop()
	g.mu.Lock()
	g.running = true
	g.mu.Unlock()
	g.own.Lock()
	defer g.own.Unlock()
	for ctx.Err() == nil {
		g.round(g.wait())
	}
	g.stop()
}

// wait does the work that is due, and returns how long to wait for events.
func (g *Group) wait() time.Duration {
	if g.conn == nil && g.leaving {
		g.left() // there is nothing to leave
	}
	if g.conn != nil && g.leaving {
		if wait, busy := g.leave(); busy {
			return wait
		}
	}
	if g.final && g.conn != nil && !g.joined {
		g.disconnect(nil)
	}
	if !g.final && !g.joined && !g.leaving {
		if wait := time.Until(g.notBefore); wait > 0 {
			return wait
		}
		g.enter()
	}
	if g.conn == nil || g.leaving {
		return g.untilNextTry()
	}
	wait, err := g.send()
	if err != nil {
		g.disconnect(err)
		return 0
	}
	return min(wait, g.untilNextTry())
}

func (g *Group) untilNextTry() time.Duration {
	if g.joined || g.final {
		return idle
	}
	return min(idle, max(0, time.Until(g.notBefore)))
}

// round waits for events and handles them, and the requests of other goroutines.
func (g *Group) round(wait time.Duration) {
	err := g.await(wait)
	g.mu.Lock()
	g.pong()
	g.mu.Unlock()
	if g.takeInput() && g.conn != nil && !g.leaving {
		// Before the batch is applied: the group orders them meanwhile.
		if _, e := g.send(); e != nil && err == nil {
			err = e
		}
	}
	if len(g.events) > 0 {
		g.dispatch()
	}
	if err != nil {
		g.disconnect(err)
	}
	g.publish()
}

// await waits for events, with own let go.
func (g *Group) await(wait time.Duration) (err error) {
	clear(g.events)
	g.events = g.events[:0]
	conn := g.conn // which only Run changes
	g.own.Unlock()
	defer g.own.Lock()
	if g.pending() { // who came while we held it relies on us
		wait = 0
	}
	if conn != nil {
		g.events, err = conn.Next(g.events, wait)
		return err
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-g.kick:
	case <-t.C:
	}
	return nil
}

// dispatch steps the events of one batch.
func (g *Group) dispatch() {
	g.stats.batches.Add(1)
	for i := range g.events {
		e := &g.events[i]
		if b := e.Bytes; e.View == nil {
			g.stats.delivered.add(b)
			// Any other message may change the set of synced members.
			g.viewDirty = g.viewDirty || len(b) >= 2 && b[0]|b[1] != 0
			if g.owed > 0 && e.From == g.self {
				g.owed--
			}
			g.step(e.Deliver)
			continue
		}
		g.viewDirty = true
		if g.leaving && g.asked && !slices.Contains(e.View.Members, g.self) {
			g.disconnect(nil) // a connection is a member once
			break
		}
		g.stats.views.Add(1)
		before := g.machine.Mode()
		g.step(*e.View)
		g.syncBegins(e.View, before)
	}
	g.step(dfsm.EndOfBatch{})
}

func (g *Group) tick() {
	if now := uint32(time.Now().Unix()); now != g.now {
		g.now = now
		g.step(dfsm.Tick{Now: now})
	}
}

// step passes an event to the machine and performs its actions.
func (g *Group) step(e dfsm.Event) {
	g.machine.Step(e)
	for {
		actions := g.machine.Actions()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			if answer, ok := dfsm.Perform(g.cfg.App, a); ok {
				if answer != nil {
					g.machine.Step(answer)
				}
				switch a.(type) {
				case dfsm.ModeChanged, dfsm.ProcessStates:
					g.viewDirty = true
				}
				continue
			}
			g.perform(a)
		}
	}
}

// perform carries out the driver's actions.
func (g *Group) perform(a dfsm.Action) {
	switch a := a.(type) {
	case dfsm.Send:
		if a.Normal {
			g.out.pushNormal(a.Bytes)
		} else {
			g.out.others.push(a)
		}
	case dfsm.SendUpdates:
		g.out.others.push(a)
	case dfsm.DropSends:
		g.out.dropOthers()
	case dfsm.Reply:
		g.reply(a.ID, a.Result)
	case dfsm.Checksum:
		g.checksum(a)
	case dfsm.Leave:
		g.out.drop()
		g.leaving, g.final = true, a.Final
		g.stats.leaves.Add(1)
	case dfsm.Log:
		g.log(a)
	}
}

// checksum has the application's checksum computed in a goroutine of its own.
func (g *Group) checksum(a dfsm.Checksum) {
	sum := g.cfg.App.Checksum()
	g.stats.verifications.Add(1)
	g.hashing.Go(func() {
		done := dfsm.ChecksumDone{ID: a.ID, Epoch: a.Epoch}
		done.Sum, done.Err = sum()
		g.mu.Lock()
		g.answers = append(g.answers, done)
		g.mu.Unlock()
		g.pump()
	})
}

// enter connects if need be, and joins.
func (g *Group) enter() {
	g.notBefore = time.Now().Add(g.cfg.Backoff)
	if g.cfg.Ready != nil {
		if err := g.cfg.Ready(); err != nil {
			g.failed("not ready to join the group", err)
			return
		}
	}
	if g.conn == nil {
		end := g.outside()
		conn, err := g.cfg.Connect()
		end()
		if err != nil {
			g.failed("cannot connect", err)
			return
		}
		conn = &clocked{conn, g}
		self, err := conn.Self()
		if err != nil {
			g.failed("cannot connect", errors.Join(err, conn.Close()))
			return
		}
		if self != g.self {
			g.self = self
			g.machine = dfsm.New(g.machineConfig())
			g.good, g.bad = 0, 0
			g.now = 0
			g.tick()
		}
		g.conn = conn
		g.mu.Lock()
		g.waker = conn
		conn.Wake() // what came before may have kicked only
		g.mu.Unlock()
		g.stats.self.Store(&self)
		g.stats.connects.Add(1)
	}
	switch err := g.conn.Join(); {
	case err == nil:
		g.joined, g.patient = true, false
		g.failure.Over()
		g.stats.joins.Add(1)
	case errors.Is(err, transport.ErrTryAgain):
		g.notBefore = time.Now().Add(maxRetryAfter)
	default:
		g.disconnect(err)
	}
}

// failed logs why there is no membership, once.
func (g *Group) failed(what string, err error) {
	g.stats.failure.Store(&err)
	if g.patient && time.Since(g.epoch) < g.cfg.Patience {
		g.cfg.Logger.Debug(what, slog.Any("error", err))
		return
	}
	if g.failure.New(fmt.Errorf("%s: %w", what, err)) {
		g.cfg.Logger.Warn(what, slog.Any("error", err))
	}
}

// leave asks to leave; busy says that this is not done.
func (g *Group) leave() (wait time.Duration, busy bool) {
	if !g.joined {
		g.left()
		return 0, false
	}
	if g.leaveBy.IsZero() {
		g.leaveBy = time.Now().Add(leaveTimeout)
	}
	if !g.asked {
		switch err := g.conn.Leave(); {
		case err == nil:
			g.asked = true
		case errors.Is(err, transport.ErrTryAgain) && time.Now().Before(g.leaveBy):
			return maxRetryAfter, true
		default:
			g.disconnect(err)
			return 0, false
		}
	}
	if wait := time.Until(g.leaveBy); wait > 0 {
		return wait, true
	}
	g.disconnect(errors.New("group: no end of leaving"))
	return 0, false
}

// left ends the membership.
func (g *Group) left() {
	g.joined, g.leaving, g.asked, g.leaveBy = false, false, false, time.Time{}
	g.out.drop()
	g.owed = 0
	g.viewDirty = true
	if t := time.Now().Add(g.cfg.Backoff); !g.final && t.After(g.notBefore) {
		g.notBefore = t
	}
	g.step(dfsm.Restart{})
}

// disconnect closes the connection; err says why, nil if it is on purpose.
func (g *Group) disconnect(err error) {
	if g.conn == nil {
		return
	}
	g.mu.Lock()
	g.waker = nil
	g.wake() // what came before may have woken the connection only
	g.mu.Unlock()
	closed := g.conn.Close()
	g.conn = nil
	if err != nil {
		g.failed("lost the connection to the group", errors.Join(err, closed))
	}
	g.left()
}

// stop leaves, and answers all waiters.
func (g *Group) stop() {
	if g.conn != nil && g.joined {
		g.leaving, g.leaveBy = true, time.Now().Add(stopTimeout)
		for g.conn != nil && g.leaving {
			wait, busy := g.leave()
			if !busy {
				break
			}
			g.round(wait)
		}
	}
	g.disconnect(nil)
	g.step(dfsm.Restart{})
	g.hashing.Wait()
	g.end()
	g.publish()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = false
	g.pong()
	for id, ch := range g.waiters {
		delete(g.waiters, id)
		ch <- dfsm.Result{Err: dfsm.ErrDisconnected}
	}
	g.stats.waiting.Store(0)
}

// end takes the input that came until now, and no more.
func (g *Group) end() {
	for {
		g.mu.Lock()
		if len(g.requests) == 0 && len(g.answers) == 0 && g.posts.queue.len() == 0 {
			g.stopped = true
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		g.takeInput()
	}
}
