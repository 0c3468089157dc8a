package dcdb

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

// Database stores changes: the part of sqlite.DB that a committer needs.
type Database interface {
	// Commit stores changes in one transaction, or nothing of them.
	Commit(changes []memdb.Change) error
	// Sync returns when everything committed has reached the disk.
	Sync() error
	// Close ends the use of the database.
	Close() error
}

const (
	// writeDelay is how long a change without a waiter may stay out of the
	// file. It leaves time for the transaction within the promised 100 ms.
	writeDelay = 50 * time.Millisecond

	// interruptGrace is how long an interrupted caller goes on waiting.
	interruptGrace = time.Second

	// maxUnsaved is how many bytes may have been written by callers that do not
	// wait, before one has to.
	maxUnsaved = 4 << 20
)

// Commit is the transaction that a change is part of.
type Commit struct {
	c     *committer
	delta memdb.Delta
	bytes int           // written by changes in it
	timed []arrival     // of the operations in it, if timings are told of them
	steps []memdb.Step  // the operations in it, if they are recorded
	done  chan struct{} // closed once err is final
	err   error
	lead  chan struct{} // one token: its receiver carries out the transaction
	timer *time.Timer   // nil while every change has a waiter

	waiters int // guarded by c.mu
}

// Wait returns when the change is in the file, with the transaction's error if
// it is not, or EINTR some time after cancel is closed; the change may then still
// be stored.
func (t *Commit) Wait(cancel <-chan struct{}) error {
	select {
	case <-t.done:
		return t.err
	default:
	}
	t.c.mu.Lock()
	return t.c.wait(t, cancel, nil)
}

// Failed returns the transaction's error, or nil if it has succeeded or is not
// over.
func (t *Commit) Failed() error {
	select {
	case <-t.done:
		return t.err
	default:
		return nil
	}
}

// committer gathers changes into transactions.
type committer struct {
	tree *memdb.Tree
	db   Database
	log  *slog.Logger

	// reverted gets the changes that a failed transaction has rolled back. It is called
	// with mu held and must not block.
	reverted func([]memdb.Change)

	delay     time.Duration   // before a change that nobody waits for is stored; negative means until somebody waits for another
	onFailure func(error)     // nil means nobody; called like reverted, after it
	latencies LatencyObserver // are told of operations that were stored
	recorder  Recorder        // is told of them, too; nil means there is none
	short     func() bool     // reports whether there is little room for the file; nil means there is enough

	mu      sync.Mutex // guards the fields below, and makes applying a change and joining a batch one step
	next    *Commit    // gathers changes
	running bool       // somebody carries out a transaction, or has been told to
	failing int        // transactions that failed since the last one that did not
	since   time.Time  // of the first of them

	failure atomic.Pointer[error] // of the last transaction; nil means it did not fail
}

// arrival is when an operation was delivered.
type arrival struct {
	kind memdb.Kind
	at   time.Time
}

func newCommitter(tree *memdb.Tree, db Database, log *slog.Logger, reverted func([]memdb.Change)) *committer {
	c := &committer{tree: tree, db: db, log: log, reverted: reverted, delay: writeDelay}
	c.next = c.newCommit()
	return c
}

func (c *committer) newCommit() *Commit {
	return &Commit{c: c, done: make(chan struct{}), lead: make(chan struct{}, 1)}
}

// add joins an operation's changes, which have just been applied, to the next transaction.
// Without an operation, none was carried out. mu is held.
func (c *committer) add(op *memdb.Op, changes []memdb.Change, bytes int) *Commit {
	c.next.delta.Add(changes)
	c.next.bytes += bytes
	if c.recorder != nil && op != nil {
		c.next.steps = append(c.next.steps, memdb.StepOf(op, changes))
	}
	return c.next
}

// later makes sure that t is committed soon, although it has no waiter. mu
// is held.
func (c *committer) later(t *Commit) {
	if t.timer == nil && c.delay >= 0 {
		t.timer = time.AfterFunc(c.delay, func() { t.Wait(nil) })
	}
}

