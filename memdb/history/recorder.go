package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/internal/event"
	"pmxcfs/memdb"
)

// Config says what is recorded, and where.
type Config struct {
	Path string       // of the file
	Tree *memdb.Tree  // that changes
	Log  *slog.Logger // nil: no log

	// Size is how many bytes the file may hold, Age how old a change may be; see expire. 0: any.
	Size int64
	Age  time.Duration
	// Exclude are patterns, as of path.Match, of paths that are not recorded, nor is what lies below
	// them.
	Exclude []string
	// NodeName returns the name of a node of the cluster; empty: unknown.
	NodeName func(id uint32) string

	// Free returns the bytes of room on the disk; nil: there is enough. With little of it, nothing
	// is recorded: it is the database's.
	Free func() (uint64, error)

	Clock func() time.Time // nil: time.Now
	// Delay is how long a change may wait to be stored; 0: 5 s.
	Delay time.Duration
	// Retry is the time between attempts to use a file that failed; 0: 30 s.
	Retry time.Duration
}

const (
	defaultDelay = 5 * time.Second
	defaultRetry = 30 * time.Second

	reserve     = 32 << 20         // bytes of room that are the database's
	headDelay   = 30 * time.Second // before the version alone is stored, of changes that are not recorded
	maintenance = 10 * time.Minute // between two looks at what has grown old
)

// Recorder records the changes of a tree. It implements dcdb.Recorder.
type Recorder struct {
	cfg  Config
	file file // used by the goroutine

	mu       sync.Mutex // guards the fields below
	queue    queue      // what is to be stored
	storing  []*item    // what is being stored
	seq      int64      // the last one that was given to a change
	root     *memdb.Entry
	skip     bool    // root is that of a look at the tree: changes that are in it may still come
	broken   string  // why the order is broken: the tree is to be looked at; empty: it isn't
	lost     int64   // changes since then
	looked   *lookAt // is to be recorded before the queue
	moved    bool    // root is newer than the file says
	stored   int64   // the last change in the file
	fresh    chan struct{}
	begun    time.Time // since when something has waited to be stored; zero: nothing does
	trouble  error     // why nothing can be stored; nil: it can
	followed int       // how many wait for fresh
	timer    *time.Timer

	stats Stats

	wake chan struct{}
	asks chan request
	quit chan struct{}
	done chan struct{}
}

// Stats counts the work of a Recorder. Fields may be read at any time.
type Stats struct {
	Changes atomic.Int64 // in the file
	Bytes   atomic.Int64 // that the file takes
	Gaps    atomic.Int64 // in the file
	Oldest  atomic.Int64 // the time of the oldest change, in milliseconds since 1970; 0: none
	Newest  atomic.Int64 // that of the newest gap; 0: none
	Lost    atomic.Int64 // changes that were not recorded since the start
	Stored  atomic.Int64 // changes that were, since the start
}

// request is something that the goroutine is asked to do.
type request struct {
	do   func(*file) error
	done chan error
}

// Start begins to record the changes of a tree to which none is being made. It does not fail:
// what is wrong with the file is logged, and shown by Status.
func Start(cfg Config) *Recorder {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.NodeName == nil {
		cfg.NodeName = func(uint32) string { return "" }
	}
	if cfg.Delay == 0 {
		cfg.Delay = defaultDelay
	}
	if cfg.Retry == 0 {
		cfg.Retry = defaultRetry
	}
	r := &Recorder{
		cfg: cfg, fresh: make(chan struct{}), wake: make(chan struct{}, 1), asks: make(chan request),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	r.queue.paths = map[string]*recent{}
	r.file = file{path: cfg.Path, cfg: &r.cfg, stats: &r.stats}
	r.root = cfg.Tree.Root()
	r.timer = time.AfterFunc(time.Hour, r.awaken)
	r.timer.Stop()
	go r.run(r.begin())
	return r
}

// begin opens the file, and finds out whether it ends with the tree as it is.
func (r *Recorder) begin() error {
	err := r.file.open()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.broken = "the history could not be opened"
		return err
	}
	r.seq = max(r.seq, r.file.last)
	r.stored = r.seq
	switch {
	case r.file.empty():
		r.broken = reasonBegin
	case r.file.head != headOf(r.root):
		r.broken = "the daemon was killed, or ran without a history, or got another database"
	}
	if r.broken != "" {
		r.takeLook(false)
		r.awaken()
	}
	return nil
}

// reasonBegin is the reason of a first look at the tree, which is no gap.
const reasonBegin = "the history begins"

