package sqlite

import (
	"bytes"
	"cmp"
	"database/sql/driver"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"pmxcfs/memdb"
)

// LostAndFound is the directory that Repair puts things into whose place in
// the tree is not known or is taken. It is a private one, since a secret may be
// among them.
const LostAndFound = "priv/lost+found"

// Fix is one thing that Repair changed.
type Fix struct {
	Inode uint64 // as it stands in the damaged file
	Name  string
	What  string
}

// String describes the row and its repair.
func (f Fix) String() string { return fmt.Sprintf("inode %d (%q): %s", f.Inode, f.Name, f.What) }

// Repair makes a valid tree of rows, whatever they hold, and tells everything it
// had to change for that. Sound rows come out as they are, without a fix.
//
// No content is dropped: what can't stay where it is goes to LostAndFound. The
// version is not raised if that can be helped, and the root's time is set
// back by a second: when a cluster's nodes meet, the greatest version leads, and of
// equal ones the youngest, and a node that has the whole tree at the same version
// is to win over a repaired one.
func Repair(rows []Row) ([]*memdb.Entry, []Fix) {
	r := &repair{byID: make(map[uint64]*draft, len(rows))}
	r.parse(rows)
	r.findRoot()
	r.number()
	r.shape()
	r.place()
	r.rename()
	r.duplicates()
	r.attach()
	r.guests()
	if len(r.fixes) > 0 && r.root.mtime > 0 {
		r.root.mtime--
		r.fix(r.root, "the database's time was set back by a second: a node that has the same version undamaged leads")
	}
	return r.entries(), r.fixes
}

// draft is an entry in the making.
type draft struct {
	inode, parent, version uint64
	writer, mtime          uint32
	typ                    int64
	name                   string
	data                   []byte

	unnumbered bool   // has no inode of its own
	adrift     bool   // goes to LostAndFound
	was        uint64 // the inode in the file, for messages
}

type repair struct {
	root  *draft
	list  []*draft // all but the root
	byID  map[uint64]*draft
	fixes []Fix
	free  uint64 // inodes from here on, up to the version, are taken
}

func (r *repair) fix(d *draft, format string, args ...any) {
	r.fixes = append(r.fixes, Fix{d.was, d.name, fmt.Sprintf(format, args...)})
}

// drift sends d to LostAndFound.
func (r *repair) drift(d *draft, format string, args ...any) {
	d.adrift = true
	r.fix(d, format+"; moved to "+LostAndFound, args...)
}

// integer makes the best of a value that should be one.
func integer(v driver.Value) (n int64, ok, exact bool) {
	switch v := v.(type) {
	case int64:
		return v, true, true
	case float64:
		if v >= -1<<62 && v <= 1<<62 {
			return int64(v), true, false
		}
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return n, true, false
		}
	case []byte:
		return integer(string(v))
	}
	return 0, false, false
}

// parse makes drafts of the rows.
func (r *repair) parse(rows []Row) {
	for _, row := range rows {
		d := &draft{}
		inode, ok, exact := integer(row[0])
		d.inode, d.was, d.unnumbered = uint64(inode), uint64(inode), !ok
		switch v := row[6].(type) {
		case nil:
		case string:
			d.name = v
		case []byte:
			d.name = string(v)
		default:
			d.name = fmt.Sprint(v)
			r.fix(d, "the name was %v; it is a text now", show(v))
		}
		if !exact {
			r.fix(d, "the inode was %v", show(row[0]))
		}
		var num [5]int64
		for i, column := range []string{"parent", "version", "writer", "mtime", "type"} {
			n, ok, exact := integer(row[i+1])
			num[i] = n
			switch {
			case !ok && column == "parent":
				d.parent = math.MaxUint64
				num[i] = -1
			case !ok || !exact:
				if column != "type" {
					r.fix(d, "%s was %v; it is %d now", column, show(row[i+1]), n)
				}
			}
			if (column == "writer" || column == "mtime") && n != int64(uint32(n)) {
				r.fix(d, "%s was %d; it is %d now", column, n, uint32(n))
			}
		}
		d.parent, d.version, d.writer, d.mtime, d.typ = uint64(num[0]), uint64(num[1]), uint32(num[2]), uint32(num[3]), num[4]
		if data, ok := bytesOf(row[7]); ok {
			d.data = data
		} else {
			d.data = fmt.Append(nil, row[7])
			r.fix(d, "the data was the number %s; it is a text now", d.data)
		}
		r.list = append(r.list, d)
	}
}

