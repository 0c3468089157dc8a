package dfsmtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// ReplayConfig says how a recording is replayed.
type ReplayConfig struct {
	// NodeID is the recorded node's.
	NodeID corosync.NodeID
	// Version and Checksums are the machine's.
	Version   uint32
	Checksums bool
	// NewApp makes the application of a daemon that starts; a recording may
	// hold several starts, and what outlives the daemon is NewApp's to keep.
	NewApp func(p *Playback) App
	// Equal compares the payload of a message that was sent with the recorded
	// one, its header being equal already; nil means byte by byte.
	Equal func(t wire.Type, recorded, sent []byte) bool
	// Done, if not nil, is called at the end of each daemon's run.
	Done func(p *Playback)
}

// ReplayStats counts what was compared.
type ReplayStats struct {
	Starts    int                  // of the daemon
	Delivered int                  // messages fed
	Compared  [wire.Verify + 1]int // messages sent, by type
	Replies   int                  // own messages that came back with a result
}

// Playback is one run of a daemon within a recording.
type Playback struct {
	Self    dfsm.Member
	Machine *dfsm.Machine
	App     App

	cfg     *ReplayConfig
	stats   *ReplayStats
	records []Record // of the whole recording
	at      int      // the record being replayed
	now     uint32
	sent    []wire.Message // by the machine, not compared yet
	updates []wire.Message // likewise
	after   *wire.Message  // update-complete, after the updates
	leaving bool
	err     error
}

// Now returns the time of the event being replayed, in seconds since 1970.
func (p *Playback) Now() uint32 { return p.now }

// Post sends a normal message of the application's own, as opposed to a
// user's; the recording must show it. For use by the App.
func (p *Playback) Post(subtype uint16, payload []byte) {
	p.Machine.Step(dfsm.Submit{Subtype: subtype, Payload: payload})
}

// Replay feeds a machine with the events of one recorded node and checks that
// it sends exactly what that node sent, in its order: clocks (the time field,
// and the time in the epochs that this node makes) and the order of update
// messages aside. A recorded normal message that the application has not
// posted by itself is a user's call, and submitted.
func Replay(records []Record, cfg ReplayConfig) (ReplayStats, error) {
	var stats ReplayStats
	var p *Playback
	quorate := false
	end := func() error {
		if p == nil {
			return nil
		}
		if err := p.nothingLeft(); err != nil {
			return err
		}
		if n := p.Machine.Waiting(); n != 0 {
			return fmt.Errorf("%d own messages without a result", n)
		}
		if cfg.Done != nil {
			cfg.Done(p)
		}
		p = nil
		return nil
	}
	for i := range records {
		rec := &records[i]
		var err error
		switch {
		case rec.Kind == RecordJoin:
			if err = end(); err == nil {
				stats.Starts++
				p, err = newPlayback(records, i, &cfg, &stats)
				if err == nil {
					p.App.Quorum(quorate)
				}
			}
		case rec.Kind == RecordLeave:
			err = end()
		case rec.Kind == RecordQuorum:
			quorate = rec.Quorate
			if p != nil {
				p.App.Quorum(quorate)
			}
		case p != nil:
			p.at, p.now = i, rec.Now
			err = p.replay(rec)
		}
		if err != nil {
			return stats, fmt.Errorf("dfsmtest: replay, line %d: %w", rec.Line, err)
		}
	}
	if err := end(); err != nil {
		return stats, fmt.Errorf("dfsmtest: replay, at the end: %w", err)
	}
	return stats, nil
}

func newPlayback(records []Record, at int, cfg *ReplayConfig, stats *ReplayStats) (*Playback, error) {
	p := &Playback{cfg: cfg, stats: stats, records: records, at: at, now: records[at].Now}
	// The daemon's pid is that of its first view.
	for _, rec := range records[at:] {
		if rec.Kind != RecordView {
			continue
		}
		i := slices.IndexFunc(rec.Members, func(m dfsm.Member) bool { return m.Node == cfg.NodeID })
		if i < 0 {
			return nil, errors.New("the first view is without this node")
		}
		p.Self = rec.Members[i]
		p.Machine = dfsm.New(dfsm.Config{Self: p.Self, Version: cfg.Version, Checksums: cfg.Checksums})
		p.App = cfg.NewApp(p)
		return p, nil
	}
	return nil, errors.New("no view follows the join")
}

