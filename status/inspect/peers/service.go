package peers

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// Config of a Service. Connect, Tree, Node and Mode are needed.
type Config struct {
	// Connect makes a new connection for the group GroupName.
	Connect  func() (transport.Conn, error)
	Tree     *memdb.Tree
	Node     string // this node's name
	Software string // version
	// Mode tells the mode of the database's group, and whether this node is
	// quorate. It must not wait.
	Mode func() (dfsm.Mode, bool)
	// Backoff is the least time between two attempts to connect; 0 means 5 s.
	Backoff time.Duration
	// Patience is how long to wait for an answer, beside the time that a member
	// may wait for a version; 0 means 5 s.
	Patience time.Duration
	Logger   *slog.Logger // nil means nowhere
}

const (
	tellEvery  = 30 * time.Second // a state, at least
	tellAtMost = time.Second      // between two states, if the version changes
	// leaveTime is how long leaving in order may take.
	leaveTime = time.Second

	// maxUnsent and maxUnsentBytes bound what waits to be sent. Beyond them the
	// oldest is dropped: who waits for it asks again.
	maxUnsent      = 256
	maxUnsentBytes = 8 << 20
	// retryAfter is how long to wait when corosync's queues are full.
	retryAfter = 10 * time.Millisecond
)

// Service is one daemon's part in the group. Run must be called once; the other
// methods may be called from any goroutine, at any time. It is a dcdb.Observer.
type Service struct {
	cfg    Config
	keeper *keeper

	comparing sync.Mutex // held by Compare: one at a time
	lastID    atomic.Uint64
	quiet     atomic.Bool // the state that was told holds: a change is to wake Run

	mu       sync.Mutex // guards all below
	waker    transport.Conn
	self     dfsm.Member
	view     []dfsm.Member // nil means no member
	told     map[dfsm.Member]inspect.PeerState
	out      [][]byte
	outBytes int
	asked    *question
	failure  event.Once
}

// New returns a Service that does nothing until Run.
func New(cfg Config) (*Service, error) {
	if cfg.Connect == nil || cfg.Tree == nil || cfg.Node == "" || cfg.Mode == nil {
		return nil, errors.New("peers: config needs Connect, Tree, Node and Mode")
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 5 * time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, told: map[dfsm.Member]inspect.PeerState{}}
	s.keeper = newKeeper(cfg, s.send)
	return s, nil
}

// Run connects, joins and answers until ctx is done. A lost connection is taken up
// again, at most once every Backoff.
func (s *Service) Run(ctx context.Context) {
	var answers sync.WaitGroup
	defer answers.Wait()
	answers.Go(func() { s.keeper.run(ctx) })
	for ctx.Err() == nil {
		began := time.Now()
		s.failed(s.attend(ctx))
		wait := time.NewTimer(time.Until(began.Add(s.cfg.Backoff)))
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

// failed logs why there is no connection, once.
func (s *Service) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure.New(err) { // nothing that the daemon is for depends on it
		s.cfg.Logger.Info("no connection to the inspection group", "error", err)
	}
}

// attend connects, joins, and serves until ctx is done or the connection is lost.
func (s *Service) attend(ctx context.Context) (err error) {
	conn, err := s.cfg.Connect()
	if err != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		s.waker = nil
		s.mu.Unlock()
		if e := conn.Close(); err == nil {
			err = e
		}
		s.setView(nil)
	}()
	self, err := conn.Self()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.waker, s.self = conn, self
	s.out, s.outBytes = nil, 0
	s.mu.Unlock()
	defer context.AfterFunc(ctx, conn.Wake)()
	for {
		if err = conn.Join(); !errors.Is(err, transport.ErrTryAgain) {
			break
		}
		if _, err = conn.Next(nil, retryAfter); err != nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil || ctx.Err() != nil {
		return err
	}
	if err = s.serve(ctx, conn); err == nil {
		s.leave(conn)
	}
	return err
}

// leave leaves in order, so that the others need not find out.
func (s *Service) leave(conn transport.Conn) {
	end := time.Now().Add(leaveTime)
	asked := false
	for time.Now().Before(end) {
		if !asked {
			err := conn.Leave()
			if err != nil && !errors.Is(err, transport.ErrTryAgain) {
				return
			}
			asked = err == nil
		}
		events, err := conn.Next(nil, retryAfter)
		if err != nil {
			return
		}
		for i := range events {
			if v := events[i].View; v != nil && !slices.Contains(v.Members, s.self) {
				return
			}
		}
	}
}

// serve handles what comes and sends what waits.
func (s *Service) serve(ctx context.Context, conn transport.Conn) error {
	var events []transport.Event
	var toldAt time.Time
	var toldState state
	var err error
	for ctx.Err() == nil {
		wait := tellAtMost
		if !s.joined() {
			toldAt = time.Time{}
		} else if now := s.state(); toldAt.IsZero() || time.Since(toldAt) >= tellEvery ||
			time.Since(toldAt) >= tellAtMost && now != toldState {
			toldAt, toldState = time.Now(), now
			now.Time = toldAt.UnixNano()
			s.send(encode(header{}, now))
		}
		if !toldAt.IsZero() {
			// Nobody is woken for nothing: a change of the tree wakes, and a view.
			s.quiet.Store(true)
			if s.state() == toldState {
				wait = max(0, tellEvery-time.Since(toldAt))
			} else {
				s.quiet.Store(false)
			}
		}
		full, err := s.flush(conn)
		if err != nil {
			return err
		}
		if full {
			wait = retryAfter
		}
		clear(events)
		if events, err = conn.Next(events[:0], wait); err != nil && len(events) == 0 {
			return err
		}
		for i := range events {
			if v := events[i].View; v != nil {
				if s.setView(v.Members) {
					toldAt = time.Time{} // who has come wants to know
				}
				continue
			}
			s.receive(events[i].From, events[i].Bytes)
		}
		if err != nil {
			return err
		}
	}
	return err
}

// state is this node's, without the time.
func (s *Service) state() state {
	mode, quorate := s.cfg.Mode()
	return state{
		Version: s.cfg.Tree.Root().Version, Mode: uint8(mode), Quorate: quorate,
		Node: s.cfg.Node, Software: s.cfg.Software,
	}
}

func (s *Service) joined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.view, s.self)
}

