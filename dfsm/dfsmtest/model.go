package dfsmtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Errors of the model application.
var (
	ErrModelAccess   = errors.New("dfsmtest: not quorate")
	ErrModelConflict = errors.New("dfsmtest: entry has another version")
	errMalformed     = errors.New("dfsmtest: malformed")
)

// Disk is what a Model keeps over a restart of its daemon: a store of numbered
// entries, and the history of all changes that made it. The history is what
// the checks look at; it travels with the root entry.
type Disk struct {
	Entries []Entry
	History []OpID // its length is the version
	MTime   uint32
}

// Entry is one entry of the store.
type Entry struct {
	Version uint64
	Value   []byte
}

// OpID names a change by its sender and the sender's counter.
type OpID struct {
	From  dfsm.Member
	Count uint64
}

// Op is the payload of a normal message to a Model: set the entry, if it has
// the given version or that is Any.
type Op struct {
	Key     uint32
	Version uint64
	Value   []byte
}

// Any stands for every version.
const Any = ^uint64(0)

// Encode returns the op as a payload.
func (o Op) Encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, o.Key)
	b = binary.LittleEndian.AppendUint64(b, o.Version)
	return append(b, o.Value...)
}

// NewDisk returns an empty store with room for n entries.
func NewDisk(n int) *Disk { return &Disk{Entries: make([]Entry, n)} }

// Model is an application with the ways of the configuration database: a
// version, an index as its state, a leader by version, updates for what
// differs, a commit that is compared with the leader's index.
type Model struct {
	Disk    *Disk
	Quorate bool
	// Hooks for checks; nil means none.
	OnApply  func(id OpID)      // after a change has been made
	OnSynced func(state []byte) // the state that a sync ended with
	OnAdopt  func(old []OpID)   // after a commit, with the history before it

	leader []byte // the leader's state, during a sync
	staged *Disk
}

// NewModel returns a Model that keeps its content in disk.
func NewModel(disk *Disk) *Model { return &Model{Disk: disk} }

// Quorum implements App.
func (m *Model) Quorum(quorate bool) { m.Quorate = quorate }

// Apply implements dfsm.Application.
func (m *Model) Apply(batch []dfsm.Message) dfsm.Applied {
	results := make([]dfsm.Result, len(batch))
	for i, msg := range batch {
		if !m.Quorate {
			results[i].Err = ErrModelAccess
			return dfsm.Applied{Done: i + 1, Results: results, Err: errors.New("received write while not quorate - trigger resync")}
		}
		if msg.Subtype != 1 || len(msg.Payload) < 12 {
			return dfsm.Applied{Done: i, Results: results, Err: errMalformed}
		}
		key := binary.LittleEndian.Uint32(msg.Payload)
		version := binary.LittleEndian.Uint64(msg.Payload[4:])
		if int64(key) >= int64(len(m.Disk.Entries)) {
			results[i].Err = ErrModelConflict
			continue
		}
		e := &m.Disk.Entries[key]
		if version != Any && version != e.Version {
			results[i].Err = ErrModelConflict
			continue
		}
		id := OpID{From: msg.From, Count: msg.Count}
		m.Disk.History = append(m.Disk.History, id)
		m.Disk.MTime = msg.Time
		*e = Entry{Version: uint64(len(m.Disk.History)), Value: msg.Payload[12:]}
		if m.OnApply != nil {
			m.OnApply(id)
		}
	}
	return dfsm.Applied{Results: results}
}

// The state: u64 version, u32 mtime, u64 digest of the history, then for each
// entry that has been set u32 key, u64 version, u64 digest.
const (
	stateHeader = 20
	stateEntry  = 20
)

// State implements dfsm.Application.
func (m *Model) State() ([]byte, error) { return m.Disk.State(), nil }

// State returns the index of the store.
func (d *Disk) State() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, stateHeader+stateEntry*len(d.Entries))
	b = le.AppendUint64(b, uint64(len(d.History)))
	b = le.AppendUint32(b, d.MTime)
	chain := uint64(14695981039346656037)
	for _, id := range d.History {
		for _, v := range [...]uint64{uint64(id.From.Node), uint64(id.From.PID), id.Count} {
			chain = (chain ^ v) * 1099511628211
		}
	}
	b = le.AppendUint64(b, chain)
	for i := range d.Entries {
		e := &d.Entries[i]
		if e.Version == 0 {
			continue
		}
		h := fnv.New64a()
		h.Write(e.Value)
		b = le.AppendUint32(b, uint32(i))
		b = le.AppendUint64(b, e.Version)
		b = le.AppendUint64(b, h.Sum64())
	}
	return b
}

// index reads a state: entry key to its 16 bytes of version and digest.
func index(state []byte) (map[uint32]string, error) {
	if len(state) < stateHeader || (len(state)-stateHeader)%stateEntry != 0 {
		return nil, errMalformed
	}
	ix := make(map[uint32]string, (len(state)-stateHeader)/stateEntry)
	for b := state[stateHeader:]; len(b) > 0; b = b[stateEntry:] {
		ix[binary.LittleEndian.Uint32(b)] = string(b[4:stateEntry])
	}
	return ix, nil
}

