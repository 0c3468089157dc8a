package join

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// Server is the cluster's side of a join.
type Server struct {
	Host     *host.Host
	Services cluster.Services
	Version  string // of this program
	Corosync string // its version
	// Grace is how long a node whose connection ended may take to come online before
	// its entry is taken back, and one that aborts to go offline. 0: not at all.
	Grace time.Duration
}

// valid checks a request from elsewhere.
func (r Request) valid() error {
	err := conf.ValidNode(r.Name)
	for n, l := range r.Links {
		if n < 0 || n > 7 {
			err = errors.Join(err, fmt.Errorf("link %d: there are links 0 to 7", n))
		}
		if _, e := conf.ParseLink(l.String()); e != nil {
			err = errors.Join(err, fmt.Errorf("link %d: %w", n, e))
		}
	}
	if r.Fallback != "" {
		err = errors.Join(err, conf.ValidIP(r.Fallback))
	}
	if r.Votes != nil && (*r.Votes < 0 || *r.Votes > 1<<20) {
		err = errors.Join(err, fmt.Errorf("%d votes can't be", *r.Votes))
	}
	return err
}

// Serve talks to a node that joins until it is done, or gone. What is then entered and
// neither confirmed nor online is taken out again.
func (s *Server) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	l := newLines(in, out)
	questions := make(chan question)
	broken := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the input, or with what waits for it
		for {
			var q question
			if err := l.read(&q); err != nil {
				broken <- err
				return
			}
			select {
			case questions <- q:
			case <-ctx.Done():
				return
			}
		}
	}()
	next := func(limit time.Duration) (q question, err error) {
		var late <-chan time.Time
		if limit > 0 {
			t := time.NewTimer(limit)
			defer t.Stop()
			late = t.C
		}
		select {
		case q = <-questions:
			return q, nil
		case err = <-broken:
			return q, err
		case <-late:
			return q, plan.Errorf(plan.Timeout, "nothing came for %s", limit)
		case <-ctx.Done():
			return q, ctx.Err()
		}
	}
	var e entry
	err := s.talk(ctx, l, next, &e)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if e.request != nil {
		// The context may be what ended.
		limit, done := context.WithTimeout(context.WithoutCancel(ctx), s.Grace+takeBackLimit)
		defer done()
		err = errors.Join(err, s.takeBack(limit, e))
	}
	return err
}

// entry is what a dialogue has entered and not confirmed.
type entry struct {
	request *Request // nil: nothing
	digest  string   // of corosync.conf with it
}

// talk answers questions.
func (s *Server) talk(ctx context.Context, l *lines, next func(time.Duration) (question, error), e *entry) error {
	for {
		limit := idle
		if e.request != nil {
			limit = aliveLimit
		}
		q, err := next(limit)
		if err != nil {
			return err
		}
		switch {
		case q.Op == opPing:
			if err := l.write(response{}); err != nil {
				return err
			}
		case q.Op == opHello:
			facts, err := s.facts()
			if err := l.write(answerOf(response{Version: dialogueVersion, Facts: facts}, err)); err != nil {
				return err
			}
		case q.Request == nil:
			if err := l.write(answerOf(response{}, plan.Errorf(plan.Parameters, "%q is no question, or lacks its request", q.Op))); err != nil {
				return err
			}
		case q.Op == opCheck:
			if err := s.checkAndEnter(ctx, l, next, *q.Request, q.Hold, e); err != nil {
				return err
			}
		case q.Op == opConfirm:
			err := s.confirm(ctx, *q.Request)
			if err == nil {
				*e = entry{}
			}
			if err := l.write(answerOf(response{}, err)); err != nil {
				return err
			}
		case q.Op == opAbort:
			s.awaitOffline(ctx, q.Request.Name)
			err := s.takeOut(ctx, *q.Request, "")
			if err == nil {
				*e = entry{}
			}
			if err := l.write(answerOf(response{}, err)); err != nil {
				return err
			}
		default:
			if err := l.write(answerOf(response{}, plan.Errorf(plan.Parameters, "there is no question %q", q.Op))); err != nil {
				return err
			}
		}
	}
}

