package dfsm

import (
	"log/slog"

	"pmxcfs/dfsm/wire"
)

// deliver follows a message (the DFSM protocol, "On a message"). It returns
// false, having done nothing else, if what was collected must go to the
// application first.
func (m *Machine) deliver(from Member, raw []byte) bool {
	if m.mode.Failed() || m.mode == ModeStart {
		return true
	}
	h, err := wire.DecodeHeader(raw)
	if err == nil && h.Version < m.cfg.Version {
		if !m.noticed.older {
			m.noticed.older = true
			m.logf(slog.LevelWarn, "ignore message with wrong version from %v (%d instead of %d)", from, h.Version, m.cfg.Version)
		}
		return true
	}
	if err == nil && h.Version > m.cfg.Version {
		if m.flush() {
			return false
		}
		m.logf(slog.LevelError, "detected newer protocol - please update this node (version %d from %v, ours is %d)", h.Version, from, m.cfg.Version)
		m.fail(ModeVersionError)
		return true
	}
	var msg wire.Message
	if err == nil {
		msg, err = h.Decode(raw)
	}
	if err != nil {
		if m.flush() {
			return false
		}
		m.logf(slog.LevelError, "received too short message (%d bytes) from %v", len(raw), from)
		m.fail(ModeLeave)
		return true
	}
	if msg.Type == wire.Normal {
		return m.deliverNormal(from, &msg)
	}
	return m.deliverProtocol(from, &msg)
}

// deliverNormal applies an application's message, or has it wait.
func (m *Machine) deliverNormal(from Member, msg *wire.Message) bool {
	sender := m.find(from)
	if sender == nil {
		// It would be dropped when the queue is delivered, at the latest.
		if !m.noticed.stranger {
			m.noticed.stranger = true
			m.logf(slog.LevelWarn, "ignore message from non-member %v", from)
		}
		return true
	}
	q := Message{
		From:    from,
		Subtype: msg.Subtype,
		Time:    msg.Time,
		Count:   msg.Count,
		Own:     from == m.cfg.Self,
		Payload: msg.Payload,
	}
	switch {
	case m.mode == ModeSynced && sender.synced:
		m.batch = append(m.batch, q)
		return true
	case m.mode == ModeUpdate && sender.synced:
		m.syncQ.add(&q)
	default:
		m.queue.add(&q)
	}
	if m.queue.bytes+m.syncQ.bytes > m.cfg.MaxQueued {
		if m.flush() {
			// Tried again after the answer; must not be in the queue twice.
			m.unqueue(sender)
			return false
		}
		m.logf(slog.LevelError, "more than %d bytes of messages wait for the end of a sync", m.cfg.MaxQueued)
		m.fail(ModeLeave)
	}
	return true
}

// unqueue takes back the message that deliverNormal queued last.
func (m *Machine) unqueue(sender *memberInfo) {
	if m.mode == ModeUpdate && sender.synced {
		m.syncQ.dropLast()
	} else {
		m.queue.dropLast()
	}
}

// deliverProtocol follows a message of the protocol's own.
func (m *Machine) deliverProtocol(from Member, msg *wire.Message) bool {
	if msg.Type != wire.SyncStart && msg.Epoch != m.syncEpoch {
		return true // of a sync that a view has overtaken
	}
	if m.mode == ModeSynced {
		switch msg.Type {
		case wire.UpdateComplete:
			m.allSynced()
			m.deliverQueue()
		case wire.VerifyRequest:
			if m.cfg.Checksums {
				if m.flush() {
					return false
				}
				m.verifyRequested(from, msg)
			}
		case wire.Verify:
			if m.cfg.Checksums {
				if m.flush() {
					return false
				}
				m.verifyReceived(from, msg)
			}
		}
		return true
	}
	switch {
	case msg.Type == wire.VerifyRequest || msg.Type == wire.Verify:
		return true
	case m.mode == ModeUpdate && msg.Type == wire.Update:
		m.updates = append(m.updates, msg.Payload)
		return true
	}
	if m.flush() {
		return false
	}
	switch {
	case m.mode == ModeStartSync && msg.Type == wire.SyncStart:
		m.syncStarted(from, msg.Epoch)
	case m.mode == ModeStartSync && msg.Type == wire.State:
		m.stateReceived(from, msg.Payload)
	case m.mode == ModeUpdate && msg.Type == wire.UpdateComplete:
		m.awaiting = answerCommit
		m.do(Commit{})
	default:
		m.logf(slog.LevelError, "received unexpected %v message from %v in mode %v", msg.Type, from, m.mode)
		m.fail(ModeLeave)
	}
	return true
}
