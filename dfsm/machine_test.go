package dfsm_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

var (
	self  = dfsm.Member{Node: 1, PID: 10}
	other = dfsm.Member{Node: 2, PID: 20}
)

// steps steps events and returns all actions.
func steps(m *dfsm.Machine, events ...dfsm.Event) (all []dfsm.Action) {
	for _, e := range events {
		m.Step(e)
		all = append(all, m.Actions()...)
	}
	return all
}

// only returns the actions of one type.
func only[A dfsm.Action](actions []dfsm.Action) (found []A) {
	for _, a := range actions {
		if a, ok := a.(A); ok {
			found = append(found, a)
		}
	}
	return found
}

func normal(count uint64) []byte {
	m := wire.Message{Header: wire.Header{Version: 1, Subtype: 1}, Count: count, Payload: []byte{byte(count)}}
	return m.Encode()
}

func protocol(m *dfsm.Machine, t wire.Type, payload []byte) []byte {
	msg := wire.Message{Header: wire.Header{Type: t, Version: 1}, Epoch: m.SyncEpoch(), Payload: payload}
	return msg.Encode()
}

// alone returns a machine that is the only member.
func alone(t *testing.T, cfg dfsm.Config) *dfsm.Machine {
	t.Helper()
	cfg.Self, cfg.Version = self, 1
	m := dfsm.New(cfg)
	steps(m, dfsm.Tick{Now: 1000}, dfsm.View{Members: []dfsm.Member{self}, Joined: true})
	if m.Mode() != dfsm.ModeSynced {
		t.Fatalf("alone in mode %v", m.Mode())
	}
	return m
}

// pair returns a machine that is synced, and whose peer is or is not.
func pair(t *testing.T, cfg dfsm.Config, selfSynced, otherSynced bool) *dfsm.Machine {
	t.Helper()
	cfg.Self, cfg.Version = self, 1
	m := dfsm.New(cfg)
	steps(m, dfsm.Tick{Now: 1000}, dfsm.View{Members: []dfsm.Member{other, self}, Joined: true})
	steps(m, dfsm.Deliver{From: self, Bytes: protocol(m, wire.SyncStart, nil)}, dfsm.StateTaken{State: []byte("x")})
	steps(m,
		dfsm.Deliver{From: self, Bytes: protocol(m, wire.State, []byte("x"))},
		dfsm.Deliver{From: other, Bytes: protocol(m, wire.State, []byte("y"))},
		dfsm.StatesProcessed{Sync: dfsm.Sync{Synced: []bool{selfSynced, otherSynced}}})
	want := dfsm.ModeUpdate
	if selfSynced {
		want = dfsm.ModeSynced
	}
	if m.Mode() != want {
		t.Fatalf("after the states in mode %v, want %v", m.Mode(), want)
	}
	return m
}

func TestDeliveriesOfOneDispatchAreOneBatch(t *testing.T) {
	m := alone(t, dfsm.Config{})
	for n := uint64(1); n <= 5; n++ {
		if a := steps(m, dfsm.Submit{ID: 100 + n, Subtype: 1, Payload: []byte{byte(n)}}); len(only[dfsm.Send](a)) != 1 {
			t.Fatalf("submit: %v", a)
		}
	}
	for n := uint64(1); n <= 5; n++ {
		if a := steps(m, dfsm.Deliver{From: self, Bytes: normal(n)}); len(a) != 0 {
			t.Fatalf("delivery %d: %v", n, a)
		}
	}
	a := only[dfsm.Apply](steps(m, dfsm.EndOfBatch{}))
	if len(a) != 1 || len(a[0].Batch) != 5 {
		t.Fatalf("end of batch: %v", a)
	}
	for i, msg := range a[0].Batch {
		if msg.Count != uint64(i+1) || !msg.Own || msg.Payload[0] != byte(i+1) || msg.Subtype != 1 {
			t.Errorf("message %d: %+v", i, msg)
		}
	}
	refused := errors.New("refused")
	told := only[dfsm.Reply](steps(m, dfsm.Applied{Results: []dfsm.Result{{}, {Err: refused}, {}, {}, {}}}))
	if len(told) != 5 || told[0] != (dfsm.Reply{ID: 101}) || told[1] != (dfsm.Reply{ID: 102, Result: dfsm.Result{Err: refused}}) {
		t.Errorf("replies: %v", told)
	}
	if a := steps(m, dfsm.EndOfBatch{}); len(a) != 0 {
		t.Errorf("an empty batch: %v", a)
	}
}

