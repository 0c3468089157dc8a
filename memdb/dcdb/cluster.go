package dcdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/group/transport"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

// ClusterConfig configures the store of a node in a cluster.
type ClusterConfig struct {
	Config
	// Connect makes a connection for the group GroupName.
	Connect func() (transport.Conn, error)
	// Timeout is how long a change waits for its delivery; 0 means 10 s.
	Timeout time.Duration
	// ConfChanged, if not nil, is called after corosync.conf in the tree was
	// written, or may have been replaced by a synchronisation. Own tells that
	// the change was made on this node. It is called by the goroutine that
	// applies changes: it must not block or call the store.
	ConfChanged func(own bool)
	// KeepLost, if not nil, puts away files that a synchronisation is about to replace or drop
	// although the leader never had them, and returns where they are. It is called by
	// the goroutine that applies changes.
	KeepLost func([]Lost) (dir string, err error)
	// Latencies, if not nil, is told the durations of changes.
	Latencies LatencyObserver
	// Synced, if not nil, is told of the end of each sync; see group.Config.
	Synced func(reason group.SyncReason, took time.Duration)
	// Backoff is the least time between two attempts to connect or to join,
	// and to write to a database that failed; 0 means 5 s.
	Backoff time.Duration
	// Patience is how long after the start it is no trouble that corosync isn't there yet.
	Patience time.Duration
}

// LatencyObserver is told the durations of changes, by the kind of operation. Its methods are
// called by the goroutine that applies changes or by callers, and must be quick.
type LatencyObserver interface {
	// Delivered tells how long it took from a call of this node until its change
	// came back, to be applied.
	Delivered(kind memdb.Kind, took time.Duration)
	// Stored tells how long it took from then, or from the delivery of another node's
	// change, until the change was in the file.
	Stored(kind memdb.Kind, took time.Duration)
}

type noLatencies struct{}

func (noLatencies) Delivered(memdb.Kind, time.Duration) {}
func (noLatencies) Stored(memdb.Kind, time.Duration)    {}

const defaultTimeout = 10 * time.Second

// Cluster is the store of a node in a cluster. A change is a message to the
// group; it is done when it has come back, in its place in the group's one order
// of messages, and is in the file. Any number of calls may be in flight.
//
// The order of use: NewCluster, Run in a goroutine of its own, and at the end the
// end of Run's context, Run's return, Close. The other methods may be called from
// any goroutine from NewCluster to Close.
type Cluster struct {
	app       *app
	group     *group.Group
	timeout   time.Duration
	latencies LatencyObserver
}

