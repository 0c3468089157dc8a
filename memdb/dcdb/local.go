package dcdb

import (
	"context"
	"io/fs"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

// Observer is told of changes to the tree. Its methods are called in the order
// of the changes, with locks held: they must not block or call the store.
type Observer interface {
	// Applied is called after an operation was applied. Foreign tells that it
	// did not come through this node's own mount.
	Applied(op *memdb.Op, changes []memdb.Change, foreign bool)
	// Reset is called after changes were taken back: anything may differ. After
	// a synchronisation has replaced the tree, it is called as if what leads
	// from the new tree to the old one had been taken back.
	Reset(changes []memdb.Change)
}

// Config configures a store.
type Config struct {
	Tree     *memdb.Tree
	DB       Database
	Log      *slog.Logger           // nil means nowhere
	Clock    func() time.Time       // nil means time.Now
	Observer Observer               // nil means none
	Free     func() (uint64, error) // bytes of room for the database; nil means there is enough
	Recorder Recorder               // nil means none
}

// Recorder is told of each change exactly once, in the order of the changes, when it is
// stored; of one that was taken back it never hears. Its methods are called with locks
// held: they must not block or call the store. What they get is theirs.
type Recorder interface {
	// Stored is called after a transaction, before its callers hear of it.
	Stored(steps []memdb.Step)
	// Synced is called after a synchronisation has replaced the tree by the leader's:
	// before and after are the trees' roots.
	Synced(leader uint32, before, after *memdb.Entry, list []memdb.Difference)
}

// complete fills in the defaults.
func (c *Config) complete() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
}

// Local is the store of a node without a cluster: always quorate, writer 0.
type Local struct {
	tree  *memdb.Tree
	clock func() time.Time
	obs   Observer
	c     *committer
	db    *clocked

	quit chan struct{}
	done sync.WaitGroup
}

// trimInterval is how often spare room in files is looked for, trimIdle how often while
// there is none: an idle daemon shall not be woken often.
const (
	trimInterval = 2 * time.Second
	trimIdle     = 30 * time.Second
)

// NewLocal returns a store. Close must be called; it closes the database.
func NewLocal(cfg Config) *Local {
	cfg.complete()
	l := &Local{tree: cfg.Tree, clock: cfg.Clock, obs: cfg.Observer, db: newClocked(cfg.DB, cfg.Free), quit: make(chan struct{})}
	l.c = newCommitter(cfg.Tree, l.db, cfg.Log, cfg.Observer.Reset)
	l.c.short, l.c.recorder = l.db.short, cfg.Recorder
	l.tree.ObserveLocks(l.clock())
	l.done.Add(1)
	go l.trim()
	return l
}

type nobody struct{}

func (nobody) Applied(*memdb.Op, []memdb.Change, bool) {}
func (nobody) Reset([]memdb.Change)                    {}

func (l *Local) trim() {
	defer l.done.Done()
	trimTree(l.tree, l.quit)
}

// trimTree gives back spare room until quit is closed.
func trimTree(tree *memdb.Tree, quit <-chan struct{}) {
	timer := time.NewTimer(trimInterval)
	defer timer.Stop()
	for {
		select {
		case <-quit:
			return
		case <-timer.C:
		}
		next := trimIdle
		if tree.Trim() {
			next = trimInterval
		}
		timer.Reset(next)
	}
}

// Tree returns the tree, for reading.
func (l *Local) Tree() *memdb.Tree { return l.tree }

// Quorate returns true: a node without a cluster needs no quorum.
func (l *Local) Quorate() bool { return true }

