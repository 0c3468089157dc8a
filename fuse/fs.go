package fuse

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

// Store is the configuration database as the mount uses it.
type Store interface {
	// Tree returns the tree, for reading.
	Tree() *memdb.Tree
	// Quorate reports whether changes are allowed.
	Quorate() bool
	// Do carries out an operation and returns when it is stored.
	Do(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, error)
	// Write carries out an OpWrite. With wait it returns when that is stored; else
	// perhaps when it is in the tree, and the Commit, if there is one, tells when it
	// is stored. A Commit beside an error, too, means that it is in the tree.
	Write(cancel <-chan struct{}, op *memdb.Op, wait bool) (memdb.Change, *dcdb.Commit, error)
	// Writable returns why changes can't be stored at present. As long as all is well
	// it costs nothing.
	Writable(cancel <-chan struct{}) error
	// Sync returns when everything done before has reached the disk.
	Sync(cancel <-chan struct{}) error
}

// Special is a file in the root whose content is made when it is opened.
type Special struct {
	Name  string
	Mode  uint32             // permission bits, before those of its place are applied
	Read  func() []byte      // the content now; the caller does not change it
	Write func([]byte) error // nil means the file can't be written
}

// Link is a symbolic link in the root.
type Link struct {
	Name   string
	Target string
}

// Config is what a file system is made of.
type Config struct {
	Store    Store
	Specials []Special
	Links    []Link
	UID, GID uint32 // owner and group of everything
	Log      *slog.Logger
	Observer Observer // nil means requests are not timed

	// IgnoreChmod has chmod and chown to anything succeed, and the times of what has none
	// be set; they change nothing.
	IgnoreChmod bool

	// Mounted is called with the connection, the device's minor number, when the file
	// system is mounted and no request has been served yet. May be nil.
	Mounted func(connection uint32)
}

// cacheTime is how long the kernel may keep names, absences and attributes.
const cacheTime = time.Hour

// FS is the file system. It implements go-fuse's RawFileSystem, and
// dcdb.Observer by which it learns of changes.
type FS struct {
	gofuse.RawFileSystem
	store       Store
	tree        *memdb.Tree
	uid, gid    uint32
	log         *slog.Logger
	shared      bool
	ignoreChmod bool
	mounted     func(connection uint32)
	device      atomic.Uint32        // minor number; the major one of a FUSE file system is 0
	roots       map[string]*rootItem // special files and links by name
	byID        map[uint64]*rootItem

	kernelChecks bool // the kernel checks permissions: what tests compare with

	// generation tells the kernel that an inode number may stand for another
	// file than before: it goes up when changes were taken back.
	generation  atomic.Uint64
	notify      *notifier
	inFlight    *inFlight
	known       *known
	listings    *listings
	answering   func() // not nil, in tests: called when a listing is about to be answered
	recent      *recent
	twins       *twins
	turns       turns
	calls       systemCalls
	readersTime time.Duration // readersTime; tests wait longer

	mu      sync.Mutex
	handles map[uint64]*handle
	lastFh  uint64
	files   map[uint64]*openFile // files that are open, by inode
	shown   map[uint64]uint64    // by inode: the version that the kernel's pages show
}

// do carries out an operation and returns when it is stored.
func (fs *FS) do(cancel <-chan struct{}, op *memdb.Op) (memdb.Change, error) {
	change, err := fs.store.Do(cancel, op)
	if err != nil && (op.Kind != memdb.OpMTime || op.MTime != 0) { // a caller that wants another's lock is refused again and again
		fs.changeFailed(err)
	}
	return change, err
}

// sync returns when everything done before has reached the disk.
func (fs *FS) sync(cancel <-chan struct{}) error {
	err := fs.store.Sync(cancel)
	if err != nil {
		fs.changeFailed(err)
	}
	return err
}

func (fs *FS) changeFailed(err error) {
	if to := fs.inFlight.to; to != nil {
		to.ChangeFailed(err, fs.store.Quorate())
	}
}

// rootItem is a special file or a link.
type rootItem struct {
	id      uint64
	special *Special
	link    *Link
}

