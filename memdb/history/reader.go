package history

import (
	"bytes"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"pmxcfs/memdb"
)

// Reader reads a history's file: one that a daemon writes to, or one that nobody does. It is
// for one goroutine.
type Reader struct {
	path     string
	c        conn
	unpacker *zstd.Decoder
}

// Errors of reading.
var (
	ErrBefore   = errors.New("the history begins later")
	ErrExpired  = errors.New("retention has removed changes from before that")
	ErrFuture   = errors.New("the tree has not had that version yet")
	ErrNoChange = errors.New("the history has nothing of that path then")
)

// Open opens the file to be read. It changes nothing.
func Open(path string) (*Reader, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	options := url.Values{"mode": {"ro"}}
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		options.Set("immutable", "1") // nobody writes to it, and nothing is to be left beside it
	}
	c, err := dial(path, options)
	if err != nil {
		return nil, fmt.Errorf("reading the history %s: %w", path, err)
	}
	version, err := c.version()
	switch {
	case err != nil:
	case version == 0:
		err = errors.New("it is empty")
	case version > int64(len(migrations)):
		err = fmt.Errorf("%w: it has version %d, this program knows %d", ErrNewer, version, len(migrations))
	case version < int64(len(migrations)):
		err = fmt.Errorf("it has version %d, and is brought to version %d when the daemon starts", version, len(migrations))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the history %s: %w", path, err), c.Close())
	}
	return &Reader{path: path, c: c}, nil
}

// Close ends the reading.
func (r *Reader) Close() error {
	if r.unpacker != nil {
		r.unpacker.Close()
	}
	return r.c.Close()
}

func (r *Reader) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading the history %s: %w", r.path, err)
}

const columns = "SELECT c.seq, c.first, c.tree, c.version, c.time, c.mtime, n.number, n.name, c.kind, c.type, p.name, o.name, s.digest, s.size, c.omitted, c.content, l.number, l.name, k.from_version, k.to_version" +
	" FROM change c JOIN path p ON p.id=c.path JOIN node n ON n.id=c.node LEFT JOIN path o ON o.id=c.other LEFT JOIN content s ON s.id=c.content" +
	" LEFT JOIN catch_up k ON k.seq=c.first AND c.kind=6 LEFT JOIN node l ON l.id=k.leader "

func changeOf(row []driver.Value) Change {
	d := Change{
		Seq: integer(row[0]), Set: integer(row[1]), Tree: uint64(integer(row[2])), Version: uint64(integer(row[3])),
		Time: time.UnixMilli(integer(row[4])), MTime: time.Unix(integer(row[5]), 0), NodeID: uint32(integer(row[6])), Node: text(row[7]),
		Kind: Kind(integer(row[8])), State: State(integer(row[9])), Path: text(row[10]), Size: integer(row[13]), Omitted: integer(row[14]), content: integer(row[15]),
	}
	d.other(text(row[11]))
	if digest, ok := row[12].([]byte); ok {
		d.Digest = hex.EncodeToString(digest)
	}
	if row[18] != nil {
		d.CatchUp = &CatchUp{LeaderID: uint32(integer(row[16])), Leader: text(row[17]), From: uint64(integer(row[18])), To: uint64(integer(row[19]))}
	}
	return d
}

// Query says which changes are wanted.
type Query struct {
	Path         string // a path, or a directory that they lie below; empty: all
	Exact        bool   // Path only, not what lies below it
	Since, Until time.Time
	Node         string // name or number; empty: all
	UpTo         int64  // seq; 0: all
}

// errEnd ends a query early.
var errEnd = errors.New("enough")