// Failing returns the error of the last transaction, or nil if it did not fail.
func (l *Local) Failing() error {
	if err := l.c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Do carries out one operation and returns when it is in the file. The store
// sets its writer and, unless it is the one to set a time, its time. Do returns
// what happened to the entry that the operation was about. Errors are a
// *fs.PathError from the tree, one around ENOSPC for a full tree, the
// transaction's, or EINTR a second after cancel was closed: then the change has been
// made, and may still be stored.
func (l *Local) Do(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, error) {
	l.c.mu.Lock()
	a, err := l.apply(op)
	if err != nil {
		l.c.mu.Unlock()
		return memdb.Change{}, err
	}
	if err := l.wait(cancel, op, a); err != nil {
		return memdb.Change{}, err
	}
	return a.change, nil
}

// Write carries out an OpWrite. With wait it returns when that is in the file, as Do
// does; there is no Commit then, unless the error is EINTR: the data are in the tree,
// and the Commit tells whether they get into the file.
//
// Without wait it returns once the data are in the tree; the Commit tells when they are in the
// file, which takes writeDelay at most if nobody waits for it. It waits nevertheless, as if asked to,
// if the last transaction failed, there is little room on the disk, or much is
// not stored yet.
func (l *Local) Write(cancel <-chan struct{}, op *memdb.Op, wait bool) (memdb.Change, *Commit, error) {
	l.c.mu.Lock()
	a, err := l.apply(op)
	if err != nil {
		l.c.mu.Unlock()
		return memdb.Change{}, nil, err
	}
	if !wait && a.commit.bytes <= maxUnsaved && !l.c.doubtful() {
		l.c.later(a.commit)
		l.c.mu.Unlock()
		return a.change, a.commit, nil
	}
	switch err := l.wait(cancel, op, a); err {
	case nil:
		return a.change, nil, nil
	case syscall.EINTR:
		return a.change, a.commit, err
	default:
		return memdb.Change{}, nil, err
	}
}

// wait waits until the applied changes are stored. The committer's lock is held, and released.
func (l *Local) wait(cancel <-chan struct{}, op *memdb.Op, a applied) error {
	err := l.c.wait(a.commit, cancel, func() {
		if len(a.untold) > 0 { // the answer does not tell the kernel of it
			l.obs.Applied(op, a.untold, true)
		}
	})
	if err != nil {
		return wrap(op, err)
	}
	return nil
}

// Writable returns why changes can't be stored at present. It costs something only if the
// last transaction failed, or there is little room on the disk: then it tries, unless that
// would tell nothing, for there is still no room.
func (l *Local) Writable(cancel <-chan struct{}) error {
	if err := l.Failing(); err != nil && l.db.full() {
		return err
	}
	return l.c.probe(cancel)
}

// Sync returns when everything applied before has reached the disk.
func (l *Local) Sync(cancel <-chan struct{}) error {
	if err := l.c.flush(cancel); err != nil {
		return err
	}
	return l.db.Sync()
}

// Close stores the remaining changes and closes the database. No other method
// may be called any more.
func (l *Local) Close() error {
	close(l.quit)
	l.done.Wait()
	err := l.c.flush(nil)
	if cerr := l.db.Close(); err == nil {
		err = cerr
	}
	return err
}

// applied is an operation that has become part of a transaction.
type applied struct {
	change memdb.Change
	untold []memdb.Change // of which the operation's answer tells the kernel
	commit *Commit
}

// apply applies op and joins it to the next transaction. The committer's lock
// is held.
func (l *Local) apply(op *memdb.Op) (applied, error) {
	op.Writer = 0
	op.Now = l.clock()
	if op.Kind != memdb.OpMTime {
		op.MTime = uint32(op.Now.Unix())
	}
	if del, res, broke := l.breakLock(op); broke {
		return applied{change: res.Change(), commit: l.c.add(del, res.Changes, 0)}, nil
	}
	res, err := l.tree.ApplyWithin(op)
	if err != nil {
		return applied{}, err
	}
	l.obs.Applied(op, res.Changes, false)
	return applied{res.Change(), res.Changes, l.c.add(op, res.Changes, len(op.Data))}, nil
}

// breakLock deletes an expired lock, if setting its time to zero asks for that, and
// returns the operation that did it.
func (l *Local) breakLock(op *memdb.Op) (*memdb.Op, memdb.Result, bool) {
	if op.Kind != memdb.OpMTime || op.MTime != 0 {
		return nil, memdb.Result{}, false
	}
	lock, ok := l.tree.ObserveLock(op.Path, op.Now)
	if !ok || !lock.Expired(op.Now) {
		return nil, memdb.Result{}, false
	}
	del := &memdb.Op{Kind: memdb.OpDelete, Path: op.Path, MTime: uint32(op.Now.Unix()), Now: op.Now}
	res, ok := l.tree.ReleaseLock(del, lock.Digest)
	if !ok {
		return nil, memdb.Result{}, false
	}
	l.c.log.Log(context.Background(), event.LevelNotice, "a lock has expired", "lock", lock.Name, "since", lock.Since,
		event.LockExpired.Attr("path", op.Path, "age", op.Now.Sub(lock.Since)))
	l.c.log.Info("an expired lock was broken", "path", op.Path, event.LockBroken.Attr())
	// The kernel asked for a new time, not for a name to go.
	l.obs.Applied(del, res.Changes, true)
	return del, res, true
}

// wrap says which operation an error of its transaction ended.
func wrap(op *memdb.Op, err error) error {
	if err == syscall.EINTR {
		return err
	}
	return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}
}
