package dcdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/wire"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

var (
	errNotQuorate = errors.New("received write while not quorate - trigger resync")
	errMismatch   = errors.New("the updates do not make the leader's tree")
)

// confPath is the file that the host's own corosync.conf follows.
const confPath = "corosync.conf"

// app is the configuration database as the group's application. One goroutine
// calls its methods (the group's), except quorate's.
type app struct {
	tree     *memdb.Tree
	db       *clocked
	log      *slog.Logger
	clock    func() time.Time
	calls    *calls
	saver    *committer // its lock is held while a batch is applied
	unstored []*call    // whose changes are not stored for certain; guarded by saver.mu
	closed   bool       // the database is; guarded by saver.mu

	self        func() dfsm.Member                   // this node; asked only while it is a member
	reason      func() group.SyncReason              // of the present sync
	post        func(subtype uint16, payload []byte) // sends a message that nobody waits for
	failed      func(error)                          // ends the membership; it does not block
	confChanged func(own bool)
	latencies   LatencyObserver
	recorder    Recorder // nil: none

	quorate atomic.Bool
	fatal   atomic.Bool // out of the group for good

	keepLost func([]Lost) (dir string, err error) // nil means nobody keeps anything
	parted   parted

	members []dfsm.Member
	sync    *behind // nil means there is nothing to catch up with
	health  health
	stats   Stats
}

// start completes a new app.
func (a *app) start() {
	a.saver = newCommitter(a.tree, a.db, a.log, func(changes []memdb.Change) { a.calls.reset(changes, a.unstored) })
	a.saver.latencies, a.saver.recorder = a.latencies, a.recorder
	a.parted = make(parted)
	a.saver.onFailure = func(err error) {
		a.failing(err)
		a.failed(err)
	}
}

// errClosed is the error of deliveries after Close: corosync may let go of the group's
// goroutine late.
var errClosed = errors.New("dcdb: the store is closed")

// success is the result of an own message that was applied.
type success struct {
	change    memdb.Change
	delivered time.Time // that is, when the batch with it was about to be applied
	commit    *Commit   // to wait for; nil means it is stored
}

// transaction is the state of Apply for one batch.
type transaction struct {
	results []dfsm.Result
	begin   time.Time
	changed bool
	now     bool // a caller waits for it to be stored
	conf    bool // corosync.conf was touched: it is stored before the host gets it
	confOwn bool // by this node
}

// Apply implements dfsm.Application. It returns once the changes that callers of this node wait
// for are stored, with all before them. Changes without a waiter, such as other nodes', join the
// next transaction, which follows within writeDelay: it is in the tree here, and in the
// file where it came from.
func (a *app) Apply(batch []dfsm.Message) dfsm.Applied {
	a.stats.Batches.Add(1)
	t := &transaction{results: make([]dfsm.Result, len(batch)), begin: time.Now()}
	now := a.clock()
	done := len(batch)
	var failed error
	a.saver.mu.Lock()
	if a.closed {
		a.saver.mu.Unlock()
		return dfsm.Applied{Err: errClosed}
	}
	if err := a.health.err.Load(); err != nil {
		// The last changes have been rolled back, and this node is about to leave.
		a.saver.mu.Unlock()
		return dfsm.Applied{Err: *err}
	}
	a.unstored = a.unstored[:0]
	for i := range batch {
		m := &batch[i]
		if !a.quorate.Load() {
			t.results[i].Err = syscall.EACCES
			done, failed = i+1, errNotQuorate
			break
		}
		if failed = a.applyMessage(t, m, &t.results[i], now); failed != nil {
			done, failed = i, fmt.Errorf("message %d from %v: %w", m.Subtype, m.From, failed)
			break
		}
	}
	var err error
	switch next := a.saver.next; {
	case t.changed && (t.now || t.conf || next.bytes > maxUnsaved || a.saver.delay == 0):
		err = a.saver.wait(next, nil, nil)
	case t.changed:
		a.saver.later(next)
		fallthrough
	default:
		a.saver.mu.Unlock()
	}
	if err != nil {
		for i, r := range t.results {
			if r.Value != nil {
				t.results[i] = dfsm.Result{Err: err}
			}
		}
		return dfsm.Applied{Done: done, Results: t.results, Err: errors.Join(err, failed)}
	}
	if t.conf && a.confChanged != nil {
		a.confChanged(t.confOwn)
	}
	return dfsm.Applied{Done: done, Results: t.results, Err: failed}
}