func TestSenderIsToldOfSuccessOnlyIfItsMessageTookEffect(t *testing.T) {
	for _, tt := range []struct {
		err  error
		mode dfsm.Mode
	}{
		{errors.New("full"), dfsm.ModeLeave},
		{fmt.Errorf("%w: broken", dfsm.ErrFatal), dfsm.ModeError},
	} {
		m := alone(t, dfsm.Config{})
		for n := uint64(1); n <= 4; n++ {
			steps(m, dfsm.Submit{ID: n, Subtype: 1})
		}
		for n := uint64(1); n <= 3; n++ {
			steps(m, dfsm.Deliver{From: self, Bytes: normal(n)})
		}
		steps(m, dfsm.EndOfBatch{})
		a := steps(m, dfsm.Applied{Done: 2, Results: []dfsm.Result{{}, {Err: tt.err}, {}}, Err: tt.err})
		want := []dfsm.Reply{{ID: 1}, {ID: 2, Result: dfsm.Result{Err: tt.err}}, {ID: 3, Result: dfsm.Result{Err: dfsm.ErrDisconnected}}, {ID: 4, Result: dfsm.Result{Err: dfsm.ErrDisconnected}}}
		got := only[dfsm.Reply](a)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("replies %v, want %v", got, want)
		}
		leave := only[dfsm.Leave](a)
		if len(leave) != 1 || leave[0].Final != tt.mode.Final() || m.Mode() != tt.mode {
			t.Errorf("%v in mode %v", leave, m.Mode())
		}
		if a := steps(m, dfsm.Deliver{From: self, Bytes: normal(4)}, dfsm.EndOfBatch{}, dfsm.View{Members: []dfsm.Member{self}, Joined: true}); len(a) != 0 {
			t.Errorf("in an error mode: %v", a)
		}
		steps(m, dfsm.Restart{}, dfsm.View{Members: []dfsm.Member{self}, Joined: true})
		if want := map[bool]dfsm.Mode{false: dfsm.ModeSynced, true: tt.mode}[tt.mode.Final()]; m.Mode() != want {
			t.Errorf("after a restart in mode %v, want %v", m.Mode(), want)
		}
	}
}

func TestEventsWaitForTheAnswerInTheirOrder(t *testing.T) {
	m := alone(t, dfsm.Config{})
	steps(m, dfsm.Deliver{From: self, Bytes: normal(1)})
	a := steps(m, dfsm.View{Members: []dfsm.Member{self, other}, Joined: true})
	if len(a) != 1 || len(only[dfsm.Apply](a)) != 1 {
		t.Fatalf("a view with a batch collected: %v", a)
	}
	if a := steps(m, dfsm.Deliver{From: other, Bytes: normal(1)}, dfsm.EndOfBatch{}, dfsm.Submit{ID: 1, Subtype: 1}); len(a) != 0 {
		t.Fatalf("before the answer: %v", a)
	}
	a = steps(m, dfsm.Applied{})
	if m.Mode() != dfsm.ModeStartSync || len(only[dfsm.ViewChanged](a)) != 1 || len(only[dfsm.Send](a)) != 2 {
		t.Errorf("after the answer: %v in mode %v", a, m.Mode())
	}
	if n, _ := m.Queued(); n != 1 {
		t.Errorf("%d messages queued", n)
	}
}

func TestMessagesOfUnsyncedMembersWaitForUpdateComplete(t *testing.T) {
	m := pair(t, dfsm.Config{}, true, false)
	a := steps(m,
		dfsm.Deliver{From: other, Bytes: normal(7)}, dfsm.Deliver{From: self, Bytes: normal(9)},
		dfsm.Deliver{From: other, Bytes: normal(6)}, dfsm.EndOfBatch{})
	batch := only[dfsm.Apply](a)
	if len(batch) != 1 || len(batch[0].Batch) != 1 || batch[0].Batch[0].From != self {
		t.Fatalf("applied at once: %v", batch)
	}
	a = steps(m, dfsm.Applied{}, dfsm.Deliver{From: self, Bytes: protocol(m, wire.UpdateComplete, nil)}, dfsm.EndOfBatch{})
	batch = only[dfsm.Apply](a)
	if len(batch) != 1 || len(batch[0].Batch) != 2 || batch[0].Batch[0].Count != 6 || batch[0].Batch[1].Count != 7 {
		t.Errorf("after update-complete: %v", batch)
	}
}