// setView takes in the members, and reports whether one is new.
func (s *Service) setView(members []dfsm.Member) (joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range members {
		joined = joined || !slices.Contains(s.view, m)
	}
	if joined {
		s.failure.Over()
	}
	s.view = slices.Clone(members)
	for m := range s.told {
		if !slices.Contains(members, m) {
			delete(s.told, m)
		}
	}
	if s.asked != nil {
		s.asked.keep(members)
	}
	return joined
}

// send queues a message.
func (s *Service) send(msg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waker == nil {
		return
	}
	s.out = append(s.out, msg)
	s.outBytes += len(msg)
	for len(s.out) > maxUnsent || s.outBytes > maxUnsentBytes {
		s.outBytes -= len(s.out[0])
		s.out = slices.Delete(s.out, 0, 1)
	}
	s.waker.Wake()
}

// flush sends what waits; full says that corosync takes no more just now.
func (s *Service) flush(conn transport.Conn) (full bool, err error) {
	for {
		s.mu.Lock()
		if len(s.out) == 0 {
			s.mu.Unlock()
			return false, nil
		}
		msg := s.out[0]
		s.out = slices.Delete(s.out, 0, 1)
		s.outBytes -= len(msg)
		s.mu.Unlock()
		err := conn.Mcast(msg)
		if errors.Is(err, transport.ErrTryAgain) {
			s.mu.Lock()
			s.out = slices.Insert(s.out, 0, msg)
			s.outBytes += len(msg)
			s.mu.Unlock()
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// receive handles a message. What is not understood is dropped: a later version may
// send it, and a bad one is its sender's affair.
func (s *Service) receive(from dfsm.Member, msg []byte) {
	h, body, err := decodeHeader(msg)
	switch {
	case err != nil:
	case h.Kind == kindState:
		if st, err := decode[state](body); err == nil {
			s.takeState(from, &st)
		}
	case h.Kind.question():
		s.mu.Lock()
		mine := h.Node == 0 || h.Node == uint32(s.self.Node) && h.PID == s.self.PID
		s.mu.Unlock()
		if mine {
			s.keeper.ask(from, h, body)
		}
	default:
		s.takeAnswer(from, h, body)
	}
}

func (s *Service) takeState(from dfsm.Member, st *state) {
	now, own := time.Now(), s.cfg.Tree.Root().Version
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.view, from) {
		return
	}
	s.told[from] = inspect.PeerState{Member: from, Node: strings.ToValidUTF8(st.Node, "?"), Peer: inspect.Peer{
		Software: strings.ToValidUTF8(st.Software, "?"), Mode: dfsm.Mode(st.Mode).String(), Quorate: st.Quorate,
		Version: st.Version, Heard: now, Lag: int64(own - st.Version),
		ClockOffset: time.Duration(st.Time - now.UnixNano()).Seconds(),
	}}
}

// Peers returns what the members have told last, this one among them, in the order
// of members. The caller owns it.
func (s *Service) Peers() []inspect.PeerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]inspect.PeerState, 0, len(s.told))
	for _, p := range s.told {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b inspect.PeerState) int { return a.Member.Compare(b.Member) })
	return list
}

// Applied implements dcdb.Observer: somebody may wait for the tree's version.
func (s *Service) Applied(*memdb.Op, []memdb.Change, bool) {
	s.keeper.changed()
	s.changed()
}

// changed wakes Run, if it sleeps because nothing has changed.
func (s *Service) changed() {
	if !s.quiet.Load() || !s.quiet.CompareAndSwap(true, false) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waker != nil {
		s.waker.Wake()
	}
}

// Reset implements dcdb.Observer.
func (s *Service) Reset([]memdb.Change) {
	s.keeper.changed()
	s.changed()
}