// awaken has the goroutine look at what there is to do.
func (r *Recorder) awaken() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Stored implements dcdb.Recorder.
func (r *Recorder) Stored(steps []memdb.Step) {
	at := r.cfg.Clock().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range steps {
		s := &steps[i]
		before, after := s.Roots()
		if !r.follows(before, after, 1) {
			continue
		}
		if item := itemOf(s, at); item == nil || r.cfg.excluded(item.path) && (item.kind != Rename || r.cfg.excluded(item.to)) {
			r.moves()
		} else {
			r.push(item)
		}
	}
}

// Synced implements dcdb.Recorder.
func (r *Recorder) Synced(leader uint32, before, after *memdb.Entry, list []memdb.Difference) {
	at := r.cfg.Clock().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.follows(before, after, int64(len(list))) {
		return
	}
	if len(list) == 0 {
		r.moves()
		return
	}
	size := 0
	for _, d := range list {
		size += changeCost
		if d.New != nil {
			size += d.New.Size()
		}
	}
	// However large it is: a queue without anything else in it takes a whole tree.
	if r.queue.bytes == 0 {
		size = min(size, queueBytes)
	}
	r.push(&item{at: at, root: after, sync: &catchUp{leader, before, after, list}, size: size})
}

// follows reports whether a change set is the next one to be recorded. If it is, root goes
// on to it. mu is held.
func (r *Recorder) follows(before, after *memdb.Entry, changes int64) bool {
	switch {
	case r.broken != "":
		r.lost += changes
		return false
	case before == r.root:
		r.root, r.skip = after, false
		return true
	case r.skip && after == r.root:
		r.skip = false // it is in what was looked at, and so are all before it
		return false
	case r.skip && after.Version < r.root.Version:
		return false
	}
	// Of what was looked at, something was taken back; or a change has come by another way.
	r.breakOff("the order of the changes was broken", changes)
	return false
}

// breakOff gives up the order. mu is held.
func (r *Recorder) breakOff(why string, changes int64) {
	r.broken, r.skip = why, false
	r.lost += changes
	r.awaken()
}

// moves notes that the tree has a new version by a change that is not recorded. mu is held.
func (r *Recorder) moves() {
	if !r.moved {
		r.moved = true
		if r.begun.IsZero() {
			r.timer.Reset(headDelay)
		}
	}
}

// push puts a change set into the queue. mu is held.
func (r *Recorder) push(i *item) {
	urgent, ok := r.queue.push(i, r.seq+1)
	if !ok {
		r.breakOff("changes came faster than they could be stored", i.rows())
		return
	}
	r.seq += i.rows()
	if r.begun.IsZero() {
		r.begun = time.UnixMilli(i.at)
		r.timer.Reset(r.cfg.Delay)
	}
	if urgent {
		r.awaken()
	}
	if r.followed > 0 {
		r.tell()
	}
}

// tell wakes those who follow. mu is held.
func (r *Recorder) tell() {
	close(r.fresh)
	r.fresh = make(chan struct{})
}

// unrecorded reports whether a clean path is a lock's, or that of a temporary file.
func unrecorded(path string) bool {
	return strings.HasPrefix(path, memdb.LockDir+"/") || temporary(path)
}

