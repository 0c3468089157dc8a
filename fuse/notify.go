package fuse

import (
	"log/slog"
	"sync"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
)

// notifier tells the kernel what to forget. A notification may wait for locks
// that a request being served holds, so it is only ever sent from the
// notifier's own goroutine, with no lock held.
type notifier struct {
	log *slog.Logger

	mu     sync.Mutex
	wake   *sync.Cond
	queue  []notice
	queued map[notice]struct{} // what is in the queue: a second one of the same is dropped
	server *gofuse.Server
	closed bool
	done   chan struct{}
}

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
	n := &notifier{log: log, queued: make(map[notice]struct{}), done: make(chan struct{})}
	n.wake = sync.NewCond(&n.mu)
	return n
}

func (n *notifier) content(id uint64)    { n.add(notice{kind: noticeContent, id: id}) }
func (n *notifier) attributes(id uint64) { n.add(notice{kind: noticeAttributes, id: id}) }
func (n *notifier) name(dir uint64, name string) {
	n.add(notice{kind: noticeName, id: dir, name: name})
}
func (n *notifier) deleted(dir, child uint64, name string) {
	n.add(notice{kind: noticeDeleted, id: dir, child: child, name: name})
}

func (n *notifier) add(x notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	if _, ok := n.queued[x]; ok {
		return
	}
	n.queued[x] = struct{}{}
	n.queue = append(n.queue, x)
	n.wake.Signal()
}

// start begins to send to a mounted server.
func (n *notifier) start(server *gofuse.Server) {
	n.server = server
	go n.run()
}

// stop drops what is queued and waits for the one being sent. The mount must be
// gone or going, so that this one ends.
func (n *notifier) stop() {
	n.mu.Lock()
	n.closed = true
	n.queue = nil
	n.wake.Signal()
	n.mu.Unlock()
	if n.server != nil {
		<-n.done
	}
}

func (n *notifier) run() {
	defer close(n.done)
	for {
		n.mu.Lock()
		for len(n.queue) == 0 && !n.closed {
			n.wake.Wait()
		}
		if n.closed {
			n.mu.Unlock()
			return
		}
		batch := n.queue
		n.queue = nil
		clear(n.queued)
		n.mu.Unlock()
		for _, x := range batch {
			n.send(x)
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
	switch st {
	case gofuse.OK, gofuse.ENOENT, gofuse.ENODEV, gofuse.ENOTDIR:
		// ENOENT: the kernel did not know it.
	default:
		n.log.Debug("the kernel refused an invalidation", "kind", x.kind, "inode", x.id, "name", x.name, "status", st)
	}
}

// Applied learns of every change: what was deleted stays readable for those who
// have it open, and what did not come from this mount the kernel must forget.
func (fs *FS) Applied(_ *memdb.Op, changes []memdb.Change, foreign bool) {
	fs.recent.note(changes)
	for _, c := range changes {
		if c.New == nil && c.Old != nil && !c.Old.IsDir() {
			fs.mu.Lock()
			if f := fs.files[c.Inode]; f != nil {
				f.orphan = c.Old
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
	fs.mu.Lock()
	for _, c := range changes {
		delete(fs.shown, nodeID(c.Inode))
		f := fs.files[c.Inode]
		switch {
		case f == nil:
		case c.Old != nil:
			f.orphan = nil
		case c.New != nil:
			f.orphan = c.New // a new file that never was
		}
	}
	fs.mu.Unlock()
	fs.invalidate(changes)
}

// invalidate has the kernel forget both sides of each change.
func (fs *FS) invalidate(changes []memdb.Change) {
	for _, c := range changes {
		if c.Inode == memdb.RootInode {
			continue
		}
		if c.Old != nil && c.New != nil {
			fs.notify.content(nodeID(c.Inode))
			if c.Old.Parent == c.New.Parent && c.Old.Name == c.New.Name {
				continue
			}
		}
		for _, e := range []*memdb.Entry{c.Old, c.New} {
			if e == nil {
				continue
			}
			if c.New == nil {
				fs.notify.deleted(nodeID(e.Parent), nodeID(e.Inode), e.Name)
			} else {
				fs.notify.name(nodeID(e.Parent), e.Name)
			}
			fs.notify.content(nodeID(e.Parent)) // its listing
		}
	}
}

// QuorumChanged has the kernel forget all modes, which depend on the quorum.
func (fs *FS) QuorumChanged() {
	for _, e := range fs.tree.Entries() {
		fs.notify.attributes(nodeID(e.Inode))
	}
	for id := range fs.byID {
		fs.notify.attributes(id)
	}
}