// List calls f with each change that is wanted, the newest first, until it says false.
func (r *Reader) List(q Query, f func(Change) bool) error {
	where, args := "WHERE 1=1", []driver.Value{}
	add := func(cond string, values ...driver.Value) {
		where += " AND " + cond
		args = append(args, values...)
	}
	switch {
	case q.Path != "" && q.Exact:
		add("c.path=(SELECT id FROM path WHERE name=?)", q.Path)
	case q.Path != "":
		add("c.path IN (SELECT id FROM path WHERE name=? OR name>? AND name<?)", q.Path, q.Path+"/", q.Path+"0")
	}
	if !q.Since.IsZero() {
		add("c.time>=?", q.Since.UnixMilli())
	}
	if !q.Until.IsZero() {
		add("c.time<=?", q.Until.UnixMilli())
	}
	if q.UpTo != 0 {
		add("c.seq<=?", q.UpTo)
	}
	if q.Node != "" {
		add("(n.name=? OR CAST(n.number AS TEXT)=?)", q.Node, q.Node)
	}
	err := r.c.Each(columns+where+" ORDER BY c.seq DESC", func(row []driver.Value) error {
		if !f(changeOf(row)) {
			return errEnd
		}
		return nil
	}, args...)
	if errors.Is(err, errEnd) {
		err = nil
	}
	return r.failed(err)
}

// Follow returns the changes of one path, the newest first, and from where it was renamed to
// that, those of its former path. UpTo is the last change to look at; 0: all.
func (r *Reader) Follow(path string, upTo int64) (list []Change, err error) {
	for range 1000 {
		from := ""
		err := r.List(Query{Path: path, Exact: true, UpTo: upTo}, func(c Change) bool {
			list = append(list, c)
			if c.Kind == Rename && c.State != Absent && c.From != "" {
				from, upTo = c.From, c.Set-1
				return false
			}
			return true
		})
		if err != nil || from == "" {
			return list, err
		}
		path = from
	}
	return list, nil
}

// Content returns what was in the file after a change.
func (r *Reader) Content(c Change) ([]byte, error) {
	if c.State != File {
		return nil, nil
	}
	var data []byte
	var packing, size int64
	found := false
	err := r.c.Each("SELECT packing, size, data FROM content WHERE id=?", func(row []driver.Value) error {
		packing, size, found = integer(row[0]), integer(row[1]), true
		data, _ = row[2].([]byte)
		return nil
	}, c.content)
	switch {
	case err != nil:
		return nil, r.failed(err)
	case !found:
		return nil, r.failed(fmt.Errorf("the content of %s at revision %d is missing: the file is damaged", c.Path, c.Version))
	}
	if data, err = r.unpack(packing, size, data); err == nil {
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != c.Digest {
			err = errors.New("the digest is wrong")
		}
	}
	if err != nil {
		return nil, r.failed(fmt.Errorf("the content of %s at revision %d is damaged: %w", c.Path, c.Version, err))
	}
	return data, nil
}

func (r *Reader) unpack(packing, size int64, data []byte) ([]byte, error) {
	switch packing {
	case packPlain:
		return data, nil
	case packZstd:
	default:
		return nil, fmt.Errorf("it is packed in an unknown way (%d)", packing)
	}
	if size < 0 || size > memdb.MaxTreeBytes {
		return nil, fmt.Errorf("an impossible size of %d bytes", size)
	}
	if r.unpacker == nil {
		var err error
		if r.unpacker, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(memdb.MaxTreeBytes)); err != nil {
			return nil, err
		}
	}
	return r.unpacker.DecodeAll(data, make([]byte, 0, size))
}

// Point is a point of the history: the state after a change.
type Point struct {
	Seq     int64
	Version uint64    // of the tree
	Time    time.Time // zero: nothing was recorded
	// Between says, if it is not empty, that what was asked for lies between two recorded points, of
	// which this is the first, and why.
	Between string
}

// AtTime returns the point at a time.
func (r *Reader) AtTime(t time.Time) (Point, error) {
	return r.point("time<=?", t.UnixMilli())
}

// AtVersion returns the point at a version of the tree.
func (r *Reader) AtVersion(version uint64) (Point, error) {
	head, err := r.Head()
	if err != nil {
		return Point{}, err
	}
	if version > head {
		return Point{}, fmt.Errorf("%w: it is at %d", ErrFuture, head)
	}
	p, err := r.point("tree<=?", int64(version))
	if err != nil || p.Version == version {
		return p, err
	}
	err = r.c.Each("SELECT after_version, version FROM gap WHERE after_version<?1 AND version>?1", func(row []driver.Value) error {
		p.Between = fmt.Sprintf("the changes after version %d up to version %d were not recorded", integer(row[0]), integer(row[1]))
		return nil
	}, int64(version))
	if err == nil && p.Between == "" {
		err = r.c.Each("SELECT from_version, to_version FROM catch_up WHERE from_version<?1 AND to_version>?1", func(row []driver.Value) error {
			p.Between = fmt.Sprintf("this node went from version %d to %d in one step, when it was brought up to date", integer(row[0]), integer(row[1]))
			return nil
		}, int64(version))
	}
	return p, r.failed(err)
}