func TestNodeBehindAppliesSyncedMembersMessagesFirst(t *testing.T) {
	m := pair(t, dfsm.Config{}, false, true)
	a := steps(m,
		dfsm.Deliver{From: self, Bytes: normal(1)},
		dfsm.Deliver{From: other, Bytes: protocol(m, wire.Update, []byte("u1"))},
		dfsm.Deliver{From: other, Bytes: normal(9)},
		dfsm.Deliver{From: other, Bytes: protocol(m, wire.Update, []byte("u2"))},
		dfsm.Deliver{From: other, Bytes: normal(8)},
		dfsm.EndOfBatch{})
	updates := only[dfsm.ApplyUpdates](a)
	if len(a) != 1 || len(updates) != 1 || len(updates[0].Payloads) != 2 {
		t.Fatalf("one dispatch with two updates: %v", a)
	}
	a = steps(m, dfsm.UpdatesApplied{}, dfsm.Deliver{From: other, Bytes: protocol(m, wire.UpdateComplete, nil)})
	if len(only[dfsm.Commit](a)) != 1 {
		t.Fatalf("update-complete: %v", a)
	}
	batch := only[dfsm.Apply](steps(m, dfsm.Committed{}, dfsm.EndOfBatch{}))
	if len(batch) != 1 || fmt.Sprint(counts(batch[0].Batch)) != "[9 8 1]" {
		t.Errorf("after the commit: %v, want the sync queue as it came, then the message queue", batch)
	}
}

func counts(batch []dfsm.Message) (c []uint64) {
	for _, m := range batch {
		c = append(c, m.Count)
	}
	return c
}

func TestQueueIsDeliveredByCountAndEqualCountsByArrival(t *testing.T) {
	third := dfsm.Member{Node: 3, PID: 30}
	m := dfsm.New(dfsm.Config{Self: self, Version: 1})
	steps(m, dfsm.Tick{Now: 1}, dfsm.View{Members: []dfsm.Member{third, other, self}, Joined: true})
	for _, d := range []struct {
		from  dfsm.Member
		count uint64
	}{{third, 5}, {other, 2}, {self, 9}, {other, 5}, {third, 1}, {self, 2}} {
		steps(m, dfsm.Deliver{From: d.from, Bytes: normal(d.count)})
	}
	// The others are gone before the states are exchanged, but one.
	steps(m, dfsm.View{Members: []dfsm.Member{self, other}})
	steps(m, dfsm.Deliver{From: self, Bytes: protocol(m, wire.SyncStart, nil)}, dfsm.StateTaken{})
	a := steps(m, dfsm.Deliver{From: self, Bytes: protocol(m, wire.State, nil)}, dfsm.Deliver{From: other, Bytes: protocol(m, wire.State, nil)},
		dfsm.StatesProcessed{Sync: dfsm.Sync{Synced: []bool{true, true}}}, dfsm.EndOfBatch{})
	batch := only[dfsm.Apply](a)
	if len(batch) != 1 {
		t.Fatalf("%v", a)
	}
	var got string
	for _, msg := range batch[0].Batch {
		got += fmt.Sprintf("%v#%d ", msg.From, msg.Count)
	}
	if want := "2/20#2 1/10#2 2/20#5 1/10#9 "; got != want {
		t.Errorf("delivered %s, want %s", got, want)
	}
}

func TestOwnQueuedMessagesAreSentAgainUnchangedWhenSomeoneJoins(t *testing.T) {
	for _, joined := range []bool{true, false} {
		m := dfsm.New(dfsm.Config{Self: self, Version: 1})
		steps(m, dfsm.Tick{Now: 1}, dfsm.View{Members: []dfsm.Member{other, self}, Joined: true})
		first := only[dfsm.Send](steps(m, dfsm.Submit{ID: 1, Subtype: 4, Payload: []byte("p")}))[0].Bytes
		steps(m, dfsm.Deliver{From: self, Bytes: first}, dfsm.Deliver{From: other, Bytes: normal(1)}, dfsm.EndOfBatch{}, dfsm.Tick{Now: 99})
		a := steps(m, dfsm.View{Members: []dfsm.Member{other, self, {Node: 3, PID: 30}}, Joined: joined})
		var again []dfsm.Send
		for _, s := range only[dfsm.Send](a) {
			if s.Normal {
				again = append(again, s)
			}
		}
		n, bytes := m.Queued()
		if joined && (len(again) != 1 || string(again[0].Bytes) != string(first) || n != 0 || bytes != 0) {
			t.Errorf("someone joined: sent %v, %d queued", again, n)
		}
		if !joined && (len(again) != 0 || n != 2) {
			t.Errorf("nobody joined: sent %v, %d queued", again, n)
		}
		if m.Waiting() != 1 {
			t.Errorf("%d waiting", m.Waiting())
		}
	}
}

