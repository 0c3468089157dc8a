package dfsmtest

import (
	"slices"

	"pmxcfs/dfsm"
)

func (r *run) applied(p *Process, m *Model, id OpID) {
	if !r.strict() {
		return
	}
	at := len(m.Disk.History) - 1
	switch {
	case at == len(r.history):
		if slices.Contains(r.history, id) {
			r.failf("%v applies %v a second time", p.self, id)
		}
		r.history = append(r.history, id)
	case at > len(r.history):
		r.failf("%v applies %v as change %d, but there were only %d", p.self, id, at, len(r.history))
	case r.history[at] != id && !r.holder(p, at):
		// A majority of hosts goes on, and no daemon is in the group that had
		// applied what comes here in the history: they were killed, or cut
		// off, or have left. Quorum counts hosts, not daemons.
		r.out.Forked = true
		r.tracef("forked: %d changes of %d go on", at, len(r.history))
	case r.history[at] != id:
		r.failf("%v applies %v as change %d, others %v", p.self, id, at, r.history[at])
	}
}

func (r *run) holder(p *Process, at int) bool {
	members, _ := p.Machine.Members()
	for _, mb := range members {
		o := r.Host(mb.Node).proc
		if o == nil || o.self != mb || o.Machine.SyncEpoch() != p.Machine.SyncEpoch() {
			continue
		}
		if h := r.disks[mb.Node-1].History; len(h) > at && h[at] == r.history[at] {
			return true
		}
	}
	return false
}

func (r *run) synced(p *Process, state []byte) {
	epoch := p.Machine.SyncEpoch()
	if other, ok := r.started[epoch]; !ok {
		r.started[epoch] = string(state)
	} else if other != string(state) && !r.plan.Hostile {
		r.failf("%v ends sync %v with another state than others", p.self, epoch)
	}
	if !r.strict() {
		return
	}
	// None of its members may have more than what the sync ends with.
	version := int(uint64(state[0]) | uint64(state[1])<<8 | uint64(state[2])<<16)
	members, _ := p.Machine.Members()
	for _, mb := range members {
		o := r.Host(mb.Node).proc
		if o == nil || o.self != mb || o.Machine.SyncEpoch() != epoch || len(r.disks[mb.Node-1].History) <= version {
			continue
		}
		if mode := o.Machine.Mode(); mode != dfsm.ModeStartSync && mode != dfsm.ModeUpdate {
			return // past the sync, it applied what came after; it may have left since
		}
		r.failf("sync %v ends with version %d, but %v has %d", epoch, version, mb, len(r.disks[mb.Node-1].History))
	}
}

func (r *run) replied(p *Process, m *Model, _ map[uint64]OpID, id uint64, err error) {
	op := OpID{From: p.self, Count: id} // counts and ids go in step here
	switch err {
	case nil:
		r.out.Acked++
		if !r.plan.Hostile && !slices.Contains(m.Disk.History, op) {
			r.failf("%v: %v reported as done, but not applied", p.self, op)
		}
		if r.strict() {
			r.acked = append(r.acked, op)
		}
	case dfsm.ErrDisconnected:
		r.out.Unknown++
	default:
		r.out.Refused++
		if !r.plan.Hostile && slices.Contains(m.Disk.History, op) && r.plan.Cut == CutSafe {
			r.failf("%v: %v reported as %v, but applied", p.self, op, err)
		}
	}
}

func (r *run) verifyAll() {
	if r.err != nil {
		return
	}
	leaves := r.leaves
	r.now += 3601
	for _, h := range r.hosts {
		h.proc.Dispatch(0)
	}
	requested := r.sent
	r.settle()
	if r.sent < requested+2 {
		r.failf("no verification an hour later")
	}
	if r.leaves != leaves {
		r.failf("a member left in verification")
	}
	r.out.Verified = len(r.hosts)
}

func (r *run) checkEnd() {
	if r.err != nil {
		return
	}
	if r.plan.Store {
		r.checkStores()
		return
	}
	first := string(r.disks[0].State())
	for i, h := range r.hosts {
		m := h.proc.Machine
		messages, _ := m.Queued()
		_, synced := m.Members()
		switch {
		case m.Mode() != dfsm.ModeSynced || synced != len(r.hosts):
			r.failf("%v ends in mode %v with %d synced members", h.proc.self, m.Mode(), synced)
		case messages != 0:
			r.failf("%v ends with %d messages queued", h.proc.self, messages)
		case m.Waiting() != 0:
			r.failf("%v ends with %d waiting", h.proc.self, m.Waiting())
		case string(r.disks[i].State()) != first:
			r.failf("%v ends with another state than host 1", h.proc.self)
		}
	}
	if !r.strict() {
		return
	}
	for _, op := range r.acked {
		if !slices.Contains(r.disks[0].History, op) {
			r.failf("%v was acknowledged, and is lost", op)
		}
	}
}