// NewCluster returns a store that is not quorate and not connected. The database
// must hold what the tree does; it is Close that closes it.
func NewCluster(cfg ClusterConfig) (*Cluster, error) {
	cfg.complete()
	if cfg.Latencies == nil {
		cfg.Latencies = noLatencies{}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Cluster{timeout: cfg.Timeout, latencies: cfg.Latencies}
	c.app = &app{
		tree: cfg.Tree, db: newClocked(cfg.DB, cfg.Free), log: cfg.Log, clock: cfg.Clock,
		calls:       newCalls(cfg.Observer),
		self:        func() dfsm.Member { return c.group.Status().Self },
		reason:      func() group.SyncReason { return c.group.SyncReason() },
		post:        func(subtype uint16, payload []byte) { c.group.Post(subtype, payload) },
		failed:      func(err error) { c.group.Call(func() error { return err }) },
		confChanged: cfg.ConfChanged,
		latencies:   cfg.Latencies,
		recorder:    cfg.Recorder,
		keepLost:    cfg.KeepLost,
	}
	c.app.start()
	g, err := group.New(group.Config{
		Version: ProtocolVersion, Checksums: true,
		Key: postKey,
		App: c.app, Connect: cfg.Connect, Ready: c.app.ready, Synced: cfg.Synced, Backoff: cfg.Backoff, Patience: cfg.Patience, Logger: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	c.group = g
	cfg.Tree.ObserveLocks(cfg.Clock())
	return c, nil
}

// Run takes part in the group until ctx is done. It must be called once.
func (c *Cluster) Run(ctx context.Context) {
	var trim sync.WaitGroup
	defer trim.Wait()
	trim.Go(func() { trimTree(c.app.tree, ctx.Done()) })
	c.group.Run(ctx)
}

// Close stores the remaining changes and closes the database. A message that the group delivers
// after that, if Run has not returned, is not applied.
func (c *Cluster) Close() error {
	s := c.app.saver
	s.mu.Lock()
	c.app.closed = true
	s.mu.Unlock()
	return errors.Join(s.flush(nil), c.app.db.Close())
}

// Tree returns the tree, for reading.
func (c *Cluster) Tree() *memdb.Tree { return c.app.tree }

// SetQuorate sets the quorum service's last answer.
func (c *Cluster) SetQuorate(quorate bool) { c.app.quorate.Store(quorate) }

// Quorate returns the value of the last SetQuorate.
func (c *Cluster) Quorate() bool { return c.app.quorate.Load() }

// Do sends one operation and returns when it was applied here, in its place in
// the group's order, and is in the file. The writer is this node, and the time,
// unless the operation is to set one, that of the sending. Do returns what
// happened to the entry that the operation was about. Setting a lock's time to 0
// asks the group to break it, too.
//
// Errors are a *fs.PathError around an errno: the tree's; ENOSPC for a full tree
// or disk; EACCES without quorum or membership; EIO on a node that stays out of
// the group; ETIMEDOUT; or plain EINTR a second after cancel was closed. After
// EACCES, ENOSPC, EIO, ETIMEDOUT and EINTR the change may still be made by the
// group.
func (c *Cluster) Do(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, error) {
	done, err := c.do(cancel, op)
	if err == nil && done.commit != nil {
		if err = done.commit.Wait(cancel); err != nil && err != syscall.EINTR {
			err = wrap(op, err)
		}
	}
	if err != nil {
		return memdb.Change{}, err
	}
	return done.change, nil
}

// Write is Do for an OpWrite. Without wait, and unless the disk is short of room, a write
// at a non-zero offset returns once it is in the tree: the Commit tells when it is in the
// database, which takes writeDelay at most if nobody waits for it. Any other write is stored,
// and has no Commit, unless the error is EINTR and the data are in the tree: then the Commit
// tells whether they get into the file.
func (c *Cluster) Write(cancel <-chan struct{}, op *memdb.Op, wait bool) (memdb.Change, *Commit, error) {
	done, err := c.do(cancel, op)
	if err != nil {
		return memdb.Change{}, nil, err
	}
	if done.commit == nil || !wait && !c.app.db.short() {
		return done.change, done.commit, nil
	}
	switch err := done.commit.Wait(cancel); err {
	case nil:
		return done.change, nil, nil
	case syscall.EINTR:
		return done.change, done.commit, err
	default:
		return memdb.Change{}, nil, wrap(op, err)
	}
}

// Writable returns why changes can't be stored at present.
func (c *Cluster) Writable(<-chan struct{}) error {
	if err := c.app.health.err.Load(); err != nil {
		return *err
	}
	return nil
}

// do sends one operation and returns when it was applied here.
func (c *Cluster) do(cancel <-chan struct{}, op *memdb.Op) (success, error) {
	if err := c.refuse(op); err != nil {
		return success{}, err
	}
	if op.Kind == memdb.OpMTime && op.MTime == 0 {
		if lock, ok := c.app.tree.ObserveLock(op.Path, c.app.clock()); ok {
			c.group.Post(msgUnlockRequest, encodeUnlock(op.Path, lock.Digest))
		}
	}
	ok, err := c.submit(cancel, uint16(op.Kind), encodeOp(c.safe(op)))
	switch {
	case err == nil || err == syscall.EINTR:
		return ok, err
	case errors.Is(err, syscall.ETIMEDOUT):
		c.logTimeout(op)
	}
	if pe, yes := err.(*fs.PathError); yes && pe.Path == op.Path {
		return success{}, err
	}
	return success{}, wrap(op, err)
}

// Sync returns when everything done before has reached the disk.
func (c *Cluster) Sync(cancel <-chan struct{}) error {
	if err := c.app.saver.flush(cancel); err != nil {
		return err
	}
	return c.app.db.Sync()
}

// refuse says what is not to be sent: what this node may not do, or is refused
// whatever the state of the tree, and what a peer could not digest. Everything
// else is the group's order to decide; this node may not have seen yet what
// another one has finished.
func (c *Cluster) refuse(op *memdb.Op) error {
	switch {
	case c.app.fatal.Load():
		return wrap(op, syscall.EIO)
	case !c.Quorate():
		return wrap(op, syscall.EACCES)
	case !sendable(op.Path) || !sendable(op.To):
		return wrap(op, syscall.EINVAL)
	}
	err := c.app.tree.Check(op)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), // this node's limits
		errors.Is(err, syscall.ENAMETOOLONG),
		errors.Is(err, syscall.EFBIG),  // never fits
		errors.Is(err, syscall.EINVAL), // a directory into itself
		errors.Is(err, syscall.EIO),    // no version is left, or an inode is taken in a damaged tree
		// A peer drops the target of this rename although it refuses it.
		errors.Is(err, syscall.ENOTEMPTY) && op.Kind == memdb.OpRename:
		return err
	}
	return nil
}

// safe returns op as it is sent. For a truncation that grows an empty file a peer
// might keep no bytes: then zeros are written.
func (c *Cluster) safe(op *memdb.Op) *memdb.Op {
	if op.Kind != memdb.OpWrite || !op.Truncate || op.Offset == 0 {
		return op
	}
	if e, ok := c.app.tree.Lookup(op.Path); ok && e.Size() > 0 {
		return op
	}
	sent := *op
	sent.Data = append(make([]byte, op.Offset, int(op.Offset)+len(op.Data)), op.Data...)
	sent.Offset = 0
	return &sent
}

// submit sends a message and waits for its result.
func (c *Cluster) submit(cancel <-chan struct{}, subtype uint16, payload []byte) (success, error) {
	begin := time.Now()
	waiting := c.app.calls.begin(subtype, payload)
	r := c.await(cancel, c.group.Begin(subtype, payload))
	done, ok := r.Value.(*success)
	c.app.calls.end(waiting, ok)
	switch err := r.Err; {
	case ok:
		c.latencies.Delivered(memdb.Kind(subtype), done.delivered.Sub(begin))
		return *done, nil
	case errors.Is(err, group.ErrInterrupted):
		c.app.stats.Interrupts.Add(1)
		return success{}, syscall.EINTR
	case errors.Is(err, group.ErrTimeout):
		c.app.stats.Timeouts.Add(1)
		return success{}, fmt.Errorf("%w: %w", err, syscall.ETIMEDOUT)
	case errors.Is(err, dfsm.ErrDisconnected) && c.app.fatal.Load():
		return success{}, fmt.Errorf("%w: %w", err, syscall.EIO)
	case errors.Is(err, dfsm.ErrDisconnected):
		return success{}, fmt.Errorf("%w: %w", err, syscall.EACCES)
	}
	return success{}, r.Err // nil for a message without a change of the tree
}

// await waits for a submission's result, as long as it may take.
func (c *Cluster) await(cancel <-chan struct{}, s *group.Submission) dfsm.Result {
	late := time.NewTimer(c.timeout)
	defer late.Stop()
	select {
	case r := <-s.Done():
		return r
	case <-late.C:
		return s.GiveUp(context.DeadlineExceeded)
	case <-cancel:
	}
	grace := time.NewTimer(interruptGrace) // as the local store gives
	defer grace.Stop()
	select {
	case r := <-s.Done():
		return r
	case <-late.C:
		return s.GiveUp(context.DeadlineExceeded)
	case <-grace.C:
		return s.GiveUp(context.Canceled)
	}
}

// logTimeout logs the cause of a change's timeout.
func (c *Cluster) logTimeout(op *memdb.Op) {
	s := c.group.Status()
	c.app.log.Warn("a change was not delivered in time",
		"operation", op.Kind.String(), "path", op.Path, "after", c.timeout,
		"connected", s.Connected, "mode", s.Mode.String(), "members", dfsm.FormatMembers(s.Members),
		"synced", s.Synced, "waiting", s.Waiting, "unsent", s.Unsent, "queued", s.Queued,
		event.NotDelivered.Attr("epoch", s.Epoch.String()))
}