func (p *Playback) replay(rec *Record) error {
	if rec.Kind == RecordMcast {
		return p.compare(rec.Bytes)
	}
	if err := p.nothingLeft(); err != nil {
		return err
	}
	p.step(dfsm.Tick{Now: rec.Now})
	if rec.Kind == RecordView {
		p.step(dfsm.View{Members: rec.Members, Joined: rec.Joined})
	} else {
		p.stats.Delivered++
		p.step(dfsm.Deliver{From: rec.From, Bytes: rec.Bytes})
	}
	p.step(dfsm.EndOfBatch{})
	return p.err
}

// nothingLeft checks that all that was sent was recorded.
func (p *Playback) nothingLeft() error {
	switch {
	case len(p.sent) > 0:
		return fmt.Errorf("%d messages sent that are not recorded, first %s", len(p.sent), DescribeMessage(p.sent[0].Encode()))
	case len(p.updates) > 0:
		return fmt.Errorf("%d updates sent that are not recorded", len(p.updates))
	case p.after != nil:
		return errors.New("update-complete sent that is not recorded")
	case p.leaving:
		return errors.New("left the group, which is not recorded")
	}
	return nil
}

// compare takes a recorded message from what the machine has sent.
func (p *Playback) compare(raw []byte) error {
	want, err := wire.Decode(raw)
	if err != nil {
		return err
	}
	if want.Type == wire.Normal && len(p.sent) == 0 {
		p.step(dfsm.Tick{Now: p.now})
		p.step(dfsm.Submit{ID: want.Count, Subtype: want.Subtype, Payload: want.Payload})
	}
	if p.err != nil {
		return p.err
	}
	var got wire.Message
	switch {
	case want.Type == wire.Update:
		i := slices.IndexFunc(p.updates, func(m wire.Message) bool { return p.same(want, m) })
		if i < 0 {
			return fmt.Errorf("recorded %s, not among the %d updates sent", DescribeMessage(raw), len(p.updates))
		}
		got = p.updates[i]
		p.updates = slices.Delete(p.updates, i, i+1)
	case want.Type == wire.UpdateComplete && p.after != nil:
		if len(p.updates) > 0 {
			return fmt.Errorf("recorded update-complete, but %d more updates sent", len(p.updates))
		}
		got, p.after = *p.after, nil
	case len(p.sent) > 0:
		got, p.sent = p.sent[0], p.sent[1:]
	default:
		return fmt.Errorf("recorded %s, nothing sent", DescribeMessage(raw))
	}
	if !p.same(want, got) {
		return fmt.Errorf("recorded %s, sent %s", DescribeMessage(raw), DescribeMessage(got.Encode()))
	}
	p.stats.Compared[want.Type]++
	return nil
}

// same compares two messages, clocks aside.
func (p *Playback) same(recorded, sent wire.Message) bool {
	a, b := recorded, sent
	a.Time, b.Time = 0, 0
	if a.Type == wire.SyncStart {
		a.Epoch.Time, b.Epoch.Time = 0, 0
	}
	if a.Header != b.Header || a.Count != b.Count || a.Epoch != b.Epoch {
		return false
	}
	if p.cfg.Equal != nil {
		return p.cfg.Equal(a.Type, a.Payload, b.Payload)
	}
	return bytes.Equal(a.Payload, b.Payload)
}

// step hands an event to the machine and does what it asks for.
func (p *Playback) step(e dfsm.Event) {
	p.Machine.Step(e)
	for {
		actions := p.Machine.Actions()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			if answer, ok := dfsm.Perform(p.App, a); ok {
				if answer != nil {
					p.Machine.Step(answer)
				}
				continue
			}
			switch a := a.(type) {
			case dfsm.Send:
				p.sent = append(p.sent, p.decoded(a.Bytes))
			case dfsm.SendUpdates:
				for a.Source != nil {
					payload, ok := a.Source.Next()
					if !ok {
						break
					}
					p.updates = append(p.updates, p.decoded(a.Frame(payload)))
				}
				after := p.decoded(a.Complete)
				p.after = &after
			case dfsm.Checksum:
				done := dfsm.ChecksumDone{ID: a.ID, Epoch: a.Epoch}
				done.Sum, done.Err = p.App.Checksum()()
				p.Machine.Step(done)
			case dfsm.Reply:
				p.stats.Replies++
			case dfsm.Leave:
				p.leaving = true
			}
		}
	}
}

func (p *Playback) decoded(raw []byte) wire.Message {
	m, err := wire.Decode(raw)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("sent %x: %w", raw, err)
	}
	return m
}