// wait waits for t. mu is held, and released. If the caller gives up before t is over,
// left is called (nil means nothing), with mu held.
func (c *committer) wait(t *Commit, cancel <-chan struct{}, left func()) error {
	if t == c.next && !c.running {
		if t.delta.Len() == 0 {
			c.mu.Unlock()
			return nil
		}
		c.running = true
		c.take()
		c.mu.Unlock()
		c.run(t)
		return t.err
	}
	t.waiters++
	c.mu.Unlock()
	select {
	case <-t.done:
		return t.err
	case <-t.lead:
		c.lead(t)
		return t.err
	case <-cancel:
	}
	// Any signal that a process handles closes cancel, a child's end included. No
	// program expects EINTR of rename(2) or close(2): answer so only if the change
	// would else be late.
	grace := time.NewTimer(interruptGrace)
	defer grace.Stop()
	select {
	case <-t.done:
		return t.err
	case <-t.lead:
		c.lead(t)
		return t.err
	case <-grace.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.waiters--
	select {
	case <-t.done:
		return t.err
	case <-t.lead: // it was this waiter's turn
		go c.lead(t)
	default:
		if t.waiters == 0 && t == c.next {
			c.later(t)
		}
	}
	if left != nil {
		left()
	}
	return syscall.EINTR
}

// lead commits t as its leader. What was applied between
// the telling and now is part of it.
func (c *committer) lead(t *Commit) {
	c.mu.Lock()
	c.take()
	c.mu.Unlock()
	c.run(t)
}

// take ends the gathering for the next batch: its transaction is about to run.
// mu is held.
func (c *committer) take() {
	if c.next.timer != nil {
		c.next.timer.Stop()
	}
	c.next = c.newCommit()
}

// run carries out t's transaction, and sees to the one after it.
func (c *committer) run(t *Commit) {
	err := c.db.Commit(t.delta.Changes())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.revert(t, err)
	} else {
		if c.failing > 0 {
			c.log.Log(context.Background(), event.LevelNotice, "the database can be written again", "failed", c.failing, "since", c.since,
				event.DatabaseRecovered.Attr("failing", time.Since(c.since)))
			c.failing = 0
			c.failure.Store(nil)
		}
		now := time.Now()
		for _, a := range t.timed {
			c.latencies.Stored(a.kind, now.Sub(a.at))
		}
		if len(t.steps) > 0 {
			c.recorder.Stored(t.steps)
		}
		close(t.done)
	}
	if c.next.waiters > 0 {
		c.next.lead <- struct{}{}
		return
	}
	c.running = false
}

// revert rolls back t's changes and those made since, and reports them. mu
// is held.
func (c *committer) revert(t *Commit, err error) {
	c.failure.Store(&err)
	if c.failing++; c.failing == 1 {
		c.since = time.Now()
		logFailure(c.log, "storing a change failed; the tree goes back to what the file holds", t.delta.Len(), err)
	}
	later := c.next
	if later.timer != nil {
		later.timer.Stop()
	}
	c.next = c.newCommit()
	for _, b := range []*Commit{later, t} {
		if b.delta.Len() > 0 {
			c.tree.Revert(&b.delta)
			c.reverted(b.delta.Changes())
		}
		b.err = err
		close(b.done)
	}
	if c.onFailure != nil {
		c.onFailure(err)
	}
}

// well notes that the file can be written again, after a successful attempt.
func (c *committer) well() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = 0
	c.failure.Store(nil)
}

// flush waits until everything applied so far is in the file.
func (c *committer) flush(cancel <-chan struct{}) error {
	c.mu.Lock()
	// An empty batch behind a running transaction still has to wait for that.
	return c.wait(c.next, cancel, nil)
}

// probe finds out whether the file can be written, if the last transaction failed or
// there is little room: it stores the version row as it is.
func (c *committer) probe(cancel <-chan struct{}) error {
	c.mu.Lock()
	if !c.doubtful() {
		c.mu.Unlock()
		return nil
	}
	root := c.tree.Root()
	return c.wait(c.add(nil, []memdb.Change{{Inode: memdb.RootInode, Old: root, New: root}}, 0), cancel, nil)
}

// doubtful reports whether a change may well fail to be stored: then nobody may go
// on before it is. mu is held.
func (c *committer) doubtful() bool {
	return c.failing > 0 || c.short != nil && c.short()
}