// answerOf adds an error to a response.
func answerOf(r response, err error) response {
	if err == nil {
		return r
	}
	r.Error, r.Code = err.Error(), plan.CodeOf(err)
	var e *plan.Error
	if errors.As(err, &e) {
		r.Problems = e.Problems
	}
	return r
}

// facts are this node's and its cluster's.
func (s *Server) facts() (*Facts, error) {
	h := s.Host
	if err := cluster.NeedCluster(h); err != nil {
		return nil, err
	}
	f, err := cluster.Read(h)
	if err != nil {
		return nil, err
	}
	members, err := h.Members()
	if err != nil {
		return nil, err
	}
	facts := &Facts{
		Protocol: apiVersion, Version: s.Version, Corosync: s.Corosync, Node: h.Name, Quorate: h.Quorate(), Time: h.Time(),
		Cluster: f.Section("totem").Get("cluster_name"), Digest: f.Digest(), Device: f.Section("quorum").Has("device"),
	}
	for _, n := range f.Nodes() {
		name := conf.NodeName(n)
		id, _ := strconv.ParseUint(n.Get("nodeid"), 10, 32)
		m := Member{Name: name, ID: uint32(id), Online: members.Nodes[name].Online == 1, Addresses: map[int]string{}}
		for _, link := range conf.Links(n) {
			_, m.Addresses[link] = conf.LinkAddress(n, link)
		}
		facts.Members = append(facts.Members, m)
	}
	if text, err := h.ReadFile(host.Mount + "/storage.cfg"); err == nil {
		facts.Storages = storages(string(text))
	}
	return facts, nil
}