// temporary reports whether a path is one that Proxmox's tools write a file's new content to,
// before they rename it over the file: PATH.tmp.PID.
func temporary(path string) bool {
	i := strings.LastIndex(path, ".tmp.")
	if i < 1 || i+5 == len(path) {
		return false
	}
	for _, c := range path[i+5:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// excluded reports whether a path is not recorded by the configuration.
func (c *Config) excluded(p string) bool {
	if unrecorded(p) {
		return true
	}
	for len(c.Exclude) > 0 && p != "" {
		for _, pattern := range c.Exclude {
			if ok, _ := path.Match(pattern, p); ok {
				return true
			}
		}
		p, _ = memdb.Split(p)
	}
	return false
}

// run is the goroutine.
func (r *Recorder) run(err error) {
	defer close(r.done)
	look := time.NewTimer(time.Minute)
	defer look.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	for {
		if err != nil && r.fails(err) {
			retry.Reset(r.cfg.Retry)
		}
		err = nil
		select {
		case <-r.quit:
			r.finish()
			return
		case <-r.wake:
			if r.failing() {
				continue // its time comes with retry
			}
			err = r.store()
		case <-retry.C:
			err = r.again()
		case <-look.C:
			look.Reset(maintenance)
			if r.failing() {
				continue
			}
			err = r.file.maintain()
		case q := <-r.asks:
			if err = r.ready(); err == nil {
				err = q.do(&r.file)
				if q.done <- err; !damaged(err) { // a mistake of who asks is not the file's
					err = nil
				}
			} else {
				q.done <- err
			}
		}
	}
}

func (r *Recorder) failing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble != nil
}

// ready has everything stored that has been told so far.
func (r *Recorder) ready() error {
	r.mu.Lock()
	err := r.trouble
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.store()
}

// store stores what is queued, and looks at the tree if the order is broken.
func (r *Recorder) store() error {
	for {
		if err := r.look(); err != nil {
			return err
		}
		r.mu.Lock()
		if len(r.storing) == 0 {
			r.storing = r.queue.take()
		}
		batch, root := r.storing, r.root
		moved, broken := r.moved && r.queue.empty(), r.broken
		if moved {
			r.moved = false
		}
		r.mu.Unlock()
		if len(batch) > 0 || moved && broken == "" {
			head := root
			if !moved || broken != "" {
				head = batch[len(batch)-1].root
			}
			if err := r.file.store(batch, head); err != nil {
				if damaged(err) {
					return err
				}
				r.mu.Lock()
				r.moved = r.moved || moved
				r.mu.Unlock()
				return err
			}
		}
		r.mu.Lock()
		r.storing = nil
		if n := len(batch); n > 0 {
			r.stored = batch[n-1].seq + batch[n-1].rows() - 1
			r.stats.Stored.Add(int64(n))
			r.tell()
		}
		again := !r.queue.empty() && (r.broken != "" || r.queue.urgent())
		if r.queue.empty() {
			r.begun = time.Time{}
			r.timer.Stop()
			if r.moved {
				r.timer.Reset(headDelay)
			}
		} else {
			r.begun = time.UnixMilli(r.queue.items[0].at)
			r.timer.Reset(r.cfg.Delay)
		}
		broken = r.broken
		r.mu.Unlock()
		switch {
		case again:
		case broken != "":
			r.mu.Lock()
			r.takeLook(true)
			r.mu.Unlock()
		default:
			return r.file.fit()
		}
	}
}

// lookAt is a look at the tree that mends a broken order.
type lookAt struct {
	first, last int64 // the room for it in the order
	why         string
	lost        int64
	entries     []*memdb.Entry
}

// takeLook looks at the tree. Nothing is queued. Under way tells whether changes that are in the tree may
// not have been told yet. mu is held.
func (r *Recorder) takeLook(underWay bool) {
	l := &lookAt{first: r.seq + 1, why: r.broken, lost: r.lost, entries: r.cfg.Tree.Entries()}
	r.broken, r.lost = "", 0
	r.root, r.skip, r.moved = l.entries[0], underWay, false
	r.seq += 1 + r.file.paths + int64(len(l.entries))
	l.last = r.seq
	r.looked = l
}

// look records the difference between what was recorded last and what was looked at.
func (r *Recorder) look() error {
	r.mu.Lock()
	l := r.looked
	r.mu.Unlock()
	if l == nil {
		return nil
	}
	changes, err := r.file.find(l)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked = nil
	r.stored = l.last
	r.tell()
	if l.why != reasonBegin {
		r.stats.Lost.Add(l.lost)
		r.cfg.Log.Warn("changes are missing in the history: "+l.why, "path", r.cfg.Path, "changes", l.lost, "different_paths", changes, event.HistoryGap.Attr())
	}
	return nil
}

// fails takes in that the file could not be used, and reports whether to try again later.
func (r *Recorder) fails(err error) bool {
	r.mu.Lock()
	first := r.trouble == nil
	r.trouble = err
	r.mu.Unlock()
	switch {
	case damaged(err):
		r.setAside(err)
		return r.again() != nil
	case first:
		r.cfg.Log.Error("changes can't be recorded in the history; it is tried again", "path", r.cfg.Path, "error", err, event.HistoryFailed.Attr())
	}
	return true
}

// again opens the file anew and stores what has gathered.
func (r *Recorder) again() error {
	r.mu.Lock()
	err := r.trouble
	r.mu.Unlock()
	was := err
	r.file.close(false)
	if err = r.file.open(); err == nil {
		r.mu.Lock()
		r.seq = max(r.seq, r.file.last)
		if r.broken == "" && r.looked == nil && r.file.empty() {
			r.broken = "the file was lost"
		}
		r.mu.Unlock()
		err = r.store()
	}
	r.mu.Lock()
	r.trouble = err
	r.mu.Unlock()
	if err == nil && was != nil {
		r.cfg.Log.Info("changes are recorded in the history again", "path", r.cfg.Path, event.HistoryRecovered.Attr())
	}
	return err
}

// setAside moves a file away that can't be used, with all that belongs to it.
func (r *Recorder) setAside(why error) {
	r.file.close(false)
	to := fmt.Sprintf("%s.damaged-%s", r.cfg.Path, r.cfg.Clock().UTC().Format("20060102T150405Z"))
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(r.cfg.Path+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// What was queued is in the tree that the new file begins with.
	r.lost += int64(r.queue.len() + len(r.storing))
	r.queue.take()
	r.storing, r.moved = nil, false
	r.broken, r.skip, r.looked = "the history was damaged, and a new one was begun", false, nil
	r.stored = r.seq
	r.cfg.Log.Error("the history is damaged: it is set aside, and a new one is begun", "path", r.cfg.Path, "kept", to, "error", errors.Join(append([]error{why}, errs...)...), event.HistoryDamaged.Attr())
}

// finish stores what is left, and closes the file.
func (r *Recorder) finish() {
	r.mu.Lock()
	failing := r.trouble != nil
	if r.queue.len()+len(r.storing) == 0 && r.broken == "" && r.looked == nil && r.file.head != headOf(r.root) {
		r.moved = true
	}
	r.mu.Unlock()
	if !failing {
		if err := r.store(); err != nil {
			r.cfg.Log.Error("the last changes can't be recorded in the history", "path", r.cfg.Path, "error", err, event.HistoryFailed.Attr())
		}
	}
	r.file.close(true)
}

// Close stores what is left and ends the recording. No change may be told any more.
func (r *Recorder) Close() {
	close(r.quit)
	<-r.done
	r.timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell()
}

// ErrClosed means that the daemon is ending.
var ErrClosed = errors.New("the history is closed")

// ask has the goroutine do something, after everything told so far is stored.
func (r *Recorder) ask(ctx context.Context, do func(*file) error) error {
	q := request{do, make(chan error, 1)}
	select {
	case r.asks <- q:
	case <-r.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-q.done:
		return err
	case <-r.done:
		return ErrClosed
	}
}

// Flush returns when everything told so far is in the file.
func (r *Recorder) Flush(ctx context.Context) error {
	return r.ask(ctx, func(*file) error { return nil })
}

// Snapshot gives a name to the present state of the tree, which retention then keeps.
func (r *Recorder) Snapshot(ctx context.Context, name, note string) (s Snapshot, err error) {
	if err := ValidName(name); err != nil {
		return s, err
	}
	err = r.ask(ctx, func(f *file) error {
		s, err = f.snapshot(name, note)
		return err
	})
	return s, err
}

// DeleteSnapshot forgets a snapshot.
func (r *Recorder) DeleteSnapshot(ctx context.Context, name string) error {
	return r.ask(ctx, func(f *file) error { return f.deleteSnapshot(name) })
}

// Maintain takes away what is too old, and thins, as it is done every ten minutes.
func (r *Recorder) Maintain(ctx context.Context) error { return r.ask(ctx, (*file).maintain) }

// Status is the state of a Recorder.
type Status struct {
	Path    string    `json:"path"`
	Error   string    `json:"error,omitempty"` // why changes can't be recorded; empty: they are
	Changes int64     `json:"changes"`
	Bytes   int64     `json:"bytes"`
	Limit   int64     `json:"limit_bytes"` // 0: none
	Oldest  time.Time `json:"oldest,omitzero"`
	Gaps    int64     `json:"gaps"`
	LastGap time.Time `json:"last_gap,omitzero"`
	Lost    int64     `json:"lost"`        // changes that were not recorded since the daemon's start
	Waiting int       `json:"waiting"`     // change sets that are not in the file yet
	Lag     float64   `json:"lag_seconds"` // how long the oldest of them has waited
}

// Status returns it; it waits for no I/O.
func (r *Recorder) Status() Status {
	s := Status{
		Path: r.cfg.Path, Limit: r.cfg.Size,
		Changes: r.stats.Changes.Load(), Bytes: r.stats.Bytes.Load(), Gaps: r.stats.Gaps.Load(), Lost: r.stats.Lost.Load(),
	}
	if ms := r.stats.Oldest.Load(); ms != 0 {
		s.Oldest = time.UnixMilli(ms)
	}
	if ms := r.stats.Newest.Load(); ms != 0 {
		s.LastGap = time.UnixMilli(ms)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trouble != nil {
		s.Error = r.trouble.Error()
	}
	s.Lost += r.lost
	s.Waiting = r.queue.len() + len(r.storing)
	if !r.begun.IsZero() {
		s.Lag = max(0, r.cfg.Clock().Sub(r.begun).Seconds())
	}
	return s
}

// hold takes the lock that keeps a second daemon from recording into the file. Closing it
// takes SQLite's locks away, too: it is the last that is closed.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}
