package dfsm

import (
	"encoding/hex"
	"fmt"
	"log/slog"

	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/event"
)

// verification is the state of the hourly comparison (the DFSM protocol,
// "Verification"). A checksum may take its time; the stream goes on meanwhile,
// and whichever of our sum and the requester's comes last is compared with
// the other.
type verification struct {
	next     uint32 // when the next one is due, seconds since 1970; 0 means not set yet
	ids      uint64 // of our own requests
	underWay bool   // one of ours is not finished

	saved     bool // a request has been delivered under this id and epoch
	id        uint64
	epoch     wire.Epoch
	requester Member

	good, bad uint64 // comparisons so far

	hasOwn, hasTheirs bool
	own, theirs       [wire.ChecksumSize]byte
}

// forget drops the saved states, not the clock and the counters.
func (v *verification) forget() {
	*v = verification{next: v.next, ids: v.ids, good: v.good, bad: v.bad}
}

func (m *Machine) tick(now uint32) {
	m.now = now
	v := &m.verify
	if v.next == 0 || v.next > now+verifyInterval {
		v.next = now + verifyInterval // the first tick, or a clock set back
		return
	}
	if now < v.next {
		return
	}
	v.next = now + verifyInterval
	if m.cfg.Checksums && m.mode == ModeSynced && m.lowest == m.cfg.Self.Node && !v.underWay {
		v.ids++
		v.underWay = true
		m.send(wire.VerifyRequest, wire.AppendVerifyRequest(nil, v.ids))
	}
}

// verifyRequested has the application compute its checksum of this moment.
func (m *Machine) verifyRequested(from Member, msg *wire.Message) {
	id, err := wire.DecodeVerifyRequest(msg.Payload)
	if err != nil {
		m.logf(slog.LevelError, "received malformed verify-request from %v", from)
		m.fail(ModeLeave)
		return
	}
	v := &m.verify
	v.saved, v.id, v.epoch, v.requester = true, id, msg.Epoch, from
	v.hasOwn, v.hasTheirs = false, false
	v.underWay = v.underWay && from == m.cfg.Self
	m.do(Checksum{ID: id, Epoch: msg.Epoch})
}

func (m *Machine) checksumDone(e ChecksumDone) {
	v := &m.verify
	if m.mode != ModeSynced || !v.saved || v.hasOwn || v.id != e.ID || v.epoch != e.Epoch {
		return // a view has come between
	}
	if e.Err != nil {
		m.logf(slog.LevelError, "computing the checksum failed: %v", e.Err)
		v.forget()
		return
	}
	v.own, v.hasOwn = e.Sum, true
	if v.requester == m.cfg.Self {
		m.send(wire.Verify, wire.AppendVerify(nil, v.id, v.own))
	}
	m.compareChecksums()
}

func (m *Machine) verifyReceived(from Member, msg *wire.Message) {
	id, sum, err := wire.DecodeVerify(msg.Payload)
	if err != nil {
		m.logf(slog.LevelError, "received malformed verify from %v", from)
		m.fail(ModeLeave)
		return
	}
	v := &m.verify
	if from == m.cfg.Self {
		v.underWay = false
	}
	if !v.saved || v.id != id || v.epoch != msg.Epoch || v.hasTheirs {
		return
	}
	v.theirs, v.hasTheirs = sum, true
	m.compareChecksums()
}

func (m *Machine) compareChecksums() {
	v := &m.verify
	if !v.hasOwn || !v.hasTheirs {
		return
	}
	if v.own != v.theirs {
		v.bad++
		own, theirs := hex.EncodeToString(v.own[:]), hex.EncodeToString(v.theirs[:])
		m.tell(event.LevelCritical, fmt.Sprintf("wrong checksum %s != %s - restarting", theirs, own), event.VerificationFailed,
			"own", own, "theirs", theirs, "requester", v.requester.String(), "epoch", v.epoch.String())
		m.fail(ModeLeave)
		return
	}
	v.good++
	m.log(slog.LevelInfo, "data verification successful")
	v.forget()
}