// findRoot takes the version row out of the list, or makes one.
func (r *repair) findRoot() {
	var last draft // the greatest numbers that occur
	for _, d := range r.list {
		if d.inode == memdb.RootInode && !d.unnumbered {
			if r.root == nil || d.version > r.root.version || d.name == versionName && r.root.name != versionName {
				r.root = d
			}
			continue
		}
		for _, n := range []uint64{d.version, d.inode} {
			if n <= memdb.MaxVersion {
				last.version = max(last.version, n)
			}
		}
		last.mtime = max(last.mtime, d.mtime)
	}
	if r.root == nil {
		r.root = &draft{name: versionName, typ: int64(memdb.TypeFile), version: max(last.version, 1), mtime: last.mtime}
		r.fix(r.root, "the version row was missing; it was recreated with version %d, the greatest number in the file", r.root.version)
		return
	}
	r.list = slices.DeleteFunc(r.list, func(d *draft) bool { return d == r.root })
	root := r.root
	if root.name != versionName {
		r.fix(root, "inode 0 is the version row, its name is %q now", versionName)
	}
	if root.parent != memdb.RootInode {
		r.fix(root, "the version row's parent was %d", root.parent)
	}
	if root.typ != int64(memdb.TypeFile) && root.typ != int64(memdb.TypeDir) {
		r.fix(root, "the version row's type was %d", root.typ)
	}
	if root.version < 1 || root.version > memdb.MaxVersion {
		r.fix(root, "the database's version was %d; it is %d now, the greatest number in the file", int64(root.version), max(last.version, 1))
		root.version = max(last.version, 1)
	}
	if len(root.data) > 0 {
		r.keepData(root, "inode-0")
	}
}

// keepData moves d's data, which can't stay with it, to a file of its own.
func (r *repair) keepData(d *draft, name string) {
	file := &draft{was: d.was, version: d.version, writer: d.writer, mtime: d.mtime, typ: int64(memdb.TypeFile), name: name, data: d.data, unnumbered: true}
	d.data = nil
	r.list = append(r.list, file)
	r.fix(d, "it had %d bytes of data; they are a file of their own now, %q", len(file.data), name)
	file.adrift = true
}

// number gives each entry an inode of its own, not beyond the version.
func (r *repair) number() {
	r.byID[memdb.RootInode] = r.root
	var homeless []*draft
	moved := make(map[uint64]*draft) // by old inode
	r.list = slices.DeleteFunc(r.list, func(d *draft) bool {
		if d.unnumbered || d.inode == memdb.RootInode {
			homeless = append(homeless, d)
			return false
		}
		other := r.byID[d.inode]
		switch {
		case other == nil:
			r.byID[d.inode] = d
			return false
		case other.name == d.name && other.parent == d.parent && bytes.Equal(other.data, d.data):
			r.fix(d, "the same row was found twice; one was dropped")
			return true
		case d.version > other.version:
			r.byID[d.inode] = d
			homeless = append(homeless, other)
		default:
			homeless = append(homeless, d)
		}
		return false
	})
	for _, d := range r.list {
		if d.inode > r.root.version && r.byID[d.inode] == d {
			homeless = append(homeless, d)
			moved[d.inode] = d
			delete(r.byID, d.inode)
		}
	}
	r.free = r.root.version
	slices.SortStableFunc(homeless, func(a, b *draft) int { return cmp.Compare(a.was, b.was) })
	for _, d := range homeless {
		d.inode = r.newInode()
		r.byID[d.inode] = d
		switch {
		case moved[d.was] == d:
			r.fix(d, "the inode was greater than the database's version %d; it is %d now", r.root.version, d.inode)
		case !d.adrift:
			r.drift(d, "another row has its inode; it is %d now", d.inode)
		}
	}
	for _, d := range r.list {
		if p := moved[d.parent]; p != nil {
			d.parent = p.inode
		}
		if d.version > r.root.version {
			r.fix(d, "the version, %d, was greater than the database's; it is %d now", d.version, r.root.version)
			d.version = r.root.version
		}
	}
}