// AtSnapshot returns the point of a snapshot.
func (r *Reader) AtSnapshot(name string) (Point, error) {
	list, err := r.Snapshots()
	if err != nil {
		return Point{}, err
	}
	for _, s := range list {
		if s.Name == name {
			return Point{Seq: s.Seq, Version: s.Version, Time: s.Time}, nil
		}
	}
	return Point{}, fmt.Errorf("%w: %q", ErrNoSnapshot, name)
}

// Latest returns the last point.
func (r *Reader) Latest() (Point, error) {
	return r.point("1=?", int64(1))
}

func (r *Reader) point(condition string, arg driver.Value) (p Point, err error) {
	err = r.c.Each("SELECT seq, tree, time FROM change WHERE seq=(SELECT max(seq) FROM change WHERE "+condition+")", func(row []driver.Value) error {
		p = Point{Seq: integer(row[0]), Version: uint64(integer(row[1])), Time: time.UnixMilli(integer(row[2]))}
		return nil
	}, arg)
	if err != nil {
		return p, r.failed(err)
	}
	if p.Seq == 0 {
		return p, r.failed(r.begins())
	}
	expired, err := r.c.Number("SELECT value FROM meta WHERE key=?", metaExpired)
	if err == nil && p.Seq < expired {
		err = ErrExpired
	}
	return p, r.failed(err)
}

// begins is ErrBefore, with when it does.
func (r *Reader) begins() error {
	err := ErrBefore
	qerr := r.c.Each("SELECT tree, time FROM change ORDER BY seq LIMIT 1", func(row []driver.Value) error {
		err = fmt.Errorf("%w: with version %d, on %s", ErrBefore, integer(row[0]), time.UnixMilli(integer(row[1])).Format(time.DateTime))
		return nil
	})
	return errors.Join(err, qerr)
}

// Tree calls f with what was at each path at a point, in the order of the paths. Below is a
// path or a directory that is wanted; empty: all. What was deleted is among it if deleted says so.
func (r *Reader) Tree(p Point, below string, deleted bool, f func(Change) error) error {
	where, args := "", []driver.Value{p.Seq}
	if below != "" {
		where, args = " AND (p.name=?2 OR p.name>?3 AND p.name<?4)", append(args, below, below+"/", below+"0")
	}
	if !deleted {
		where += " AND c.type<>0"
	}
	return r.failed(r.c.Each(columns+"WHERE c.seq=(SELECT max(seq) FROM change WHERE path=p.id AND seq<=?1)"+where+" ORDER BY p.name", func(row []driver.Value) error { return f(changeOf(row)) }, args...))
}

// At returns what was at a path at a point: the change that had made it so.
func (r *Reader) At(p Point, path string) (c Change, err error) {
	found := false
	err = r.List(Query{Path: path, Exact: true, UpTo: p.Seq}, func(d Change) bool {
		c, found = d, true
		return false
	})
	if err == nil && !found {
		err = r.Nothing(path)
	}
	return c, err
}

// Nothing returns the error that the history has nothing of a path. It names a few that end in the same name.
func (r *Reader) Nothing(path string) error {
	err := fmt.Errorf("%w: %s", ErrNoChange, path)
	_, base := memdb.Split(path)
	var like []string
	if qerr := r.c.Each("SELECT name FROM path WHERE substr(name, -length(?1))=?1 AND name<>?2 ORDER BY id DESC LIMIT 3", func(row []driver.Value) error {
		like = append(like, text(row[0]))
		return nil
	}, "/"+base, path); qerr == nil && base != "" && len(like) > 0 {
		err = fmt.Errorf("%w (do you mean %s?)", err, strings.Join(like, " or "))
	}
	return err
}

// Head returns the version of the tree that the file ends with.
func (r *Reader) Head() (uint64, error) {
	n, err := r.c.Number("SELECT value FROM meta WHERE key=?", metaVersion)
	return uint64(n), r.failed(err)
}

