package peers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"pmxcfs/dfsm"
)

// ErrAlone is the error of asking while this node is not in the group.
var ErrAlone = errors.New("peers: this node has no connection to the other nodes' daemons (is corosync running?)")

// question is one that waits for answers. The Service's lock guards it.
type question struct {
	h       header // of the answers, but for the asker
	missing map[dfsm.Member]bool
	answers map[dfsm.Member]cbor.RawMessage
	done    chan struct{} // closed when nobody is missing
}

// keep drops those who have left.
func (q *question) keep(members []dfsm.Member) {
	for m := range q.missing {
		if !slices.Contains(members, m) {
			q.got(m, nil)
		}
	}
}

// got takes an answer; nil means there will be none.
func (q *question) got(from dfsm.Member, body cbor.RawMessage) {
	if !q.missing[from] {
		return
	}
	delete(q.missing, from)
	if body != nil {
		q.answers[from] = body
	}
	if len(q.missing) == 0 {
		close(q.done)
	}
}

// takeAnswer takes an answer to what this node has asked, once from each member that
// was asked.
func (s *Service) takeAnswer(from dfsm.Member, h header, body cbor.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.asked
	if q == nil || h.Kind != q.h.Kind || h.ID != q.h.ID || h.Node != uint32(s.self.Node) || h.PID != s.self.PID {
		return
	}
	q.got(from, body)
}

// members returns the members of the group; none if this node is not among them.
func (s *Service) members() []dfsm.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.view, s.self) {
		return nil
	}
	return slices.Clone(s.view)
}

// ask puts a question to members and returns the bodies of the answers that came in
// time. One question at a time is asked.
func (s *Service) ask(ctx context.Context, id uint64, of []dfsm.Member, what body, patience time.Duration) (map[dfsm.Member]cbor.RawMessage, error) {
	q := &question{
		h:       header{Kind: what.kind() + 1, ID: id},
		missing: make(map[dfsm.Member]bool, len(of)),
		answers: make(map[dfsm.Member]cbor.RawMessage, len(of)),
		done:    make(chan struct{}),
	}
	s.mu.Lock()
	for _, m := range of {
		if slices.Contains(s.view, m) {
			q.missing[m] = true
		}
	}
	if len(q.missing) == 0 {
		s.mu.Unlock()
		return nil, ErrAlone
	}
	s.asked = q
	s.mu.Unlock()
	s.send(encode(header{ID: id}, what))

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = nil
	if err := context.Cause(ctx); errors.Is(err, context.Canceled) {
		return nil, err // nobody wants to know any more
	}
	return maps.Clone(q.answers), nil
}