// newInode returns an inode that is not in use: the greatest one below the
// version, or the next version if there is none.
func (r *repair) newInode() uint64 {
	for ; r.free > 0; r.free-- {
		if r.byID[r.free] == nil {
			return r.free
		}
	}
	r.root.version++
	r.fix(r.root, "the version had to be raised to %d", r.root.version)
	return r.root.version
}

// shape decides which entries are files and which are directories.
func (r *repair) shape() {
	children := make(map[uint64]int)
	for _, d := range r.list {
		if !d.adrift {
			children[d.parent]++
		}
	}
	for _, d := range slices.Clone(r.list) {
		switch d.typ {
		case int64(memdb.TypeFile):
			if children[d.inode] > 0 && len(d.data) == 0 {
				d.typ = int64(memdb.TypeDir)
				r.fix(d, "it was an empty file, but has %d entries; it is a directory now", children[d.inode])
			}
		case int64(memdb.TypeDir):
		default:
			was := d.typ
			d.typ = int64(memdb.TypeFile)
			if children[d.inode] > 0 {
				d.typ = int64(memdb.TypeDir)
			}
			r.fix(d, "the type was %d; it is a %v now", was, memdb.Type(d.typ))
		}
		if d.typ == int64(memdb.TypeDir) && len(d.data) > 0 {
			r.keepData(d, d.name)
			file := r.list[len(r.list)-1]
			file.inode = r.newInode()
			r.byID[file.inode] = file
		}
	}
}

// place finds entries that can't be reached from the root.
func (r *repair) place() {
	for _, d := range r.list {
		if d.adrift {
			continue
		}
		switch p := r.byID[d.parent]; {
		case p == nil:
			r.drift(d, "the parent, inode %d, does not exist", d.parent)
		case p != r.root && p.typ != int64(memdb.TypeDir):
			r.drift(d, "the parent, inode %d (%q), is a file", p.was, p.name)
		}
	}
	walked := make(map[*draft]int)
	for i, d := range r.list {
		for cur := d; cur != r.root && !cur.adrift && walked[cur] == 0; cur = r.byID[cur.parent] {
			walked[cur] = i + 1
			if up := r.byID[cur.parent]; walked[up] == i+1 {
				r.drift(up, "the directory contained itself")
				break
			}
		}
	}
}

// rename gives a valid name to entries without one.
func (r *repair) rename() {
	unreachable := strings.NewReplacer("/", "_", "\x00", "_")
	for _, d := range r.list {
		name := shorten(unreachable.Replace(d.name), memdb.MaxShownName)
		if !memdb.ShownName(name) {
			name = fmt.Sprintf("inode-%d", d.inode)
		}
		if name != d.name {
			r.fix(d, "the name is %q now", name)
			d.name = name
		}
	}
}

func shorten(name string, limit int) string { return name[:min(len(name), limit)] }

// duplicates leaves each name in a directory to one entry: directories of one name are
// merged, of others the one that changed last keeps it; but a directory with entries
// keeps it from a file.
func (r *repair) duplicates() {
	children := make(map[*draft][]*draft)
	var dirs []*draft // whose entries are to be looked at
	for _, d := range r.list {
		if d.adrift {
			dirs = append(dirs, d)
		} else {
			up := r.byID[d.parent]
			children[up] = append(children[up], d)
		}
	}
	dirs = append(dirs, r.root)
	merged := make(map[*draft]bool)
	for ; len(dirs) > 0; dirs = dirs[1:] {
		dir := dirs[0]
		winner := make(map[string]*draft)
		for _, d := range children[dir] {
			other := winner[d.name]
			if other == nil {
				winner[d.name] = d
				continue
			}
			if cmp.Or(cmp.Compare(len(children[d]), len(children[other])), cmp.Compare(d.version, other.version), cmp.Compare(d.inode, other.inode)) > 0 {
				winner[d.name], d, other = d, other, d
			}
			if d.typ != int64(memdb.TypeDir) || other.typ != int64(memdb.TypeDir) {
				r.drift(d, "the name exists twice in directory %d, inode %d keeps it", d.parent, other.was)
				dirs = append(dirs, d)
				continue
			}
			r.fix(d, "a directory of that name exists twice in directory %d; the %d entries of this one are in inode %d now", d.parent, len(children[d]), other.was)
			for _, child := range children[d] {
				child.parent = other.inode
			}
			children[other] = append(children[other], children[d]...)
			merged[d] = true
			delete(children, d)
			delete(r.byID, d.inode)
		}
		for _, d := range children[dir] {
			if winner[d.name] == d {
				dirs = append(dirs, d)
			}
		}
	}
	r.list = slices.DeleteFunc(r.list, func(d *draft) bool { return merged[d] })
}