// Snapshots returns them, the oldest first.
func (r *Reader) Snapshots() (list []Snapshot, err error) {
	err = r.c.Each("SELECT name, seq, version, time, note FROM snapshot ORDER BY seq, name", func(row []driver.Value) error {
		list = append(list, Snapshot{text(row[0]), uint64(integer(row[2])), time.UnixMilli(integer(row[3])), text(row[4]), integer(row[1])})
		return nil
	})
	return list, r.failed(err)
}

// Gaps returns them, the newest first.
func (r *Reader) Gaps() (list []Gap, err error) {
	err = r.c.Each("SELECT seq, time, after_version, version, changes, reason FROM gap ORDER BY seq DESC", func(row []driver.Value) error {
		list = append(list, gapOf(row))
		return nil
	})
	return list, r.failed(err)
}

func gapOf(row []driver.Value) Gap {
	return Gap{integer(row[0]), time.UnixMilli(integer(row[1])), uint64(integer(row[2])), uint64(integer(row[3])), integer(row[4]), text(row[5])}
}

// after returns the last change of what somebody has seen who has seen a version of the
// tree, and what is missing after that.
func (r *Reader) after(version uint64) (seq int64, gap *Gap, err error) {
	limit := int64(min(version, 1<<62))
	seq, err = r.c.Number("SELECT max(ifnull((SELECT max(seq) FROM change WHERE tree<=?1), 0), ifnull((SELECT max(seq) FROM gap WHERE version<=?1), 0))", limit)
	if err != nil {
		return 0, nil, r.failed(err)
	}
	expired, err := r.c.Number("SELECT value FROM meta WHERE key=?", metaExpired)
	if err != nil {
		return 0, nil, r.failed(err)
	}
	missing := func(reason, query string, args ...driver.Value) error {
		return r.c.Each(query, func(row []driver.Value) error {
			gap = &Gap{Time: time.UnixMilli(integer(row[1])), After: version, Version: uint64(integer(row[0])), Reason: reason}
			return nil
		}, args...)
	}
	switch {
	case seq < expired:
		err = missing("retention has removed changes", "SELECT tree, time FROM change WHERE seq<=? ORDER BY seq DESC LIMIT 1", expired)
	case seq == 0:
		began, berr := r.c.Number("SELECT value FROM meta WHERE key=?", metaBegan)
		if err = berr; err != nil || limit >= began {
			break
		}
		err = missing("the history begins later", "SELECT tree, time FROM change ORDER BY seq LIMIT 1")
	}
	return seq, gap, r.failed(err)
}

// events returns the change sets and gaps after a change, up to another; about as many
// changes as wanted. Last is the last one that was looked at.
func (r *Reader) events(after, upTo int64, wanted int) (list []Event, last int64, err error) {
	last = upTo
	n := 0
	err = r.c.Each(columns+"WHERE c.seq>? AND c.seq<=? ORDER BY c.seq", func(row []driver.Value) error {
		c := changeOf(row)
		if k := len(list); k > 0 && list[k-1].Changes[0].Set == c.Set {
			list[k-1].Changes = append(list[k-1].Changes, c)
		} else {
			if n >= wanted {
				last = c.Seq - 1
				return errEnd
			}
			list = append(list, Event{Changes: []Change{c}})
		}
		n++
		return nil
	}, after, upTo)
	if err != nil && !errors.Is(err, errEnd) {
		return nil, 0, r.failed(err)
	}
	err = r.c.Each("SELECT seq, time, after_version, version, changes, reason FROM gap WHERE seq>? AND seq<=? ORDER BY seq", func(row []driver.Value) error {
		g := gapOf(row)
		i := 0
		for i < len(list) && (list[i].Gap != nil || list[i].Changes[0].Seq < g.Seq) {
			i++
		}
		list = append(list[:i], append([]Event{{Gap: &g}}, list[i:]...)...)
		return nil
	}, after, last)
	return list, last, r.failed(err)
}

// Contains reports whether the content after a change has a text in it.
func (r *Reader) Contains(c Change, text []byte) (bool, error) {
	data, err := r.Content(c)
	return err == nil && c.State == File && bytes.Contains(data, text), err
}
