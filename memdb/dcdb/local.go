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

// Config is what a store is made of.
type Config struct {
	Tree     *memdb.Tree
	DB       Database
	Log      *slog.Logger
	Clock    func() time.Time // nil: time.Now
	Observer Observer         // nil: none
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

// trimInterval is how often spare room in files is looked for.
const trimInterval = 2 * time.Second

// NewLocal returns a store. Close must be called; it closes the database.
func NewLocal(cfg Config) *Local {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	l := &Local{tree: cfg.Tree, clock: cfg.Clock, obs: cfg.Observer, db: newClocked(cfg.DB), quit: make(chan struct{})}
	l.c = newCommitter(cfg.Tree, l.db, cfg.Log, cfg.Observer.Reset)
	l.tree.Locks(l.clock())
	l.done.Add(1)
	go l.trim()
	return l
}

type nobody struct{}

func (nobody) Applied(*memdb.Op, []memdb.Change, bool) {}
func (nobody) Reset([]memdb.Change)                    {}

func (l *Local) trim() {
	defer l.done.Done()
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-tick.C:
			l.tree.Trim()
		}
	}
}

// Tree returns the tree, for reading.
func (l *Local) Tree() *memdb.Tree { return l.tree }

// Quorate reports true: without a cluster there is nobody to ask.
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
// transaction's, or EINTR a second after cancel was closed.
func (l *Local) Do(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, error) {
	l.c.mu.Lock()
	change, t, err := l.apply(op)
	if err != nil {
		l.c.mu.Unlock()
		return memdb.Change{}, err
	}
	if err := l.c.wait(t, cancel); err != nil {
		return memdb.Change{}, wrap(op, err)
	}
	return change, nil
}

// Write carries out an OpWrite and returns when it is in the tree. It is in the
// file when the Commit says so, or a tenth of a second later.
func (l *Local) Write(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, *Commit, error) {
	l.c.mu.Lock()
	change, t, err := l.apply(op)
	if err != nil {
		l.c.mu.Unlock()
		return memdb.Change{}, nil, err
	}
	if t.bytes <= maxUnsaved {
		l.c.later(t)
		l.c.mu.Unlock()
		return change, t, nil
	}
	if err := l.c.wait(t, cancel); err != nil {
		return memdb.Change{}, nil, wrap(op, err)
	}
	return change, t, nil
}

// Sync returns when everything applied before has reached the disk.
func (l *Local) Sync(cancel <-chan struct{}) error {
	if err := l.c.flush(cancel); err != nil {
		return err
	}
	return l.db.Sync()
}

// Close stores what is not stored yet and closes the database. No other method
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

// apply applies op and joins it to the next transaction. The committer's lock
// is held.
func (l *Local) apply(op *memdb.Op) (memdb.Change, *Commit, error) {
	if err := l.tree.Room(op); err != nil {
		return memdb.Change{}, nil, err
	}
	op.Writer = 0
	op.Now = l.clock()
	if op.Kind != memdb.OpMTime {
		op.MTime = uint32(op.Now.Unix())
	}
	res, broke := l.breakLock(op)
	if !broke {
		var err error
		if res, err = l.tree.Apply(op); err != nil {
			return memdb.Change{}, nil, err
		}
		l.obs.Applied(op, res.Changes, false)
	}
	return res.Change(), l.c.add(res.Changes, len(op.Data)), nil
}

// breakLock deletes an expired lock, if setting its time to zero asks for that.
func (l *Local) breakLock(op *memdb.Op) (memdb.Result, bool) {
	if op.Kind != memdb.OpMTime || op.MTime != 0 {
		return memdb.Result{}, false
	}
	lock, ok := l.tree.Lock(op.Path, op.Now)
	if !ok || !lock.Expired(op.Now) {
		return memdb.Result{}, false
	}
	del := &memdb.Op{Kind: memdb.OpDelete, Path: op.Path, MTime: uint32(op.Now.Unix()), Now: op.Now}
	res, ok := l.tree.Unlock(del, lock.Digest)
	if !ok {
		return memdb.Result{}, false
	}
	l.c.log.Log(context.Background(), event.LevelNotice, "a lock has expired", "lock", lock.Name, "since", lock.Since,
		event.LockExpired.Attr("path", memdb.CleanPath(op.Path), "age", op.Now.Sub(lock.Since)))
	l.c.log.Info("an expired lock was broken", "path", memdb.CleanPath(op.Path), event.LockBroken.Attr())
	// The kernel asked for a new time, not for a name to go.
	l.obs.Applied(del, res.Changes, true)
	return res, true
}

// wrap says which operation an error of its transaction ended.
func wrap(op *memdb.Op, err error) error {
	if err == syscall.EINTR {
		return err
	}
	return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}
}
