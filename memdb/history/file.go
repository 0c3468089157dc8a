package history

import (
	"bytes"
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
	"weak"

	"github.com/klauspost/compress/zstd"

	"pmxcfs/internal/event"
	"pmxcfs/internal/sqlitedb"
	"pmxcfs/memdb"
)

// file is the history's file, open to be written to by one goroutine.
type file struct {
	path  string
	cfg   *Config
	stats *Stats
	lock  *os.File

	c       conn
	packer  *zstd.Encoder
	inserts struct{ path, node, content, change, catchUp, gap, meta *sqlitedb.Stmt }
	finds   struct{ path, node, content, last *sqlitedb.Stmt }
	remove  *sqlitedb.Stmt // a change
	sink    *collector     // not nil: gets the changes instead of the file

	last  int64 // seq
	paths int64 // at most
	head  head  // of the tree that the file ends with

	pathIDs    map[string]int64
	contentIDs map[memdb.Digest]int64
	nodeIDs    map[uint32]int64
	latest     map[int64]latest // by path
	packed     []byte
	changed    bool // since the last maintain
}

// head says which state of the tree it is.
type head struct {
	version       uint64
	writer, mtime uint32
}

func headOf(root *memdb.Entry) head { return head{root.Version, root.Writer, root.MTime} }

// latest is the content of a path after its last change: where it is in memory, as long as the tree
// has it, and in the file.
type latest struct {
	data    weak.Pointer[byte]
	size    int // what is appended in place begins at the same byte
	content int64
}

// How content is packed.
const (
	packPlain = 0
	packZstd  = 1
)

// cached bounds each of the caches of ids.
const cached = 1 << 13

// open opens the file, and makes one if there is none.
func (f *file) open() (err error) {
	if err := f.room(); err != nil {
		return fmt.Errorf("opening the history %s: %w", f.path, err)
	}
	if err := f.protect(); err != nil {
		return err
	}
	if f.lock, err = hold(f.path); err != nil {
		return fmt.Errorf("opening the history %s: %w", f.path, err)
	}
	if err = f.load(); err != nil {
		f.close(false)
		return fmt.Errorf("opening the history %s: %w", f.path, err)
	}
	return nil
}

// room reports whether there is room on the disk beyond what is the database's.
func (f *file) room() error {
	if f.cfg.Free == nil {
		return nil
	}
	if bytes, err := f.cfg.Free(); err == nil && bytes < reserve {
		return fmt.Errorf("only %d MiB of room are left on the disk, which the database may need: %w", bytes>>20, syscall.ENOSPC)
	}
	return nil
}

// protect gives the file the mode that it must have: private keys are in it.
func (f *file) protect() error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		st, err := os.Lstat(f.path + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !st.Mode().IsRegular():
			return &fs.PathError{Op: "open", Path: f.path + suffix, Err: errors.New("not a regular file")}
		case st.Mode().Perm() != 0o600:
			if err := os.Chmod(f.path+suffix, 0o600); err != nil {
				return fmt.Errorf("setting the mode of the history: %w", err)
			}
			f.cfg.Log.Warn("a file of the history had another mode than 0600; that was corrected. It holds secrets, which other users may have read",
				"path", f.path+suffix, "mode", fmt.Sprintf("%04o", st.Mode().Perm()), event.Exposed.Attr())
		}
	}
	return nil
}