// New returns a file system that is not mounted yet.
func New(cfg Config) *FS {
	fs := &FS{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		store:         cfg.Store,
		uid:           cfg.UID,
		gid:           cfg.GID,
		log:           cfg.Log,
		ignoreChmod:   cfg.IgnoreChmod,
		mounted:       cfg.Mounted,
		roots:         make(map[string]*rootItem),
		byID:          make(map[uint64]*rootItem),
		handles:       make(map[uint64]*handle),
		files:         make(map[uint64]*openFile),
		shown:         make(map[uint64]uint64),
	}
	fs.inFlight = newInFlight(cfg.Observer, 16)
	fs.notify = newNotifier(cfg.Log)
	fs.recent = newRecent()
	fs.readersTime = readersTime
	fs.twins = newTwins()
	fs.turns.epoch = time.Now()
	fs.known = newKnown()
	fs.listings = newListings()
	if cfg.Store != nil {
		fs.tree = cfg.Store.Tree()
	}
	add := func(name string, item *rootItem) {
		item.id = itemIDs + uint64(len(fs.byID))
		fs.roots[name] = item
		fs.byID[item.id] = item
	}
	for _, s := range cfg.Specials {
		add(s.Name, &rootItem{special: &s})
	}
	for _, l := range cfg.Links {
		add(l.Name, &rootItem{link: &l})
	}
	return fs
}

// SetStore gives the file system its store, which may need the file system as
// its observer and so be made after it. It must be called before Mount.
func (fs *FS) SetStore(s Store) {
	fs.store = s
	fs.tree = s.Tree()
}

// Share says that others change the store, too: other nodes. It must be called
// before Mount.
func (fs *FS) Share() { fs.shared = true }

// String is the name that go-fuse uses for the file system.
func (fs *FS) String() string { return "pmxcfs" }

// A node id, by which the kernel names a file, is the entry's inode, but for three
// numbers that stand for something else already. What takes their place, and the ids
// of special files and links, lie among the numbers that no inode has:
// memdb.MaxVersion says why.
const (
	rootID      = gofuse.FUSE_ROOT_ID
	inodeOneID  = memdb.MaxVersion + 1 // of inode 1, whose number is the root's id
	inodeLastID = memdb.MaxVersion + 2 // of inode -1 (as the file has it), whose number go-fuse uses itself
	itemIDs     = 1 << 63              // of special files and links, from here on
)

func nodeID(inode uint64) uint64 {
	switch inode {
	case memdb.RootInode:
		return rootID
	case 1:
		return inodeOneID
	case math.MaxUint64:
		return inodeLastID
	}
	return inode
}

func inodeOf(id uint64) uint64 {
	switch id {
	case rootID:
		return memdb.RootInode
	case inodeOneID:
		return 1
	case inodeLastID:
		return math.MaxUint64
	}
	return id
}

// reserved returns the special file or link of that name, if dir is the root.
func (fs *FS) reserved(dir uint64, name string) *rootItem {
	if dir != rootID {
		return nil
	}
	return fs.roots[name]
}

// childPath returns the path of name in the directory dir.
func (fs *FS) childPath(dir uint64, name string) (string, gofuse.Status) {
	path, ok := fs.tree.Path(inodeOf(dir))
	if !ok {
		return "", statusESTALE
	}
	return memdb.Join(path, name), gofuse.OK
}

// Forget is told when the kernel drops a file, and the file's pages with it.
func (fs *FS) Forget(id, lookups uint64) {
	if !fs.known.forget(id, lookups) {
		return
	}
	fs.listings.forget(id)
	fs.mu.Lock()
	delete(fs.shown, id)
	fs.mu.Unlock()
}

// StatFs answers from counters that the tree keeps.
func (fs *FS) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	const block = 4096
	bytes, entries := fs.tree.Usage()
	out.Bsize, out.Frsize = block, block
	out.Blocks = memdb.MaxTreeBytes / block
	out.Bfree = out.Blocks - min(out.Blocks, uint64(bytes+block-1)/block)
	out.Bavail = out.Bfree
	out.Files = memdb.MaxEntries
	out.Ffree = out.Files - min(out.Files, uint64(entries))
	out.NameLen = memdb.MaxNameLen
	return gofuse.OK
}
