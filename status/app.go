package status

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
	"pmxcfs/status/clusterlog"
)

// The process group of the status store, its protocol's version, and that it has
// no checksums to verify: what the group's driver is to be configured with.
const (
	GroupName    = "pve_kvstore_v1"
	GroupVersion = 0
)

// App returns the store as the application of the group GroupName. It is to be
// asked for once.
func (s *Store) App() dfsm.Application {
	return &app{s: s, complaints: complaints{log: s.log, now: s.now}}
}

// app is a Store as its group sees it. All its methods are called by the group's
// goroutine.
type app struct {
	s          *Store
	complaints complaints
}

// Apply takes in what other nodes tell. What is wrong with a message is the
// sender's affair: it is dropped with a log line, and the group goes on.
func (a *app) Apply(batch []dfsm.Message) dfsm.Applied {
	done := dfsm.Applied{Done: len(batch)}
	for i := range batch {
		m := &batch[i]
		err := a.apply(m)
		if err == nil {
			continue
		}
		a.complaints.add("dropped a message", fmt.Sprintf("dropped a message of node %d: %v", m.From.Node, err),
			"member", m.From.String(), "subtype", m.Subtype, "bytes", len(m.Payload))
		if done.Results == nil {
			done.Results = make([]dfsm.Result, len(batch))
		}
		done.Results[i].Err = err
	}
	return done
}

func (a *app) apply(m *dfsm.Message) error {
	switch m.Subtype {
	case subtypeUpdate:
		if m.Own {
			return nil // applied before it was sent
		}
		return a.update(m)
	case subtypeLog:
		if m.Own {
			return nil
		}
		_, err := a.s.journal.log.Insert(m.Payload)
		return err
	}
	return fmt.Errorf("status: unknown message type %d: %w", m.Subtype, syscall.EACCES)
}

// update takes in another node's value.
func (a *app) update(m *dfsm.Message) error {
	key, data, err := decodeUpdate(m.Payload)
	if err != nil {
		return err
	}
	if len(data) > MaxValue {
		return fmt.Errorf("%q: %w", key, ErrTooLarge)
	}
	if sample, ok := strings.CutPrefix(key, rrdPrefix); ok {
		if !a.s.foreign(m.From) {
			return nil
		}
		err = a.s.setSample(sample, data)
	} else {
		err = a.s.setForeign(m.From, key, encodeUpdate(key, data))
	}
	if err != nil {
		return fmt.Errorf("%q: %w", key, err)
	}
	return nil
}

// foreign reports whether a member runs on another node of the cluster. One on
// this node is an earlier run of this daemon, whose values are no longer true.
func (s *Store) foreign(m dfsm.Member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byID[m.Node]
	return n != nil && n != s.self
}

// setForeign sets another node's value and takes over the payload that tells it. That
// of a node that is not in the cluster info is ignored.
func (s *Store) setForeign(m dfsm.Member, key string, message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byID[m.Node]
	if n == nil || n == s.self {
		return nil
	}
	return s.setValue(n, key, message)
}

// State is the cluster log: the only thing that nodes merge.
func (a *app) State() ([]byte, error) { return a.s.journal.log.State(), nil }

// ProcessStates merges the cluster logs, and tells the others this node's values.
func (a *app) ProcessStates(states []dfsm.MemberState) (dfsm.Sync, error) {
	sync := dfsm.Sync{Synced: make([]bool, len(states))}
	rings := make([][]byte, len(states))
	for i := range states {
		sync.Synced[i] = true
		rings[i] = states[i].State
	}
	a.complainOfRings(a.s.journal.log.Merge(rings), states)
	a.s.tellValues()
	return sync, nil
}

func (a *app) complainOfRings(err error, states []dfsm.MemberState) {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return
	}
	for _, err := range list.Unwrap() {
		if ring, ok := errors.AsType[*clusterlog.RingError](err); ok {
			member := states[ring.Index].Member.String()
			a.complaints.add("left out a state", fmt.Sprintf("left out the cluster log of member %s: %v", member, ring.Err), "member", member)
		}
	}
}

// tellValues broadcasts all of this node's key/value pairs.
func (s *Store) tellValues() {
	s.telling.Lock()
	defer s.telling.Unlock()
	for _, message := range s.ownValues() {
		s.post(subtypeUpdate, message)
	}
}

// ownValues returns the messages that tell this node's values, in the order of their keys.
func (s *Store) ownValues() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &s.self.values
	messages := make([][]byte, 0, len(v.keys))
	for _, key := range v.keys {
		messages = append(messages, v.byKey[key].message)
	}
	return messages
}

// ViewChanged takes in who is in the group.
func (a *app) ViewChanged(members []dfsm.Member) { a.s.setOnline(members) }

// ModeChanged tells the others this node's address when it has become synced. Out
// of the group, nobody is known to be online.
func (a *app) ModeChanged(mode dfsm.Mode) {
	switch {
	case mode == dfsm.ModeSynced:
		a.s.tellAddress()
	case mode == dfsm.ModeStart, mode.Final():
		a.s.setOnline(nil)
	}
}

// tellAddress sets and broadcasts this node's address: the one set before, or else
// the one that its name resolves to.
func (s *Store) tellAddress() {
	s.telling.Lock()
	defer s.telling.Unlock()
	if ip := s.ownAddress(); ip != "" {
		s.post(subtypeUpdate, encodeUpdate(nodeIPKey, append([]byte(ip), 0)))
	}
}

// ownAddress returns this node's address, empty if there is none, and sets it if that has not been
// done yet.
func (s *Store) ownAddress() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.self.ip == "" && s.address != "" {
		s.setAddress(s.self, s.address)
	}
	return s.self.ip
}

// The group has no updates and no checksums.

var errNoUpdates = errors.New("status: there are no updates in this group")

func (a *app) ApplyUpdates([][]byte) error { return errNoUpdates }
func (a *app) Commit() error               { return errNoUpdates }
func (a *app) Cleanup()                    {}
func (a *app) Checksum() func() ([wire.ChecksumSize]byte, error) {
	return func() (sum [wire.ChecksumSize]byte, err error) { return sum, errNoUpdates }
}