func TestQueueThatGrowsTooLargeMakesTheNodeLeave(t *testing.T) {
	for _, selfSynced := range []bool{true, false} {
		m := pair(t, dfsm.Config{MaxQueued: 1000}, selfSynced, !selfSynced)
		from := other
		left := false
		for n := uint64(1); n < 100 && !left; n++ {
			a := steps(m, dfsm.Deliver{From: self, Bytes: normal(n)}, dfsm.Deliver{From: from, Bytes: normal(n)})
			if len(only[dfsm.Apply](a)) > 0 { // what was collected goes first
				a = steps(m, dfsm.Applied{})
			}
			left = len(only[dfsm.Leave](a)) > 0
		}
		if _, bytes := m.Queued(); !left || bytes > 1000 || m.Mode() != dfsm.ModeLeave {
			t.Errorf("self synced %v: left %v in mode %v with %d bytes", selfSynced, left, m.Mode(), bytes)
		}
	}
}

func TestSubmitWithoutMembershipIsRefusedAtOnce(t *testing.T) {
	m := dfsm.New(dfsm.Config{Self: self, Version: 1})
	a := steps(m, dfsm.Submit{ID: 5}, dfsm.Submit{})
	if len(a) != 1 || a[0] != (dfsm.Reply{ID: 5, Result: dfsm.Result{Err: dfsm.ErrDisconnected}}) {
		t.Errorf("%v", a)
	}
	m = alone(t, dfsm.Config{})
	steps(m, dfsm.Submit{ID: 6}, dfsm.Submit{ID: 7})
	a = replies(steps(m, dfsm.Restart{}))
	if fmt.Sprint(a) != fmt.Sprint([]dfsm.Action{dfsm.Reply{ID: 6, Result: dfsm.Result{Err: dfsm.ErrDisconnected}}, dfsm.Reply{ID: 7, Result: dfsm.Result{Err: dfsm.ErrDisconnected}}}) {
		t.Errorf("restart: %v", a)
	}
}

func replies(actions []dfsm.Action) (all []dfsm.Action) {
	for _, r := range only[dfsm.Reply](actions) {
		all = append(all, r)
	}
	return all
}

func TestVerificationIsDueHourlyOnTheLowestSyncedNode(t *testing.T) {
	requests := func(m *dfsm.Machine, now uint32) int { return len(only[dfsm.Send](steps(m, dfsm.Tick{Now: now}))) }
	m := alone(t, dfsm.Config{Checksums: true}) // since 1000
	if n := requests(m, 4599); n != 0 {
		t.Errorf("%d requests before the hour", n)
	}
	if n := requests(m, 4600); n != 1 {
		t.Errorf("%d requests after an hour", n)
	}
	if n := requests(m, 9000); n != 0 {
		t.Errorf("%d requests while one is under way", n)
	}
	if n := requests(alone(t, dfsm.Config{}), 9000); n != 0 {
		t.Errorf("%d requests without checksums", n)
	}
	m = pair(t, dfsm.Config{Checksums: true}, false, true)
	if n := requests(m, 9000); n != 0 {
		t.Errorf("%d requests while behind", n)
	}
	m = alone(t, dfsm.Config{Checksums: true})
	requests(m, 10) // the clock was set back
	if n := requests(m, 10+3600); n != 1 {
		t.Errorf("%d requests an hour after the clock was set back", n)
	}
}