func (f *file) load() (err error) {
	if f.c, err = openWriter(f.path); err != nil {
		return err
	}
	for query, s := range map[string]**sqlitedb.Stmt{
		"INSERT INTO path (name) VALUES (?)":                                    &f.inserts.path,
		"INSERT INTO node (number, name) VALUES (?, ?)":                         &f.inserts.node,
		"INSERT INTO content (digest, size, packing, data) VALUES (?, ?, ?, ?)": &f.inserts.content,
		"INSERT INTO catch_up VALUES (?, ?, ?, ?)":                              &f.inserts.catchUp,
		"INSERT INTO gap VALUES (?, ?, ?, ?, ?, ?)":                             &f.inserts.gap,
		"REPLACE INTO meta VALUES (?, ?)":                                       &f.inserts.meta,
		"SELECT id FROM path WHERE name=?":                                      &f.finds.path,
		"SELECT id FROM node WHERE number=? AND name=?":                         &f.finds.node,
		"SELECT id FROM content WHERE digest=?":                                 &f.finds.content,
		"SELECT c.seq, c.first, c.mtime, n.number, c.kind, c.omitted, s.digest, s.size FROM change c, node n, content s WHERE n.id=c.node AND s.id=c.content AND c.seq=(SELECT max(seq) FROM change WHERE path=?)": &f.finds.last,
		"DELETE FROM change WHERE seq=?": &f.remove,
		"INSERT INTO change (seq, first, tree, version, time, mtime, node, kind, type, path, other, content, omitted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)": &f.inserts.change,
	} {
		if *s, err = f.c.Prepare(query); err != nil {
			return err
		}
	}
	f.forget()
	meta := map[string]int64{}
	if err := f.c.Each("SELECT key, value FROM meta", func(row []driver.Value) error {
		meta[text(row[0])] = integer(row[1])
		return nil
	}); err != nil {
		return err
	}
	f.head = head{uint64(meta[metaVersion]), uint32(meta[metaWriter]), uint32(meta[metaMTime])}
	if f.last, err = f.c.Number("SELECT max(ifnull((SELECT max(seq) FROM change), 0), ifnull((SELECT max(seq) FROM gap), 0))"); err != nil {
		return err
	}
	if f.paths, err = f.c.Number("SELECT count(*) FROM path"); err != nil {
		return err
	}
	f.changed = true
	return f.count()
}

// forget empties the caches: ids may be others.
func (f *file) forget() {
	f.pathIDs, f.contentIDs, f.nodeIDs, f.latest = map[string]int64{}, map[memdb.Digest]int64{}, map[uint32]int64{}, map[int64]latest{}
}

// empty reports whether nothing was ever recorded.
func (f *file) empty() bool { return f.head.version == 0 }

// close closes what is open. Tidy has everything brought into the one file.
func (f *file) close(tidy bool) {
	if f.packer != nil {
		f.packer.Close()
		f.packer = nil
	}
	for _, s := range []**sqlitedb.Stmt{&f.inserts.path, &f.inserts.node, &f.inserts.content, &f.inserts.change, &f.inserts.catchUp, &f.inserts.gap, &f.inserts.meta,
		&f.finds.path, &f.finds.node, &f.finds.content, &f.finds.last, &f.remove} {
		if *s != nil {
			(*s).Close()
			*s = nil
		}
	}
	if f.c.Conn.SQLiteConn != nil {
		if tidy {
			if err := f.c.Do("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
				f.cfg.Log.Debug("copying the history's log", "path", f.path, "error", err)
			}
		}
		if err := f.c.Close(); err != nil {
			f.cfg.Log.Debug("closing the history", "path", f.path, "error", err)
		}
		f.c = conn{}
	}
	if f.lock != nil {
		f.lock.Close()
		f.lock = nil
	}
}

// store stores change sets in one transaction; head is the tree's root after them.
func (f *file) store(batch []*item, root *memdb.Entry) error {
	err := f.transaction(func() error {
		for _, i := range batch {
			if err := f.item(i); err != nil {
				return err
			}
		}
		return f.setHead(headOf(root))
	})
	if err == nil && len(batch) > 0 {
		f.last = batch[len(batch)-1].seq + batch[len(batch)-1].rows() - 1
	}
	return err
}

func (f *file) transaction(do func() error) error {
	before := f.head
	err := f.room()
	if err == nil {
		err = f.c.transaction(do)
	}
	if err != nil {
		f.head = before
		f.forget() // what was rolled back
		return fmt.Errorf("recording changes in %s: %w", f.path, err)
	}
	f.changed = true
	return nil
}

func (f *file) setHead(h head) error {
	for _, m := range []struct {
		key   string
		value int64
	}{{metaVersion, int64(h.version)}, {metaWriter, int64(h.writer)}, {metaMTime, int64(h.mtime)}} {
		if _, err := f.inserts.meta.Run(m.key, m.value); err != nil {
			return err
		}
	}
	f.head = h
	return nil
}

// entry is a change on its way into the file.
type entry struct {
	seq, first int64
	tree       uint64
	at         int64
	kind       Kind
	path       string
	other      string
	e          *memdb.Entry // what is at path now; nil: nothing
	was        *memdb.Entry // its state before; nil: unknown
	by         *memdb.Entry // whose version, writer and time they are
	omitted    int64
}

