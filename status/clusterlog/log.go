package clusterlog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Log is made of.
type Config struct {
	// Node is this node's name, which its entries carry.
	Node string
	// Now is the clock of new entries.
	Now func() time.Time
	// FirstUID numbers the first entry of this node; 0 means 1, the number
	// that every daemon begins with.
	FirstUID uint32
}

// Log is one node's cluster log. All methods may be called concurrently; none
// does I/O or waits for anything but the others.
type Log struct {
	node string
	now  func() time.Time

	own, foreign, repeated atomic.Uint64

	mu      sync.Mutex // guards all below
	ring    ring
	nextUID uint32
	newest  map[uint64]stamp // by node digest; an entry that is not newer is a repetition
}

// Stats are how many entries a Log has taken in since it was made, syncs aside.
type Stats struct {
	Own      uint64 // this node's
	Foreign  uint64 // other nodes'
	Repeated uint64 // other nodes', known already
}

// Stats returns the counters. It takes no lock.
func (l *Log) Stats() Stats {
	return Stats{Own: l.own.Load(), Foreign: l.foreign.Load(), Repeated: l.repeated.Load()}
}

// stamp is a node's own order of its entries.
type stamp struct{ time, uid uint32 }

func (s stamp) before(o stamp) bool {
	return s.time < o.time || s.time == o.time && s.uid < o.uid
}

// New makes an empty log.
func New(cfg Config) (*Log, error) {
	if cfg.Node == "" || cfg.Now == nil {
		return nil, errors.New("clusterlog: a node name and a clock are needed")
	}
	return &Log{
		node:    cfg.Node,
		now:     cfg.Now,
		ring:    newRing(),
		nextUID: max(cfg.FirstUID, 1),
		newest:  make(map[uint64]stamp),
	}, nil
}

// Add logs a message of this node and gives the payload (subtype 3) to
// broadcast. The caller owns it.
func (l *Log) Add(m Message) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := pack(m, l.node, l.nextUID, uint32(l.now().Unix()))
	l.nextUID++
	l.note(e)
	l.ring.add(e)
	l.own.Add(1)
	return e.raw
}

// Insert takes in the payload of another node's log message; it keeps nothing
// of wire's memory. It answers false, without an error, for an entry that is
// not newer, by (time, uid), than the newest known one of the node it names. The
// error wraps ErrEntry.
func (l *Log) Insert(wire []byte) (bool, error) {
	e, err := ParseEntry(wire)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.note(e) {
		l.repeated.Add(1)
		return false, nil
	}
	l.ring.add(e)
	l.foreign.Add(1)
	return true, nil
}

// State is the log's state for a synchronisation: a ring of RingSize bytes with
// its entries in order. The caller owns it.
func (l *Log) State() []byte {
	return rebuild(l.snapshot().entries()).buf
}

// Merge takes in the states of all members, in the order of the member table,
// which must be the same at all members (it decides between two entries that
// claim the same node, time and uid). What was logged here after our own state
// was sent is kept. A ring that is malformed is left out, and told in the error,
// which joins one *RingError for each; the others are merged all the same.
func (l *Log) Merge(rings [][]byte) error {
	lists := make([][]Entry, 0, len(rings)+1)
	var errs []error
	for i, b := range rings {
		list, err := ParseRing(b)
		if err != nil {
			errs = append(errs, &RingError{Index: i, Err: err})
			continue
		}
		lists = append(lists, list)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring = merge(append(lists, l.ring.entries()))
	for _, e := range l.ring.entries() {
		l.note(e)
	}
	return errors.Join(errs...)
}

// RingError says which of the rings given to Merge was left out.
type RingError struct {
	Index int
	Err   error // wraps ErrRing
}

func (e *RingError) Error() string { return fmt.Sprintf("state %d: %v", e.Index, e.Err) }

// Unwrap gives Err.
func (e *RingError) Unwrap() error { return e.Err }

// Entries lists the log, newest first by time, node digest and uid. The caller
// owns the entries.
func (l *Log) Entries() []Entry {
	list := l.snapshot().entries()
	slices.SortStableFunc(list, func(a, b Entry) int { return b.key().compare(a.key()) })
	return list
}

// snapshot copies the ring, so that nothing slow is done under the lock.
func (l *Log) snapshot() ring {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ring{slices.Clone(l.ring.buf)}
}

// maxNodes bounds what is remembered of nodes. A ring has room for entries of
// fewer nodes than this, so forgetting those that are not in it always helps.
const maxNodes = 4096

// note remembers e as the newest of its node and answers whether it is. The
// caller holds mu.
func (l *Log) note(e Entry) bool {
	s := stamp{e.Time(), e.UID()}
	if known, ok := l.newest[e.NodeDigest()]; ok && !known.before(s) {
		return false
	}
	if len(l.newest) >= maxNodes {
		clear(l.newest)
		for _, e := range l.ring.entries() {
			if s := (stamp{e.Time(), e.UID()}); l.newest[e.NodeDigest()].before(s) {
				l.newest[e.NodeDigest()] = s
			}
		}
	}
	l.newest[e.NodeDigest()] = s
	return true
}