// FuzzStep steps any events, answers what is asked, and checks what a driver
// relies on.
func FuzzStep(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"))
	f.Add([]byte("\x03\x10\x00\x04\x11\x20\x05\x00\x00\x01\x02\x01\x02\x01\x05\x05\x05\x06\x04\x04\x00\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		m := dfsm.New(dfsm.Config{Self: self, Version: 1, Checksums: true, MaxQueued: 4096})
		var ids uint64
		open := map[uint64]bool{}
		do := func() {
			for {
				actions := m.Actions()
				if len(actions) == 0 {
					return
				}
				for _, a := range actions {
					switch a := a.(type) {
					case dfsm.Apply:
						if m.Mode() != dfsm.ModeSynced || len(a.Batch) == 0 {
							t.Fatalf("apply %d messages in mode %v", len(a.Batch), m.Mode())
						}
						m.Step(dfsm.Applied{})
					case dfsm.TakeState:
						m.Step(dfsm.StateTaken{State: []byte("s")})
					case dfsm.ProcessStates:
						s := dfsm.Sync{Synced: make([]bool, len(a.States))}
						for i, st := range a.States {
							s.Synced[i] = string(st.State) == "s"
						}
						m.Step(dfsm.StatesProcessed{Sync: s})
					case dfsm.ApplyUpdates:
						m.Step(dfsm.UpdatesApplied{})
					case dfsm.Commit:
						m.Step(dfsm.Committed{})
					case dfsm.Checksum:
						m.Step(dfsm.ChecksumDone{ID: a.ID, Epoch: a.Epoch})
					case dfsm.Reply:
						if !open[a.ID] {
							t.Fatalf("reply to %d, who does not wait", a.ID)
						}
						delete(open, a.ID)
					}
				}
			}
		}
		m.Step(dfsm.Tick{Now: 1000})
		members := []dfsm.Member{self, other, {Node: 3, PID: 30}, {Node: 3, PID: 31}}
		next := func() byte {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return b
		}
		for len(script) > 0 {
			switch op := next(); op % 9 {
			case 0:
				m.Step(dfsm.EndOfBatch{})
			case 1:
				ids++
				open[ids] = true
				m.Step(dfsm.Submit{ID: ids, Subtype: 1})
			case 2: // something raw
				raw := make([]byte, next()%64)
				for i := range raw {
					raw[i] = next()
				}
				m.Step(dfsm.Deliver{From: members[op>>3&3], Bytes: raw})
			case 3:
				set := next()
				var in []dfsm.Member
				for i, mb := range members {
					if set>>i&1 != 0 {
						in = append(in, mb)
					}
				}
				m.Step(dfsm.View{Members: in, Joined: set&0x80 != 0})
			case 4, 5: // something well-formed
				b := next()
				msg := wire.Message{Header: wire.Header{Type: wire.Type(b % 8), Version: 1}, Count: uint64(b >> 4), Epoch: m.SyncEpoch()}
				if b&8 != 0 {
					msg.Payload = binary.LittleEndian.AppendUint64(nil, uint64(b))
				} else {
					msg.Payload = []byte("s")
				}
				m.Step(dfsm.Deliver{From: members[op>>3&3], Bytes: msg.Encode()})
			case 6:
				m.Step(dfsm.Tick{Now: uint32(op) * 600})
			case 7:
				m.Step(dfsm.Restart{})
			case 8:
				before := m.Mode()
				err := errors.New("no room")
				if op&0x80 != 0 {
					err = dfsm.ErrFatal
				}
				m.Step(dfsm.Failed{Err: err})
				do()
				if after := m.Mode(); before == dfsm.ModeStart && err != dfsm.ErrFatal && after != before {
					t.Fatalf("a failure without a membership ends in mode %v", after)
				}
			}
			do()
			if _, bytes := m.Queued(); bytes > 4096 {
				t.Fatalf("%d bytes queued", bytes)
			}
			if m.Waiting() != len(open) {
				t.Fatalf("%d waiting, want %d", m.Waiting(), len(open))
			}
		}
		m.Step(dfsm.EndOfBatch{})
		m.Step(dfsm.Restart{})
		do()
		if len(open) != 0 || m.Waiting() != 0 {
			t.Fatalf("%d without a reply", len(open))
		}
	})
}

func BenchmarkQueueDuringSync(b *testing.B) {
	for b.Loop() {
		m := dfsm.New(dfsm.Config{Self: self, Version: 1})
		steps(m, dfsm.Tick{Now: 1}, dfsm.View{Members: []dfsm.Member{self, other}, Joined: true})
		for n := uint64(1); n <= 50_000; n++ { // counts far apart: the worst order
			m.Step(dfsm.Deliver{From: self, Bytes: normal(1_000_000 + n)})
			m.Step(dfsm.Deliver{From: other, Bytes: normal(n)})
		}
		steps(m, dfsm.View{Members: []dfsm.Member{self}})
	}
}