// attach moves entries without a parent into LostAndFound.
func (r *repair) attach() {
	if !slices.ContainsFunc(r.list, func(d *draft) bool { return d.adrift }) {
		return
	}
	dir := r.root
	for name := range strings.SplitSeq(LostAndFound, "/") {
		i := slices.IndexFunc(r.list, func(d *draft) bool {
			return !d.adrift && d.parent == dir.inode && d.name == name
		})
		if i >= 0 && r.list[i].typ != int64(memdb.TypeDir) {
			r.drift(r.list[i], "a directory of that name is needed")
			i = -1
		}
		if i < 0 {
			inode := r.newInode()
			d := &draft{inode: inode, was: inode, parent: dir.inode, version: inode, mtime: r.root.mtime, typ: int64(memdb.TypeDir), name: name}
			r.byID[inode] = d
			r.list = append(r.list, d)
			r.fix(d, "the directory was made")
			i = len(r.list) - 1
		}
		dir = r.list[i]
	}
	names := make(map[string]bool)
	for _, d := range r.list {
		if !d.adrift && d.parent == dir.inode {
			names[d.name] = true
		}
	}
	for _, d := range r.list {
		if !d.adrift {
			continue
		}
		suffix := fmt.Sprintf(".inode-%d", d.was)
		for n := 2; names[shorten(d.name, memdb.MaxNameLen-len(suffix))+suffix]; n++ {
			suffix = fmt.Sprintf(".inode-%d.%d", d.was, n)
		}
		name := shorten(d.name, memdb.MaxNameLen-len(suffix)) + suffix
		names[name] = true
		r.fix(d, "it is %s/%s now", LostAndFound, name)
		d.name, d.parent, d.adrift = name, dir.inode, false
	}
}

// guests leaves each VMID to the configuration that changed last.
func (r *repair) guests() {
	for {
		tree, dups, err := memdb.Build(r.entries())
		if err != nil || len(dups) == 0 {
			return // an error is the caller's to find: it builds the tree, too
		}
		lose := make(map[uint64]string)
		for _, dup := range dups {
			kept, _ := tree.Lookup(dup.Kept)
			dropped, _ := tree.Lookup(dup.Dropped)
			if kept.Entry == nil || dropped.Entry == nil {
				return
			}
			if dropped.Version > kept.Version {
				lose[kept.Inode] = dup.Dropped
			} else {
				lose[dropped.Inode] = dup.Kept
			}
		}
		for _, inode := range slices.Sorted(maps.Keys(lose)) {
			r.drift(r.byID[inode], "%s has the same VMID", lose[inode])
		}
		r.attach()
	}
}

// entries returns the tree, ascending by inode.
func (r *repair) entries() []*memdb.Entry {
	root := r.root
	list := []*memdb.Entry{memdb.NewEntry(memdb.RootInode, memdb.RootInode, root.version, root.writer, root.mtime, memdb.TypeDir, "", nil)}
	for _, d := range r.list {
		list = append(list, memdb.NewEntry(d.inode, d.parent, d.version, d.writer, d.mtime, memdb.Type(d.typ), d.name, d.data))
	}
	slices.SortFunc(list, func(a, b *memdb.Entry) int { return cmp.Compare(a.Inode, b.Inode) })
	return list
}
