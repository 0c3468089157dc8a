package dfsmtest

import (
	"cmp"
	"encoding/binary"
	"slices"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Store is an application with the ways of the status store: a value of each
// node, which its node sets at once and then broadcasts; a log that is merged
// from all states. Everyone counts as synced at once, and sends its value
// again after each sync.
type Store struct {
	Values map[corosync.NodeID]uint64
	Log    []OpID // sorted

	p     *Process
	own   uint64 // 0 means not set by this daemon
	lines uint64
}

// NewStore returns an empty Store for a process.
func NewStore(p *Process) *Store { return &Store{Values: map[corosync.NodeID]uint64{}, p: p} }

const (
	storeValue = 1
	storeLine  = 3
)

// Set changes this node's value.
func (s *Store) Set(v uint64) {
	s.own = v
	s.Values[s.p.self.Node] = v
	s.send()
}

func (s *Store) send() { s.p.Post(storeValue, binary.LittleEndian.AppendUint64(nil, s.own)) }

// AddLine adds a line to the log.
func (s *Store) AddLine() {
	s.lines++
	s.add(OpID{From: s.p.self, Count: s.lines})
	s.p.Post(storeLine, binary.LittleEndian.AppendUint64(nil, s.lines))
}

func compareOps(a, b OpID) int {
	return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Count, b.Count))
}

func (s *Store) add(id OpID) {
	if i, found := slices.BinarySearchFunc(s.Log, id, compareOps); !found {
		s.Log = slices.Insert(s.Log, i, id)
	}
}

// Quorum implements App.
func (s *Store) Quorum(bool) {}

// Apply implements dfsm.Application.
func (s *Store) Apply(batch []dfsm.Message) dfsm.Applied {
	for i, m := range batch {
		if len(m.Payload) < 8 {
			return dfsm.Applied{Done: i, Err: errMalformed}
		}
		v := binary.LittleEndian.Uint64(m.Payload)
		switch {
		case m.Own:
		case m.Subtype == storeLine:
			s.add(OpID{From: m.From, Count: v})
		default:
			s.Values[m.From.Node] = v
		}
	}
	return dfsm.Applied{}
}

// State implements dfsm.Application: the log.
func (s *Store) State() ([]byte, error) {
	var b []byte
	for _, id := range s.Log {
		b = binary.LittleEndian.AppendUint32(b, uint32(id.From.Node))
		b = binary.LittleEndian.AppendUint32(b, id.From.PID)
		b = binary.LittleEndian.AppendUint64(b, id.Count)
	}
	return b, nil
}

// ProcessStates implements dfsm.Application.
func (s *Store) ProcessStates(states []dfsm.MemberState) (dfsm.Sync, error) {
	le := binary.LittleEndian
	sync := dfsm.Sync{Synced: make([]bool, len(states))}
	for i, st := range states {
		sync.Synced[i] = true
		for b := st.State; len(b) >= 16; b = b[16:] {
			s.add(OpID{From: dfsm.Member{Node: corosync.NodeID(le.Uint32(b)), PID: le.Uint32(b[4:])}, Count: le.Uint64(b[8:])})
		}
	}
	if s.own != 0 {
		s.send()
	}
	return sync, nil
}

// ApplyUpdates implements dfsm.Application: there are none.
func (s *Store) ApplyUpdates([][]byte) error { return errMalformed }

// Commit implements dfsm.Application.
func (s *Store) Commit() error { return errMalformed }

// Cleanup implements dfsm.Application.
func (s *Store) Cleanup() {}

// Checksum implements dfsm.Application; the group does not verify.
func (s *Store) Checksum() func() ([wire.ChecksumSize]byte, error) { return nil }

// ViewChanged implements dfsm.Application.
func (s *Store) ViewChanged([]dfsm.Member) {}

// ModeChanged implements dfsm.Application.
func (s *Store) ModeChanged(dfsm.Mode) {}

// act does something random on a daemon with a Store.
func (r *run) act(s *Store) {
	r.value++
	if r.rnd.IntN(3) == 0 {
		s.AddLine()
	} else {
		s.Set(r.value)
	}
	s.p.step(dfsm.Tick{Now: r.now}) // send what was posted
}

// checkStores checks that all daemons show what each has set last, and the same
// log, with every line that a daemon still there has added.
func (r *run) checkStores() {
	first := r.hosts[0].proc.App.(*Store)
	for _, h := range r.hosts {
		s := h.proc.App.(*Store)
		if m := h.proc.Machine; m.Mode() != dfsm.ModeSynced {
			r.failf("%v ends in mode %v", h.proc.self, m.Mode())
		}
		if r.plan.Hostile {
			continue // it may have spoken for itself
		}
		if !slices.Equal(s.Log, first.Log) {
			r.failf("%v ends with another log than host 1", h.proc.self)
		}
		for n := range s.lines {
			if _, found := slices.BinarySearchFunc(first.Log, OpID{From: h.proc.self, Count: n + 1}, compareOps); !found {
				r.failf("line %d of %v is lost", n+1, h.proc.self)
			}
		}
		for _, o := range r.hosts {
			if got := o.proc.App.(*Store).Values[h.ID]; s.own != 0 && got != s.own {
				r.failf("%v shows %d as the value of %v, which is %d", o.proc.self, got, h.proc.self, s.own)
			}
		}
	}
}
