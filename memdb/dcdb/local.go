package dcdb

import (
	"io/fs"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"pmxcfs/memdb"
)

// Observer is told of changes to the tree. Its methods are called in the order
// of the changes, with locks held: they must not block or call the store.
type Observer interface {
	// Applied is called after an operation was applied.
	Applied(op *memdb.Op)
	// Reset is called after changes were taken back: anything may differ.
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
	db    Database

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
	l := &Local{tree: cfg.Tree, clock: cfg.Clock, obs: cfg.Observer, db: cfg.DB, quit: make(chan struct{})}
	l.c = newCommitter(cfg.Tree, cfg.DB, cfg.Log, cfg.Observer.Reset)
	l.tree.Locks(l.clock())
	l.done.Add(1)
	go l.trim()
	return l
}

type nobody struct{}

func (nobody) Applied(*memdb.Op)    {}
func (nobody) Reset([]memdb.Change) {}

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

// Do carries out one operation and returns when it is in the file. The store
// sets its writer and, unless it is the one to set a time, its time. Do returns
// the entry as the operation left it, nil after a delete. Errors are a
// *fs.PathError from the tree, one around ENOSPC for a full tree, the
// transaction's, or EINTR when cancel was closed first.
func (l *Local) Do(cancel <-chan struct{}, op *memdb.Op) (*memdb.Entry, error) {
	l.c.mu.Lock()
	e, t, err := l.apply(op)
	if err != nil {
		l.c.mu.Unlock()
		return nil, err
	}
	if err := l.c.wait(t, cancel); err != nil {
		return nil, wrap(op, err)
	}
	return e, nil
}

// Write carries out an OpWrite and returns when it is in the tree. It is in the
// file when the Commit says so, or a tenth of a second later.
func (l *Local) Write(cancel <-chan struct{}, op *memdb.Op) (*memdb.Entry, *Commit, error) {
	l.c.mu.Lock()
	e, t, err := l.apply(op)
	if err != nil {
		l.c.mu.Unlock()
		return nil, nil, err
	}
	if t.bytes <= maxUnsaved {
		l.c.later(t)
		l.c.mu.Unlock()
		return e, t, nil
	}
	if err := l.c.wait(t, cancel); err != nil {
		return nil, nil, wrap(op, err)
	}
	return e, t, nil
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
func (l *Local) apply(op *memdb.Op) (*memdb.Entry, *Commit, error) {
	if err := l.tree.Room(op); err != nil {
		return nil, nil, err
	}
	op.Writer = 0
	op.Now = l.clock()
	if op.Kind != memdb.OpMTime {
		op.MTime = uint32(op.Now.Unix())
	} else if op.MTime == 0 {
		if e, t, ok := l.breakLock(op); ok {
			return e, t, nil
		}
	}
	res, err := l.tree.Apply(op)
	if err != nil {
		return nil, nil, err
	}
	l.obs.Applied(op)
	return res.Entry(), l.c.add(res.Changes, len(op.Data)), nil
}

// breakLock deletes an expired lock, which is what setting its time to zero
// asks for.
func (l *Local) breakLock(op *memdb.Op) (*memdb.Entry, *Commit, bool) {
	lock, ok := l.tree.Lock(op.Path, op.Now)
	if !ok || !lock.Expired(op.Now) {
		return nil, nil, false
	}
	del := &memdb.Op{Kind: memdb.OpDelete, Path: op.Path, MTime: uint32(op.Now.Unix()), Now: op.Now}
	res, ok := l.tree.Unlock(del, lock.Digest)
	if !ok {
		return nil, nil, false
	}
	l.obs.Applied(del)
	return lock.Entry, l.c.add(res.Changes, 0), true
}

// wrap says which operation an error of its transaction ended.
func wrap(op *memdb.Op, err error) error {
	if err == syscall.EINTR {
		return err
	}
	return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}
}