// item stores a change set.
func (f *file) item(i *item) error {
	if i.sync != nil {
		return f.catchUp(i)
	}
	c := entry{seq: i.seq, first: i.seq, tree: i.root.Version, at: i.at, kind: i.kind, path: i.path, was: i.was, e: i.e, by: i.root, omitted: i.omitted}
	if i.kind == Rename {
		return f.rename(c, i.to)
	}
	if i.start != nil && f.sink == nil {
		if err := f.continues(i.start, &c); err != nil {
			return err
		}
	}
	return f.change(&c)
}

// rename stores where an entry has gone to, and what is there now.
func (f *file) rename(c entry, to string) error {
	if c.path == to {
		return nil
	}
	arrived := c
	c.kind, c.other, c.e = Rename, to, nil
	arrived.seq++
	arrived.kind, arrived.path, arrived.other = Rename, to, c.path
	if err := f.change(&c); err != nil {
		return err
	}
	return f.change(&arrived)
}

// continues takes the state before a write out of the history, which the write goes on with
// (see goesOn): a file that is written in many pieces is one change. It depends on nothing but the
// changes, so all nodes do the same.
func (f *file) continues(old *memdb.Entry, c *entry) error {
	id, err := f.pathID(c.path)
	if err != nil {
		return err
	}
	row, err := f.finds.last.Row(8, id)
	if err != nil || row == nil {
		return err
	}
	digest, _ := row[6].([]byte)
	if Kind(integer(row[4])) != Write || integer(row[3]) != int64(old.Writer) || integer(row[2]) != int64(old.MTime) ||
		integer(row[0]) != integer(row[1]) || integer(row[7]) != int64(old.Size()) || memdb.Digest(digest) != sha256.Sum256(old.Data()) {
		return nil
	}
	if kept, err := f.c.Number("SELECT count(*) FROM snapshot WHERE seq>=?", integer(row[0])); err != nil || kept > 0 {
		return err
	}
	c.omitted += integer(row[5])
	f.stats.Changes.Add(-1)
	_, err = f.remove.Run(integer(row[0]))
	return err
}

// catchUp stores what a synchronisation has changed.
func (f *file) catchUp(i *item) error {
	s := i.sync
	if f.sink != nil {
		defer f.sink.catchUp(s)
	} else {
		leader, err := f.nodeID(s.leader)
		if err != nil {
			return err
		}
		if _, err := f.inserts.catchUp.Run(i.seq, leader, int64(s.before.Version), int64(s.after.Version)); err != nil {
			return err
		}
	}
	c := entry{first: i.seq, tree: s.after.Version, at: i.at, kind: Sync}
	// First what is gone: something else may be at its path.
	now := make(map[string]bool, len(s.list))
	for _, d := range s.list {
		if d.New != nil {
			now[d.To] = true
		}
	}
	seq := i.seq
	for _, d := range s.list {
		if d.Old == nil || now[d.From] {
			continue
		}
		c.seq, c.path, c.e, c.by, c.other = seq, d.From, nil, s.after, ""
		if d.New != nil {
			c.other, c.by = d.To, d.New
		}
		if err := f.change(&c); err != nil {
			return err
		}
		seq++
	}
	for _, d := range s.list {
		if d.New == nil {
			continue
		}
		if d.Old != nil && d.From == d.To && d.Old.Type == d.New.Type && string(d.Old.Data()) == string(d.New.Data()) {
			continue // another time or version only
		}
		c.seq, c.path, c.e, c.by, c.other = seq, d.To, d.New, d.New, ""
		if d.Old != nil && d.From != d.To {
			c.other = d.From
		}
		if err := f.change(&c); err != nil {
			return err
		}
		seq++
	}
	return nil
}

// change stores a change, unless its path is not recorded.
func (f *file) change(c *entry) error {
	if f.cfg.excluded(c.path) {
		return nil
	}
	if f.sink != nil {
		f.sink.change(c)
		return nil
	}
	path, err := f.pathID(c.path)
	if err != nil {
		return err
	}
	node, err := f.nodeID(c.by.Writer)
	if err != nil {
		return err
	}
	var other, content driver.Value
	if c.other != "" && !f.cfg.excluded(c.other) {
		if other, err = f.pathID(c.other); err != nil {
			return err
		}
	}
	typ := int64(Absent)
	if c.e != nil {
		typ = int64(c.e.Type)
		if !c.e.IsDir() {
			id, err := f.contentOf(path, c)
			if err != nil {
				return err
			}
			content = id
		}
	}
	_, err = f.inserts.change.Run(c.seq, c.first, int64(c.tree), int64(c.by.Version), c.at, int64(c.by.MTime), node, int64(c.kind), typ, path, other, content, c.omitted)
	if err == nil {
		f.stats.Changes.Add(1) // about; see count
		f.stats.Oldest.CompareAndSwap(0, c.at)
	}
	return err
}

