package fuse

import (
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
)

// notifier tells the kernel what to forget. A notification may wait for locks
// that a request being served holds, so it is only ever sent from the
// notifier's own goroutines, with no lock held.
//
// Forgetting a name takes its directory's lock, which is held by whoever makes or
// deletes something there, until we have answered. So names have lanes of their own,
// several: those that wait do so side by side, and hold up no inodes.
type notifier struct {
	log    *slog.Logger
	server *gofuse.Server
	seed   maphash.Seed
	inodes *lane
	names  [nameLanes]*lane

	pending atomic.Int64 // notices in the lanes, those being sent included
	answers [Invalidations]answers
}

// answers counts what the kernel said to notices of one kind.
type answers struct{ done, unknown, refused atomic.Uint64 }

const nameLanes = 4

type noticeKind uint8

const (
	noticeContent    noticeKind = iota // an inode's pages (or listing) and attributes
	noticeAttributes                   // an inode's attributes
	noticeName                         // a name in a directory
	noticeDeleted                      // a name that is gone for good, with its inode
)

type notice struct {
	kind  noticeKind
	id    uint64 // the inode, or the directory
	child uint64
	name  string
}

func newNotifier(log *slog.Logger) *notifier {
	n := &notifier{log: log, seed: maphash.MakeSeed()}
	n.inodes = newLane(&n.pending)
	for i := range n.names {
		n.names[i] = newLane(&n.pending)
	}
	return n
}

func (n *notifier) content(id uint64)    { n.inodes.add(notice{kind: noticeContent, id: id}) }
func (n *notifier) attributes(id uint64) { n.inodes.add(notice{kind: noticeAttributes, id: id}) }
func (n *notifier) name(dir uint64, name string) {
	n.lane(dir, name).add(notice{kind: noticeName, id: dir, name: name})
}
func (n *notifier) deleted(dir, child uint64, name string) {
	n.lane(dir, name).add(notice{kind: noticeDeleted, id: dir, child: child, name: name})
}

// lane returns the lane of a name: always the same, so what is said of a name stays
// in order.
func (n *notifier) lane(dir uint64, name string) *lane {
	return n.names[maphash.Comparable(n.seed, absence{dir, name})%nameLanes]
}

// start begins to send to a mounted server.
func (n *notifier) start(server *gofuse.Server) {
	n.server = server
	for _, l := range n.lanes() {
		go l.run(n.send)
	}
}

// stop drops the queued notices and waits for those being sent. The mount must be
// gone or going, so that this ends.
func (n *notifier) stop() {
	for _, l := range n.lanes() {
		l.close()
	}
	if n.server == nil {
		return
	}
	for _, l := range n.lanes() {
		<-l.done
	}
}

func (n *notifier) lanes() []*lane { return append(n.names[:], n.inodes) }

// lane is a queue of notices and the goroutine that sends them.
type lane struct {
	mu     sync.Mutex // guards what follows, up to closed
	wake   *sync.Cond
	queue  []notice
	queued map[notice]struct{} // those in the queue: a duplicate is dropped
	closed bool
	done   chan struct{}

	pending *atomic.Int64 // all lanes'
}

func newLane(pending *atomic.Int64) *lane {
	l := &lane{queued: make(map[notice]struct{}), done: make(chan struct{}), pending: pending}
	l.wake = sync.NewCond(&l.mu)
	return l
}

func (l *lane) add(x notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if _, ok := l.queued[x]; ok {
		return
	}
	l.queued[x] = struct{}{}
	l.queue = append(l.queue, x)
	l.pending.Add(1)
	l.wake.Signal()
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.pending.Add(-int64(len(l.queue)))
	l.queue = nil
	l.wake.Signal()
}

func (l *lane) run(send func(notice)) {
	defer close(l.done)
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.closed {
			l.wake.Wait()
		}
		if l.closed {
			l.mu.Unlock()
			return
		}
		batch := l.queue
		l.queue = nil
		clear(l.queued)
		l.mu.Unlock()
		for _, x := range batch {
			send(x)
			l.pending.Add(-1)
		}
	}
}

func (n *notifier) send(x notice) {
	var st gofuse.Status
	switch x.kind {
	case noticeContent:
		st = n.server.InodeNotify(x.id, 0, 0)
	case noticeAttributes:
		st = n.server.InodeNotify(x.id, -1, 0)
	case noticeName:
		st = n.server.EntryNotify(x.id, x.name)
	case noticeDeleted:
		st = n.server.DeleteNotify(x.id, x.child, x.name)
	}
	a := &n.answers[x.kind]
	switch st {
	case gofuse.OK:
		a.done.Add(1)
	case gofuse.ENOENT, gofuse.ENODEV, gofuse.ENOTDIR:
		a.unknown.Add(1)
	default:
		a.refused.Add(1)
		n.log.Debug("the kernel refused an invalidation", "kind", x.kind, "inode", x.id, "name", x.name, "status", st)
	}
}

// Applied learns of every change: what was deleted stays readable for those who
// have it open, and what did not come from this mount the kernel must forget.
func (fs *FS) Applied(_ *memdb.Op, changes []memdb.Change, foreign bool) {
	fs.recent.note(changes)
	fs.listings.note(changes)
	for _, c := range changes {
		if c.New == nil && c.Old != nil && !c.Old.IsDir() {
			fs.mu.Lock()
			if f := fs.files[c.Inode]; f != nil {
				f.orphan, f.private = c.Old, fs.privateEntry(c.Old)
			}
			fs.mu.Unlock()
		}
	}
	if foreign {
		fs.invalidate(changes)
	}
}

// Reset learns that changes were taken back.
func (fs *FS) Reset(changes []memdb.Change) {
	fs.generation.Add(1)
	fs.listings.note(changes)
	fs.mu.Lock()
	for _, c := range changes {
		delete(fs.shown, nodeID(c.Inode))
		f := fs.files[c.Inode]
		switch {
		case f == nil:
		case c.Old != nil:
			f.orphan = nil
		case c.New != nil:
			f.orphan, f.private = c.New, fs.privateEntry(c.New) // a new file that never was
		}
	}
	fs.mu.Unlock()
	fs.invalidate(changes)
}

// invalidate has the kernel forget both sides of each change, as far as it may
// have them.
func (fs *FS) invalidate(changes []memdb.Change) {
	for _, c := range changes {
		if c.Inode == memdb.RootInode {
			continue
		}
		id := nodeID(c.Inode)
		has := fs.known.has(id)
		if c.Old != nil && c.New != nil {
			if has {
				fs.notify.content(id)
			}
			if c.Old.Parent == c.New.Parent && c.Old.Name == c.New.Name {
				continue
			}
			if c.New.IsDir() {
				fs.renamed(c.Inode)
			}
		}
		for _, e := range []*memdb.Entry{c.Old, c.New} {
			if e == nil {
				continue
			}
			dir := nodeID(e.Parent)
			absent := fs.known.takeAbsent(dir, e.Name)
			switch {
			case !has && !absent:
			case c.New == nil:
				fs.notify.deleted(dir, id, e.Name)
			default:
				fs.notify.name(dir, e.Name)
			}
			if fs.known.has(dir) {
				fs.notify.content(dir) // its listing
			}
		}
	}
}

// QuorumChanged has the kernel forget all modes, which depend on the quorum.
func (fs *FS) QuorumChanged() {
	for _, id := range fs.known.all() {
		fs.notify.attributes(id)
	}
}
