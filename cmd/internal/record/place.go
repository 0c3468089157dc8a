package record

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/memdb"
	"pmxcfs/memdb/history"
)

// Path makes a path of the tree of what somebody has given: it may be one below the mount.
func Path(mount, given string) string {
	if below, err := filepath.Rel(mount, given); err == nil && filepath.IsAbs(given) && below != ".." && !strings.HasPrefix(below, "../") {
		given = below
	}
	path := memdb.CleanPath(filepath.Clean("/" + given))
	return path
}

var revision = regexp.MustCompile(`^(.*)@([0-9]+)$`)

// Revision splits PATH@REVISION. Without a revision it is 0.
func Revision(given string) (path string, version uint64, err error) {
	m := revision.FindStringSubmatch(given)
	if m == nil {
		return given, 0, nil
	}
	version, err = strconv.ParseUint(m[2], 10, 63)
	if err != nil || version == 0 {
		return "", 0, fmt.Errorf("%q is no revision", m[2])
	}
	return m[1], version, nil
}

// Point finds a point of the history: a version, the name of a snapshot, a time, or how long
// ago that was.
func Point(r *history.Reader, given string, now time.Time) (history.Point, error) {
	if version, err := strconv.ParseUint(strings.TrimPrefix(given, "@"), 10, 63); err == nil {
		return r.AtVersion(version)
	}
	t, err := diagnosis.ParseSince(given, now)
	if err == nil && !t.IsZero() {
		if t.Nanosecond() == 0 && strings.Contains(given, ":") { // all of the second
			t = t.Add(time.Second - time.Millisecond)
		}
		return r.AtTime(t)
	}
	p, serr := r.AtSnapshot(given)
	if errors.Is(serr, history.ErrNoSnapshot) {
		return p, fmt.Errorf("%q is no version, no time and no snapshot: 4711, 2h, 3d, 2026-01-31, \"2026-01-31 15:04:05\", or a name of pmxcfs snapshot list", given)
	}
	return p, serr
}

// At returns what was at a path: as given by PATH@REVISION, or at a point.
func At(r *history.Reader, path string, version uint64, at string, now time.Time) (c history.Change, err error) {
	var p history.Point
	switch {
	case version != 0 && at != "":
		return c, errors.New("a revision and --at exclude each other")
	case version != 0:
		// An entry's revision names it, also where this node has got it later by a synchronisation.
		found := false
		err := r.List(history.Query{Path: path, Exact: true}, func(d history.Change) bool {
			if d.Version == version {
				c, found = d, true
			}
			return !found
		})
		if err != nil || found {
			return c, err
		}
		if p, err = r.AtVersion(version); err != nil {
			return c, err
		}
		if err := thinned(r, path, version, p); err != nil {
			return c, err
		}
	case at != "":
		if p, err = Point(r, at, now); err != nil {
			return c, err
		}
	default:
		if p, err = r.Latest(); err != nil {
			return c, err
		}
	}
	return r.At(p, path)
}

// thinned returns an error if what was at a path in a version of the tree, behind a point, may be one of the states
// that were thinned out.
func thinned(r *history.Reader, path string, version uint64, p history.Point) error {
	var next history.Change
	var err error
	lerr := r.List(history.Query{Path: path, Exact: true}, func(c history.Change) bool {
		switch {
		case c.Seq > p.Seq:
			next = c
			return true
		case next.Omitted > 0:
			err = fmt.Errorf("%s at version %d may be one of %d states that were thinned out: the history has revision %d from before them, and %d", path, version, next.Omitted, c.Version, next.Version)
		}
		return false
	})
	return errors.Join(lerr, err)
}

// Before returns the state of a path before its last change: its last content, if it is gone now.
func Before(r *history.Reader, path string) (history.Change, error) {
	list, err := r.Follow(path, 0)
	if err != nil {
		return history.Change{}, err
	}
	if len(list) == 0 {
		return history.Change{}, r.Nothing(path)
	}
	now := list[0]
	i := slices.IndexFunc(list, func(c history.Change) bool {
		return c.State != history.Absent && (c.State != now.State || c.Digest != now.Digest)
	})
	if i < 0 {
		return now, fmt.Errorf("the history has no earlier state of %s", path)
	}
	return list[i], nil
}

// Line is a line of a file, and the change that it has come with.
type Line struct {
	Change history.Change `json:"change"`
	Text   string         `json:"text"`
}

// Blame says of each line of a file which change it has come with.
func Blame(r *history.Reader, path string, upTo int64) ([]Line, error) {
	list, err := r.Follow(path, upTo)
	if err != nil {
		return nil, err
	}
	switch {
	case len(list) == 0:
		return nil, r.Nothing(path)
	case list[0].State != history.File:
		return nil, fmt.Errorf("%s is no file then", path)
	}
	var blame []Line
	var text []string
	digest := ""
	for _, c := range slices.Backward(list) {
		if c.State != history.File || c.Digest == digest {
			continue
		}
		data, err := r.Content(c)
		if err != nil {
			return nil, err
		}
		digest = c.Digest
		next := lines(data)
		var now []Line
		at := 0
		for _, e := range compare(text, next) {
			now = append(now, blame[at:e.a]...)
			for _, l := range next[e.c:e.d] {
				now = append(now, Line{c, l})
			}
			at = e.b
		}
		blame, text = append(now, blame[at:]...), next
	}
	return blame, nil
}

// Tree makes a tree of what was there at a point.
func Tree(r *history.Reader, p history.Point) (*memdb.Tree, error) {
	inodes := map[string]uint64{"": memdb.RootInode}
	entries := []*memdb.Entry{nil}
	var list []history.Change
	if err := r.Tree(p, "", false, func(c history.Change) error {
		list = append(list, c)
		return nil
	}); err != nil {
		return nil, err
	}
	// A directory before what is in it.
	slices.SortStableFunc(list, func(a, b history.Change) int { return strings.Count(a.Path, "/") - strings.Count(b.Path, "/") })
	last := p.Version
	for _, c := range list {
		dir, name := memdb.Split(c.Path)
		parent, ok := inodes[dir]
		if !ok {
			continue // its directory was left out by --history-exclude
		}
		data, err := r.Content(c)
		if err != nil {
			return nil, err
		}
		inode := uint64(len(entries)) + 1
		last = max(last, inode)
		mtime := uint32(max(0, c.MTime.Unix()))
		entries = append(entries, memdb.NewEntry(inode, parent, inode, c.NodeID, mtime, memdb.Type(c.State), name, data))
		if c.State == history.Directory {
			inodes[c.Path] = inode
		}
	}
	entries[0] = memdb.NewEntry(memdb.RootInode, memdb.RootInode, last, 0, uint32(max(0, p.Time.Unix())), memdb.TypeDir, "", nil)
	tree, _, err := memdb.Build(entries)
	return tree, err
}