// contentOf returns the id of the content after a change. One that rewrites a file with the
// same content, as programs do, needs no digest.
func (f *file) contentOf(path int64, c *entry) (id int64, err error) {
	l, ok := f.latest[path]
	if ok && c.was != nil && c.was.Size() > 0 && c.was.Size() == l.size && weak.Make(&c.was.Data()[0]) == l.data && bytes.Equal(c.was.Data(), c.e.Data()) {
		id = l.content
	} else if id, err = f.contentID(c.e.Data()); err != nil {
		return 0, err
	}
	if len(f.latest) >= cached {
		clear(f.latest)
	}
	if delete(f.latest, path); c.e.Size() > 0 {
		f.latest[path] = latest{weak.Make(&c.e.Data()[0]), c.e.Size(), id}
	}
	return id, nil
}

func (f *file) pathID(name string) (int64, error) {
	if id, ok := f.pathIDs[name]; ok {
		return id, nil
	}
	row, err := f.finds.path.Row(1, name)
	if err != nil {
		return 0, err
	}
	var id int64
	if row != nil {
		id = integer(row[0])
	} else if id, err = f.inserts.path.Insert(name); err != nil {
		return 0, err
	} else {
		f.paths++
	}
	if len(f.pathIDs) >= cached {
		clear(f.pathIDs)
	}
	f.pathIDs[name] = id
	return id, nil
}

func (f *file) nodeID(number uint32) (int64, error) {
	if id, ok := f.nodeIDs[number]; ok {
		return id, nil
	}
	name := f.cfg.NodeName(number)
	row, err := f.finds.node.Row(1, int64(number), name)
	if err != nil {
		return 0, err
	}
	var id int64
	if row != nil {
		id = integer(row[0])
	} else if id, err = f.inserts.node.Insert(int64(number), name); err != nil {
		return 0, err
	}
	if name != "" { // else it may be known soon
		f.nodeIDs[number] = id
	}
	return id, nil
}

// contentID returns the id of a content, which is stored if it isn't yet.
func (f *file) contentID(data []byte) (int64, error) {
	digest := sha256.Sum256(data)
	if id, ok := f.contentIDs[digest]; ok {
		return id, nil
	}
	row, err := f.finds.content.Row(1, digest[:])
	if err != nil {
		return 0, err
	}
	var id int64
	if row != nil {
		id = integer(row[0])
	} else {
		packing, packed := f.pack(data)
		if id, err = f.inserts.content.Insert(digest[:], int64(len(data)), int64(packing), packed); err != nil {
			return 0, err
		}
	}
	if len(f.contentIDs) >= cached {
		clear(f.contentIDs)
	}
	f.contentIDs[digest] = id
	return id, nil
}

// pack makes data smaller, if that can be done. The result is valid until the next call.
func (f *file) pack(data []byte) (packing int, packed []byte) {
	if len(data) < 64 {
		return packPlain, append([]byte{}, data...)
	}
	if f.packer == nil {
		var err error
		f.packer, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false))
		if err != nil { // of its options
			return packPlain, data
		}
	}
	f.packed = f.packer.EncodeAll(data, f.packed[:0])
	if len(f.packed) >= len(data) {
		return packPlain, data
	}
	return packZstd, f.packed
}

// known is what the history has last of a path.
type known struct {
	state  State
	digest string
}

// states returns what the history has last of each path that is there.
func (f *file) states() (map[string]known, error) {
	list := make(map[string]known)
	err := f.c.Each("SELECT p.name, c.type, s.digest FROM path p JOIN change c ON c.seq=(SELECT max(seq) FROM change WHERE path=p.id) LEFT JOIN content s ON s.id=c.content WHERE c.type<>0", func(row []driver.Value) error {
		list[text(row[0])] = known{State(integer(row[1])), text(row[2])}
		return nil
	})
	return list, err
}

