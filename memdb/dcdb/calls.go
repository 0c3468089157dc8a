package dcdb

import (
	"hash/maphash"
	"slices"
	"sync"

	"pmxcfs/memdb"
)

// calls are this node's own messages that have waiters. A change that a
// waiting call has made is told to the kernel by that call's answer; any other
// the kernel must be made to look at. A message does not say which call sent it,
// so calls go by what they have sent: which of two that sent the same is meant
// makes no difference.
type calls struct {
	obs Observer

	mu      sync.Mutex // guards waiting and the calls in it; held for every call of obs
	seed    maphash.Seed
	waiting map[uint64][]*call // by the hash of the message, in the order of their coming
}

// call is one waiting call. With changes it is the one whose answer will tell
// the kernel of them.
type call struct {
	key     uint64
	op      *memdb.Op
	changes []memdb.Change
}

func newCalls(obs Observer) *calls {
	return &calls{obs: obs, seed: maphash.MakeSeed(), waiting: make(map[uint64][]*call)}
}

func (cs *calls) key(subtype uint16, payload []byte) uint64 {
	return maphash.Bytes(cs.seed, payload)*31 + uint64(subtype)
}

// begin registers a call that is about to send a message.
func (cs *calls) begin(subtype uint16, payload []byte) *call {
	c := &call{key: cs.key(subtype, payload)}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.waiting[c.key] = append(cs.waiting[c.key], c)
	return c
}

// end takes a call away. Unless its answer says that its change was made, the
// kernel is told now of what it was to tell.
func (cs *calls) end(c *call, done bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list := cs.waiting[c.key]
	if i := slices.Index(list, c); len(list) > 1 {
		cs.waiting[c.key] = slices.Delete(list, i, i+1)
	} else {
		delete(cs.waiting, c.key)
	}
	if c.changes != nil && !done {
		cs.obs.Applied(c.op, c.changes, true)
	}
}

// applied tells the observer of a change. It returns the call that will tell
// the kernel; nil means none.
func (cs *calls) applied(op *memdb.Op, changes []memdb.Change, own bool, subtype uint16, payload []byte) *call {
	var key uint64
	if own {
		key = cs.key(subtype, payload)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var c *call
	if own {
		list := cs.waiting[key]
		if i := slices.IndexFunc(list, func(c *call) bool { return c.changes == nil }); i >= 0 {
			c = list[i]
			c.op, c.changes = op, changes
		}
	}
	cs.obs.Applied(op, changes, c == nil)
	return c
}

// reset tells the observer that changes were taken back, those of the given
// calls among them.
func (cs *calls) reset(changes []memdb.Change, of []*call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range of {
		c.op, c.changes = nil, nil
	}
	cs.obs.Reset(changes)
}