// ProcessStates implements dfsm.Application.
func (m *Model) ProcessStates(states []dfsm.MemberState) (dfsm.Sync, error) {
	lead := 0
	for i, s := range states {
		if len(s.State) < stateHeader || (len(s.State)-stateHeader)%stateEntry != 0 {
			return dfsm.Sync{}, errMalformed
		}
		if rank(s.State) > rank(states[lead].State) {
			lead = i
		}
	}
	sync := dfsm.Sync{Synced: make([]bool, len(states)), Leader: states[lead].Self}
	m.leader = states[lead].State
	behind := false
	for i, s := range states {
		sync.Synced[i] = bytes.Equal(s.State, m.leader)
		if s.Self && sync.Synced[i] && m.OnSynced != nil {
			m.OnSynced(m.leader)
		}
		behind = behind || s.Self && !sync.Synced[i]
	}
	if behind {
		m.staged = &Disk{Entries: make([]Entry, len(m.Disk.Entries))}
		if err := m.keep(); err != nil {
			return dfsm.Sync{}, err
		}
	}
	if !sync.Leader {
		return sync, nil
	}
	send := map[uint32]bool{}
	mine, err := index(m.leader)
	if err != nil {
		return dfsm.Sync{}, err
	}
	differs := false
	for i, s := range states {
		if sync.Synced[i] {
			continue
		}
		differs = true
		theirs, err := index(s.State)
		if err != nil {
			return dfsm.Sync{}, err
		}
		for key, v := range mine {
			if theirs[key] != v {
				send[key] = true
			}
		}
	}
	u := &modelUpdates{}
	if differs {
		u.root = m.Disk.root()
	}
	for i, e := range m.Disk.Entries { // in order, whatever the map's is
		if send[uint32(i)] {
			u.keys = append(u.keys, uint32(i))
			u.entries = append(u.entries, e)
		}
	}
	sync.Updates = u
	return sync, nil
}

// rank orders states: greatest version, then mtime.
func rank(state []byte) string {
	le, be := binary.LittleEndian, binary.BigEndian
	b := be.AppendUint64(nil, le.Uint64(state))
	return string(be.AppendUint32(b, le.Uint32(state[8:])))
}

// keep stages those of our entries that the leader has just so.
func (m *Model) keep() error {
	theirs, err := index(m.leader)
	if err != nil {
		return err
	}
	mine, err := index(m.Disk.State())
	if err != nil {
		return err
	}
	for key, v := range mine {
		if theirs[key] == v {
			m.staged.Entries[key] = m.Disk.Entries[key]
		}
	}
	return nil
}

// rootKey marks the update that carries mtime and history.
const rootKey = ^uint32(0)

func (d *Disk) root() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, rootKey)
	b = le.AppendUint32(b, d.MTime)
	for _, id := range d.History {
		b = le.AppendUint32(b, uint32(id.From.Node))
		b = le.AppendUint32(b, id.From.PID)
		b = le.AppendUint64(b, id.Count)
	}
	return b
}

// modelUpdates makes the update payloads while they are sent.
type modelUpdates struct {
	root    []byte // nil means sent, or nothing differs
	keys    []uint32
	entries []Entry
}

func (u *modelUpdates) Next() ([]byte, bool) {
	if b := u.root; b != nil {
		u.root = nil
		return b, true
	}
	if len(u.keys) == 0 {
		return nil, false
	}
	b := binary.LittleEndian.AppendUint32(nil, u.keys[0])
	b = binary.LittleEndian.AppendUint64(b, u.entries[0].Version)
	b = append(b, u.entries[0].Value...)
	u.keys, u.entries = u.keys[1:], u.entries[1:]
	return b, true
}

// ApplyUpdates implements dfsm.Application.
func (m *Model) ApplyUpdates(payloads [][]byte) error {
	le := binary.LittleEndian
	for _, b := range payloads {
		if len(b) < 8 {
			return errMalformed
		}
		key := le.Uint32(b)
		if key == rootKey {
			m.staged.MTime = le.Uint32(b[4:])
			for b = b[8:]; len(b) >= 16; b = b[16:] {
				m.staged.History = append(m.staged.History, OpID{
					From:  dfsm.Member{Node: corosync.NodeID(le.Uint32(b)), PID: le.Uint32(b[4:])},
					Count: le.Uint64(b[8:]),
				})
			}
			continue
		}
		if len(b) < 12 || int64(key) >= int64(len(m.staged.Entries)) {
			return errMalformed
		}
		m.staged.Entries[key] = Entry{Version: le.Uint64(b[4:]), Value: b[12:]}
	}
	return nil
}

// Commit implements dfsm.Application.
func (m *Model) Commit() error {
	if got := m.staged.State(); !bytes.Equal(got, m.leader) {
		return fmt.Errorf("%w: the updates do not make the leader's state", dfsm.ErrFatal)
	}
	old := m.Disk.History
	*m.Disk = *m.staged
	if m.OnAdopt != nil {
		m.OnAdopt(old)
	}
	if m.OnSynced != nil {
		m.OnSynced(m.leader)
	}
	return nil
}

// Cleanup implements dfsm.Application.
func (m *Model) Cleanup() { m.leader, m.staged = nil, nil }

// Checksum implements dfsm.Application.
func (m *Model) Checksum() func() ([wire.ChecksumSize]byte, error) {
	state := m.Disk.State()
	return func() ([wire.ChecksumSize]byte, error) { return sha256.Sum256(state), nil }
}

// ViewChanged implements dfsm.Application.
func (m *Model) ViewChanged([]dfsm.Member) {}

// ModeChanged implements dfsm.Application.
func (m *Model) ModeChanged(dfsm.Mode) {}