// find stores how the tree differs from what was recorded last, after a gap, and returns in
// how many paths.
func (f *file) find(l *lookAt) (changes int, err error) {
	states, err := f.states()
	if err != nil {
		return 0, err
	}
	root := l.entries[0]
	at := f.cfg.Clock().UnixMilli()
	err = f.transaction(func() error {
		seq := l.first
		if l.why != reasonBegin {
			if _, err := f.inserts.gap.Run(seq, at, int64(f.head.version), int64(root.Version), l.lost, l.why); err != nil {
				return err
			}
		}
		seq++
		set := seq
		c := entry{first: set, tree: root.Version, at: at, kind: Found}
		paths := memdb.Paths(l.entries, 0)
		there := make(map[string]bool, len(paths))
		for i, e := range l.entries {
			p := paths[i]
			if i == 0 || f.cfg.excluded(p) {
				continue
			}
			there[p] = true
			have, ok := states[p]
			if ok && have.state == State(e.Type) {
				if e.IsDir() {
					continue
				}
				if d := sha256.Sum256(e.Data()); have.digest == string(d[:]) {
					continue
				}
			}
			c.seq, c.path, c.e, c.by = seq, p, e, e
			if err := f.change(&c); err != nil {
				return err
			}
			seq++
		}
		for p := range states {
			if !there[p] && !f.cfg.excluded(p) {
				c.seq, c.path, c.e, c.by = seq, p, nil, root
				if err := f.change(&c); err != nil {
					return err
				}
				seq++
			}
		}
		changes = int(seq - set)
		if f.empty() {
			if _, err := f.inserts.meta.Run(metaBegan, int64(root.Version)); err != nil {
				return err
			}
		}
		return f.setHead(headOf(root))
	})
	if err == nil {
		f.last = l.last
		err = f.count()
	}
	return changes, err
}

// count brings the statistics up to date.
func (f *file) count() error {
	var n [4]int64
	for i, query := range []string{
		"SELECT count(*) FROM change", "SELECT count(*) FROM gap", "SELECT time FROM change ORDER BY seq LIMIT 1", "SELECT max(time) FROM gap",
	} {
		var err error
		if n[i], err = f.c.Number(query); err != nil {
			return err
		}
	}
	f.stats.Changes.Store(n[0])
	f.stats.Gaps.Store(n[1])
	f.stats.Oldest.Store(n[2])
	f.stats.Newest.Store(n[3])
	_, err := f.size()
	return err
}

// size returns the bytes that are in use.
func (f *file) size() (int64, error) {
	var n [3]int64
	for i, p := range []string{"PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA page_size"} {
		var err error
		if n[i], err = f.c.Number(p); err != nil {
			return 0, err
		}
	}
	bytes := (n[0] - n[1]) * n[2]
	f.stats.Bytes.Store(bytes)
	return bytes, nil
}

// Errors of snapshots.
var (
	ErrSnapshotExists = errors.New("there is a snapshot of this name already")
	ErrNoSnapshot     = errors.New("there is no snapshot of this name")
)

// ValidName checks a snapshot's name.
func ValidName(name string) error {
	if name == "" || len(name) > 64 {
		return errors.New("a snapshot's name has 1 to 64 characters")
	}
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', i > 0 && (r == '-' || r == '_' || r == '.' || r == ':'):
		default:
			return fmt.Errorf("a snapshot's name consists of letters, digits and -_.: and begins with a letter or digit: %q", name)
		}
	}
	return nil
}

func (f *file) snapshot(name, note string) (s Snapshot, err error) {
	if n, err := f.c.Number("SELECT count(*) FROM snapshot WHERE name=?", name); err != nil || n > 0 {
		if err == nil {
			err = ErrSnapshotExists
		}
		return s, err
	}
	s = Snapshot{Name: name, Version: f.head.version, Time: time.UnixMilli(f.cfg.Clock().UnixMilli()), Note: note, Seq: f.last}
	return s, f.c.Do("INSERT INTO snapshot VALUES (?, ?, ?, ?, ?)", s.Name, s.Seq, int64(s.Version), s.Time.UnixMilli(), s.Note)
}

func (f *file) deleteSnapshot(name string) error {
	n, err := f.c.Number("SELECT count(*) FROM snapshot WHERE name=?", name)
	switch {
	case err != nil:
		return err
	case n == 0:
		return ErrNoSnapshot
	}
	return f.c.Do("DELETE FROM snapshot WHERE name=?", name)
}