// applyMessage makes the change that a message asks for. An error says that the
// node can't go on.
func (a *app) applyMessage(t *transaction, m *dfsm.Message, result *dfsm.Result, now time.Time) error {
	switch kind := memdb.Kind(m.Subtype); kind {
	case memdb.OpWrite, memdb.OpMkdir, memdb.OpDelete, memdb.OpRename, memdb.OpCreate, memdb.OpMTime:
		op, err := decodeOp(kind, m.Payload)
		if err != nil {
			return err
		}
		op.Writer, op.Now = uint32(m.From.Node), now
		if kind != memdb.OpMTime {
			op.MTime = m.Time
		}
		res, err := a.tree.Apply(op)
		if err != nil {
			a.stats.Refused.Add(1)
			result.Err = err
			return nil
		}
		commit := a.record(t, op, res, m)
		if m.Own {
			ok := &success{change: res.Change(), delivered: t.begin}
			if kind == memdb.OpWrite && op.Offset > 0 && !op.Truncate {
				ok.commit = commit // one write of several: close waits for it
			} else {
				t.now = true
			}
			result.Value = ok
		}
	case msgUnlockRequest:
		path, digest, err := decodeUnlock(m.Payload)
		if err != nil {
			return err
		}
		a.unlockRequested(path, digest, now)
	case msgUnlock:
		path, digest, err := decodeUnlock(m.Payload)
		if err != nil {
			return err
		}
		op := &memdb.Op{Kind: memdb.OpDelete, Path: path, Writer: uint32(m.From.Node), MTime: m.Time, Now: now}
		if res, ok := a.tree.ReleaseLock(op, digest); ok {
			a.record(t, op, res, m)
			a.log.Info("an expired lock was broken", "path", path, event.LockBroken.Attr("by", m.From.String()))
		}
	default:
		return malformed("unknown type")
	}
	return nil
}

// record takes note of an operation that was applied, and returns the transaction that
// it is part of.
func (a *app) record(t *transaction, op *memdb.Op, res memdb.Result, m *dfsm.Message) *Commit {
	a.stats.Changes.Add(1)
	t.changed = true
	commit := a.saver.add(op, res.Changes, len(op.Data))
	commit.timed = append(commit.timed, arrival{op.Kind, t.begin})
	if c := a.calls.applied(op, res.Changes, m.Own, m.Subtype, m.Payload); c != nil {
		a.unstored = append(a.unstored, c)
	}
	var target string
	switch op.Kind {
	case memdb.OpWrite, memdb.OpCreate:
		target = op.Path
	case memdb.OpRename:
		target = op.To
	}
	if target == confPath {
		t.conf = true
		t.confOwn = t.confOwn || m.Own
	}
	return commit
}

// unlockRequested makes all nodes delete a lock that has expired here, if this is
// the node to do so.
func (a *app) unlockRequested(path string, digest memdb.Digest, now time.Time) {
	if len(a.members) == 0 || a.members[0] != a.self() {
		return
	}
	lock, ok := a.tree.ObserveLock(path, now)
	if !ok || lock.Digest != digest || !lock.Expired(now) {
		return
	}
	a.log.Log(context.Background(), event.LevelNotice, "a lock has expired", "lock", lock.Name, "since", lock.Since,
		event.LockExpired.Attr("path", path, "age", now.Sub(lock.Since)))
	a.post(msgUnlock, encodeUnlock(path, digest))
}

// Checksum implements dfsm.Application.
func (a *app) Checksum() func() ([wire.ChecksumSize]byte, error) {
	entries := a.tree.Entries()
	return func() ([wire.ChecksumSize]byte, error) { return memdb.Checksum(entries), nil }
}

// ViewChanged implements dfsm.Application.
func (a *app) ViewChanged(members []dfsm.Member) {
	a.parted.left(a.members, members, a.tree.Root().Version)
	a.members = members
}

// ModeChanged implements dfsm.Application.
func (a *app) ModeChanged(mode dfsm.Mode) {
	if mode.Final() {
		a.fatal.Store(true)
	}
}
