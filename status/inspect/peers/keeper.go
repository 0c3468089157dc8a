package peers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"pmxcfs/dfsm"
	"pmxcfs/memdb"
)

const (
	// keepTime is how long a state of the tree is kept after it was asked for last.
	keepTime = 20 * time.Second
	// maxKept is how many states are kept: one for each asker.
	maxKept = 4
	// maxAsked is how many questions may wait.
	maxAsked = 32
	// armTime is how long to wait for a version of the tree.
	armTime = time.Second
)

// keeper answers the others' questions, on a goroutine of its own: hashing a tree
// takes a while, and messages must not wait for it.
type keeper struct {
	cfg   Config
	send  func([]byte)
	tasks chan task
	kick  chan struct{} // a state that was waited for is there

	armed atomic.Int32 // how many wait, for changed to see without the lock

	mu      sync.Mutex // guards all below
	waiting []*wait
	kept    map[dfsm.Member]*keptFor
}

// task is a question.
type task struct {
	from dfsm.Member
	h    header
	body cbor.RawMessage
}

// wait is a question for a version that the tree has not reached.
type wait struct {
	from    dfsm.Member
	h       header
	version uint64
	until   time.Time
	entries []*memdb.Entry // once it was reached
	passed  bool           // it was not met
}

// keptFor is a state under the number of its question.
type keptFor struct {
	id uint64
	kept
}

func newKeeper(cfg Config, send func([]byte)) *keeper {
	return &keeper{cfg: cfg, send: send, tasks: make(chan task, maxAsked), kick: make(chan struct{}, 1), kept: map[dfsm.Member]*keptFor{}}
}

// ask queues a question. With too many waiting it is dropped.
func (k *keeper) ask(from dfsm.Member, h header, body cbor.RawMessage) {
	select {
	case k.tasks <- task{from, h, body}:
	default:
	}
}

// changed looks whether a version that is waited for is there. It is called after
// each change of the tree, and takes a snapshot at most.
func (k *keeper) changed() {
	if k.armed.Load() == 0 {
		return
	}
	version := k.cfg.Tree.Root().Version
	k.mu.Lock()
	defer k.mu.Unlock()
	var entries []*memdb.Entry
	met := false
	for _, w := range k.waiting {
		switch {
		case w.entries != nil || w.passed || version < w.version:
			continue
		case version > w.version:
			w.passed = true
		default:
			if entries == nil {
				entries = k.cfg.Tree.Entries()
			}
			w.entries = entries
		}
		met = true
	}
	if met {
		select {
		case k.kick <- struct{}{}:
		default:
		}
	}
}

// run answers until ctx is done.
func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(keepTime)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-k.tasks:
			k.answer(t)
		case <-k.kick:
		case <-timer.C:
		}
		timer.Stop()
		if next := k.expire(time.Now()); next > 0 {
			timer.Reset(next)
		}
	}
}

// expire answers those whose waiting is over, drops what nobody asks for any more, and
// returns when to do so again; 0 means when somebody has asked.
func (k *keeper) expire(now time.Time) time.Duration {
	var over []*wait
	next := keepTime
	k.mu.Lock()
	open := k.waiting[:0]
	for _, w := range k.waiting {
		if w.entries != nil || w.passed || !now.Before(w.until) {
			over = append(over, w)
			continue
		}
		next = min(next, w.until.Sub(now))
		open = append(open, w)
	}
	clear(k.waiting[len(open):])
	k.waiting = open
	k.armed.Store(int32(len(open)))
	for m, kept := range k.kept {
		if !now.Before(kept.until) {
			delete(k.kept, m)
		}
	}
	switch {
	case len(k.kept) > 0, len(over) > 0:
		next = min(next, time.Second)
	case len(open) == 0:
		next = 0
	}
	k.mu.Unlock()
	for _, w := range over {
		entries := w.entries
		if entries == nil && !w.passed {
			entries = k.cfg.Tree.Entries() // there are no more changes
		}
		k.keep(w.from, w.h, entries)
	}
	return next
}

// answer answers a question, or has it wait.
func (k *keeper) answer(t task) {
	reply := header{ID: t.h.ID, Node: uint32(t.from.Node), PID: t.from.PID}
	if t.h.Kind == kindAskSnapshot {
		if q, err := decode[askSnapshot](t.body); err == nil {
			k.snapshot(t.from, t.h, q.Version)
		}
		return
	}
	kept := k.find(t.from, t.h.ID)
	if kept == nil {
		return
	}
	switch t.h.Kind {
	case kindAskRanges:
		if q, err := decode[askRanges](t.body); err == nil {
			k.send(encode(reply, kept.ranges(q.Bounds)))
		}
	case kindAskEntries:
		if q, err := decode[askEntries](t.body); err == nil {
			k.send(encode(reply, kept.sums(q.Spans)))
		}
	case kindAskDetails:
		if q, err := decode[askDetails](t.body); err == nil {
			k.send(encode(reply, kept.details(q.Inodes)))
		}
	}
}

// snapshot keeps the tree, now or at a version to come; 0 is now.
func (k *keeper) snapshot(from dfsm.Member, h header, version uint64) {
	if version == 0 {
		k.keep(from, h, k.cfg.Tree.Entries())
		return
	}
	k.mu.Lock()
	if len(k.waiting) >= maxKept {
		k.mu.Unlock()
		k.refuse(from, h, resultBusy)
		return
	}
	w := &wait{from: from, h: h, version: version, until: time.Now().Add(armTime)}
	k.waiting = append(k.waiting, w)
	k.armed.Store(int32(len(k.waiting)))
	k.mu.Unlock()
	// It may have come to that version before changed began to look.
	k.changed()
}

// keep keeps entries for an asker, in the place of what it asked for before, and
// answers; nil means the version was passed.
func (k *keeper) keep(from dfsm.Member, h header, entries []*memdb.Entry) {
	if entries == nil {
		k.refuse(from, h, resultPassed)
		return
	}
	state := &keptFor{h.ID, kept{entries: entries, until: time.Now().Add(keepTime)}}
	k.mu.Lock()
	_, again := k.kept[from]
	full := !again && len(k.kept) >= maxKept
	if !full {
		k.kept[from] = state
	}
	k.mu.Unlock()
	if full {
		k.refuse(from, h, resultBusy)
		return
	}
	a := k.head(resultKept)
	a.Version, a.Entries, a.Digest = state.version(), uint32(len(entries)), state.digest()
	k.send(encode(header{ID: h.ID, Node: uint32(from.Node), PID: from.PID}, a))
}

// refuse answers that nothing is kept; the version is that of the tree now.
func (k *keeper) refuse(from dfsm.Member, h header, result uint8) {
	a := k.head(result)
	a.Version = k.cfg.Tree.Root().Version
	k.send(encode(header{ID: h.ID, Node: uint32(from.Node), PID: from.PID}, a))
}

func (k *keeper) head(result uint8) snapshot {
	mode, quorate := k.cfg.Mode()
	return snapshot{Result: result, Mode: uint8(mode), Quorate: quorate}
}

// find returns what is kept for a question; nil means nothing.
func (k *keeper) find(from dfsm.Member, id uint64) *kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	state := k.kept[from]
	if state == nil || state.id != id {
		return nil
	}
	state.until = time.Now().Add(keepTime)
	return &state.kept
}
