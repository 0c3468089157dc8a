package dfsmtest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// scripted is an application that takes its own words from the recording: the
// state it sent, the updates. Who leads and who is synced it concludes from
// the states, as the configuration database does, or, as the status store
// does, not at all.
type scripted struct {
	*Playback
	t        *testing.T
	database bool
	commits  int
	updated  int
	applied  int
	synced   int
}

// next returns the payloads of the recorded messages of a type that this
// daemon sends next, up to one of the type end.
func (s *scripted) next(want, end wire.Type) (payloads [][]byte) {
	for _, rec := range s.records[s.at:] {
		if rec.Kind != RecordMcast {
			continue
		}
		m, err := wire.Decode(rec.Bytes)
		if err != nil {
			s.t.Fatal(err)
		}
		if m.Type == want {
			payloads = append(payloads, m.Payload)
		}
		if m.Type == end {
			return payloads
		}
	}
	return payloads
}

func (s *scripted) State() ([]byte, error) {
	states := s.next(wire.State, wire.State)
	if len(states) == 0 {
		return nil, fmt.Errorf("no state recorded")
	}
	return states[0], nil
}

func (s *scripted) ProcessStates(states []dfsm.MemberState) (dfsm.Sync, error) {
	sync := dfsm.Sync{Synced: make([]bool, len(states))}
	lead := 0
	for i := range states {
		if s.database && indexRank(states[i].State, states[lead].State) > 0 {
			lead = i
		}
	}
	for i := range states {
		sync.Synced[i] = !s.database || bytes.Equal(states[i].State, states[lead].State)
	}
	if s.database && states[lead].Self {
		sync.Leader = true
		sync.Updates = &list{s.next(wire.Update, wire.UpdateComplete)}
	}
	return sync, nil
}

func indexRank(a, b []byte) int {
	le := binary.LittleEndian
	return cmp.Or(cmp.Compare(le.Uint64(a), le.Uint64(b)), cmp.Compare(le.Uint32(a[20:]), le.Uint32(b[20:])))
}

type list struct{ payloads [][]byte }

func (l *list) Next() ([]byte, bool) {
	if len(l.payloads) == 0 {
		return nil, false
	}
	p := l.payloads[0]
	l.payloads = l.payloads[1:]
	return p, true
}

func (s *scripted) Apply(batch []dfsm.Message) dfsm.Applied {
	s.applied += len(batch)
	return dfsm.Applied{}
}
func (s *scripted) ApplyUpdates(payloads [][]byte) error { s.updated += len(payloads); return nil }
func (s *scripted) Commit() error {
	if s.updated == 0 {
		return fmt.Errorf("%w: nothing to commit", dfsm.ErrFatal)
	}
	s.updated = 0
	s.commits++
	return nil
}
func (s *scripted) Cleanup() {}
func (s *scripted) Checksum() func() ([wire.ChecksumSize]byte, error) {
	return func() (sum [wire.ChecksumSize]byte, err error) { return }
}
func (s *scripted) ViewChanged([]dfsm.Member) {}
func (s *scripted) ModeChanged(m dfsm.Mode) {
	if m == dfsm.ModeSynced {
		s.synced++
	}
}
func (s *scripted) Quorum(bool) {}

func TestRecordedNodesSendWhatTheMachineSends(t *testing.T) {
	groups := []struct {
		name     string
		version  uint32
		database bool
	}{{"pve_dcdb_v1", 1, true}, {"pve_kvstore_v1", 0, false}}
	starts := []int{1, 2, 2}
	for _, g := range groups {
		commits := 0
		for node := 1; node <= 3; node++ {
			t.Run(fmt.Sprintf("%s/node%d", g.name, node), func(t *testing.T) {
				records, err := RecordedNode(node, g.name)
				if err != nil {
					t.Fatal(err)
				}
				delivered := 0
				for _, r := range records {
					if r.Kind == RecordDeliver {
						delivered++
					}
				}
				stats, err := Replay(records, ReplayConfig{
					NodeID: corosync.NodeID(node), Version: g.version, Checksums: g.database,
					NewApp: func(p *Playback) App { return &scripted{Playback: p, t: t, database: g.database} },
					Done: func(p *Playback) {
						s := p.App.(*scripted)
						commits += s.commits
						if s.synced == 0 || s.applied == 0 {
							t.Errorf("%v: synced %d times, applied %d", p.Self, s.synced, s.applied)
						}
						if p.Machine.Mode() != dfsm.ModeSynced {
							t.Errorf("%v ends in mode %v", p.Self, p.Machine.Mode())
						}
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%+v", stats)
				if stats.Starts != starts[node-1] || stats.Delivered != delivered {
					t.Errorf("%d starts, %d of %d deliveries", stats.Starts, stats.Delivered, delivered)
				}
				if stats.Replies != stats.Compared[wire.Normal] {
					t.Errorf("%d results for %d messages", stats.Replies, stats.Compared[wire.Normal])
				}
				if stats.Compared[wire.State] < 4 {
					t.Errorf("only %d states compared", stats.Compared[wire.State])
				}
			})
		}
		if g.database && commits < 5 {
			t.Errorf("only %d commits in all", commits)
		}
	}
}

func TestReplayNoticesEveryDifference(t *testing.T) {
	records, err := RecordedNode(1, "pve_dcdb_v1")
	if err != nil {
		t.Fatal(err)
	}
	replay := func(records []Record) error {
		_, err := Replay(records, ReplayConfig{
			NodeID: 1, Version: 1, Checksums: true,
			NewApp: func(p *Playback) App { return &scripted{Playback: p, t: t, database: true} },
		})
		return err
	}
	if err := replay(records); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for i, rec := range records {
		m, err := wire.Decode(rec.Bytes)
		if rec.Kind != RecordMcast || err != nil || m.Type == wire.Normal {
			continue
		}
		tried++
		without := append(append([]Record(nil), records[:i]...), records[i+1:]...)
		if err := replay(without); err == nil && m.Type != wire.Update {
			// The scripted application takes its updates from the recording.
			t.Errorf("line %d: a missing %v goes unnoticed", rec.Line, m.Type)
		}
		twice := append(append([]Record(nil), records[:i+1]...), records[i:]...)
		if err := replay(twice); err == nil && m.Type != wire.Update {
			t.Errorf("line %d: a second %v goes unnoticed", rec.Line, m.Type)
		} else if err != nil && !strings.Contains(err.Error(), "line ") {
			t.Errorf("error without its place: %v", err)
		}
	}
	if tried < 20 {
		t.Errorf("only %d messages tried", tried)
	}
}