// storages are the names of the storages in a storage.cfg.
func storages(text string) []string {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		if line == strings.TrimLeft(line, " \t#") {
			if _, name, found := strings.Cut(line, ":"); found {
				set[strings.TrimSpace(name)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// newNode is the entry that a request asks for.
func (s *Server) newNode(r Request) (conf.NewNode, error) {
	n := conf.NewNode{Name: r.Name, ID: r.ID, Links: r.Links, Fallback: r.Fallback, APIVersion: apiVersion, Force: r.Force, KeepDevice: r.Device}
	// Without votes the entry changes nothing for the others, whatever becomes of it.
	zero := 0
	n.Votes = &zero
	f, err := cluster.Read(s.Host)
	if err != nil {
		return n, err
	}
	present := f.Node(r.Name)
	if present == nil {
		return n, nil
	}
	m, err := s.Host.Members()
	if err != nil {
		return n, err
	}
	if m.Nodes[r.Name].Online == 1 || !same(present, r) && !r.Force {
		return n, nil // package conf says what is wrong
	}
	// The same node again, whose first try didn't get far, or was reinstalled.
	n.Force = true
	if text, ok := present.Lookup("quorum_votes"); ok {
		votes, _ := strconv.Atoi(text)
		n.Votes = &votes
	} else {
		n.Votes = nil
	}
	return n, nil
}

// same tells whether a node is entered as a request asks for.
func same(present *conf.Section, r Request) bool {
	if id := present.Get("nodeid"); r.ID != 0 && id != strconv.FormatUint(uint64(r.ID), 10) {
		return false
	}
	links := conf.Links(present)
	if len(r.Links) == 0 {
		if len(links) != 1 {
			return false
		}
		_, address := conf.LinkAddress(present, links[0])
		return address == r.Fallback
	}
	for _, n := range links {
		if _, address := conf.LinkAddress(present, n); r.Links[n].Address != address {
			return false
		}
	}
	return len(links) == len(r.Links)
}

// checkAndEnter checks and, if the entry follows, holds the lock until it is through.
func (s *Server) checkAndEnter(ctx context.Context, l *lines, next func(time.Duration) (question, error), r Request, hold bool, e *entry) error {
	if err := s.Host.NeedQuorum(); err != nil {
		return l.write(answerOf(response{}, err))
	}
	said := false // whether a response has been given
	err := cluster.Locked(ctx, s.Host, func(ctx context.Context) error {
		n, err := s.newNode(r)
		if err != nil {
			return err
		}
		before, err := cluster.Read(s.Host)
		if err != nil {
			return err
		}
		present := before.Node(r.Name)
		m, err := s.Host.Members()
		if err != nil {
			return err
		}
		// It is there already, and has come further than whoever asks knows.
		there := present != nil && same(present, r) && m.Nodes[r.Name].Online == 1
		if !there {
			if _, err := before.AddNode(n); err != nil {
				return cluster.Refusal(err)
			}
		}
		said = true
		if err := l.write(response{}); err != nil || !hold {
			return err
		}
		q, err := next(lockIdle)
		if err != nil {
			return err
		}
		if q.Op != opEnter || q.Request == nil || q.Request.Name != r.Name {
			return l.write(answerOf(response{}, plan.Errorf(plan.Parameters, "behind the check comes the entry of the same node, not %q", q.Op)))
		}
		if there {
			key, err := s.Host.ReadFile(host.AuthKey)
			return l.write(answerOf(response{Answer: &cluster.Answer{AuthKey: key, Conf: before.Text()}}, err))
		}
		answer, err := cluster.Enter(ctx, s.Host, s.Services, n)
		// What a join has entered before, without votes, is this one's, too.
		mine := present == nil || present.Get("quorum_votes") == "0"
		if f, e2 := cluster.Read(s.Host); e2 == nil && mine && f.Node(r.Name) != nil {
			*e = entry{request: &r, digest: f.Digest()} // also if something failed behind it
		}
		if err != nil {
			return l.write(answerOf(response{}, err))
		}
		return l.write(response{Answer: answer})
	})
	if err != nil && !said {
		return l.write(answerOf(response{}, err))
	}
	return err
}

// confirm gives a node that is online its votes.
func (s *Server) confirm(ctx context.Context, r Request) error {
	m, err := s.Host.Members()
	if err != nil {
		return err
	}
	if m.Nodes[r.Name].Online != 1 {
		return plan.Errorf(plan.Failed, "node %s is not online yet", r.Name)
	}
	return cluster.SetVotes(ctx, s.Host, r.Name, r.votes())
}

// awaitOffline waits until a node isn't online any more: one that has just ended its
// corosync looks as if it were for the token's time.
func (s *Server) awaitOffline(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, s.Grace)
	defer cancel()
	for {
		if m, err := s.Host.Members(); err == nil && m.Nodes[node].Online != 1 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// takeOut removes a node that is entered as a request asked for, and isn't online. With a
// digest only if nothing has changed since corosync.conf had that.
func (s *Server) takeOut(ctx context.Context, r Request, digest string) error {
	return cluster.Locked(ctx, s.Host, func(context.Context) error {
		before, err := cluster.Read(s.Host)
		if err != nil {
			return err
		}
		node := before.Node(r.Name)
		if node == nil || digest != "" && before.Digest() != digest {
			return nil
		}
		if !same(node, r) {
			return plan.Errorf(plan.Refused, "node %s is another one", r.Name)
		}
		if m, err := s.Host.Members(); err != nil || m.Nodes[r.Name].Online == 1 {
			return errors.Join(err, plan.Errorf(plan.Refused, "node %s is online", r.Name))
		}
		after, err := before.RemoveNode(r.Name, true)
		if err != nil {
			return cluster.Refusal(err)
		}
		return cluster.Activate(s.Host, after)
	})
}

// takeBack removes the entry of a node whose connection ended, unless it comes online:
// then the node itself goes on.
func (s *Server) takeBack(ctx context.Context, e entry) error {
	for until := s.Host.Time().Add(s.Grace); ; {
		if m, err := s.Host.Members(); err == nil && m.Nodes[e.request.Name].Online == 1 {
			return nil
		}
		if !s.Host.Time().Before(until) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	for {
		// What cut this host off from the node that joins may have cut it off from the
		// others, too, and so from its quorum.
		err := s.Host.NeedQuorum()
		if err == nil {
			err = s.takeOut(ctx, *e.request, e.digest)
		}
		if err == nil || plan.CodeOf(err) != plan.NotQuorate && s.Host.Quorate() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// takeBackLimit is how long this host waits for quorum to take an entry back.
const takeBackLimit = 10 * time.Minute
