package memdb

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// GuestType is the kind of guest that a configuration describes.
type GuestType uint8

const (
	GuestQemu GuestType = iota + 1
	GuestLXC
	GuestOpenVZ
)

// String returns the name that the VM list shows.
func (t GuestType) String() string {
	switch t {
	case GuestQemu:
		return "qemu"
	case GuestLXC:
		return "lxc"
	case GuestOpenVZ:
		return "openvz"
	}
	return "unknown"
}

// Dir returns the directory below nodes/NAME that holds this type's
// configurations.
func (t GuestType) Dir() string {
	if t == GuestQemu {
		return "qemu-server"
	}
	return t.String()
}

// Guest is one line of the VM list.
type Guest struct {
	VMID    uint32
	Node    string
	Type    GuestType
	Version uint32 // of its registration, from the list's counter
}

// Path returns the path of the guest's configuration.
func (g Guest) Path() string {
	return "nodes/" + g.Node + "/" + g.Type.Dir() + "/" + g.file()
}

func (g Guest) file() string { return strconv.FormatUint(uint64(g.VMID), 10) + ".conf" }

// sameOwner reports whether g and o name the same node and type.
func (g Guest) sameOwner(o Guest) bool { return g.Node == o.Node && g.Type == o.Type }

// ParseGuest takes a clean path apart if it is a guest's configuration:
// nodes/NODE/DIR/VMID.conf. Version is zero.
func ParseGuest(path string) (Guest, bool) {
	rest, ok := strings.CutPrefix(path, "nodes/")
	if !ok {
		return Guest{}, false
	}
	node, rest, _ := strings.Cut(rest, "/")
	dir, file, _ := strings.Cut(rest, "/")
	return guestAt(node, dir, file)
}

// guestAt is ParseGuest of a path's parts below nodes.
func guestAt(node, dir, file string) (Guest, bool) {
	var t GuestType
	switch dir {
	case "qemu-server":
		t = GuestQemu
	case "lxc":
		t = GuestLXC
	case "openvz":
		t = GuestOpenVZ
	default:
		return Guest{}, false
	}
	digits, ok := strings.CutSuffix(file, ".conf")
	if !ok || !validNodeName(node) {
		return Guest{}, false
	}
	if digits == "" || digits[0] < '1' || digits[0] > '9' {
		return Guest{}, false // no sign, no leading zero
	}
	id, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return Guest{}, false
	}
	return Guest{VMID: uint32(id), Node: node, Type: t}, true
}

// guest returns the guest that n is the configuration of, if it is one. Its
// strings are those of the tree.
func (n *node) guest() (Guest, bool) {
	if n.e.Type != TypeFile || n.parent.parent == nil {
		return Guest{}, false
	}
	dir, owner := n.parent, n.parent.parent
	if top := owner.parent; top == nil || top.parent == nil || top.parent.parent != nil || top.e.Name != "nodes" {
		return Guest{}, false
	}
	return guestAt(owner.e.Name, dir.e.Name, n.e.Name)
}

// validNodeName reports whether s is a host name: letters, digits and inner
// hyphens.
func validNodeName(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return true
}

// guestList is the VM list. The tree's lock guards it.
type guestList struct {
	ids     map[uint32]Guest
	version uint32 // of the list: up with each registration, removal and rebuild; 0 while it has always been empty
	counter uint32 // last version that a registration took
}

// taken reports whether g's VMID is registered with another node or type.
func (l *guestList) taken(g Guest) bool {
	have, ok := l.ids[g.VMID]
	return ok && !have.sameOwner(g)
}

func (l *guestList) register(g Guest) {
	l.counter++
	l.version++
	g.Version = l.counter
	l.ids[g.VMID] = g
}

func (l *guestList) remove(vmid uint32) {
	if _, ok := l.ids[vmid]; ok {
		l.version++
		delete(l.ids, vmid)
	}
}

// Duplicate is a VMID that more than one configuration claims.
type Duplicate struct {
	VMID    uint32
	Kept    string // path that the VM list shows
	Dropped string // path that it does not show
}

// rebuild makes the list anew from the tree, in the order of inodes: of two
// configurations that claim one VMID, the older one is kept. The counters go
// on, so that a client that polls them sees that it must look again; a list
// that was and stays empty keeps its version.
func (l *guestList) rebuild(t *Tree) []Duplicate {
	before := len(l.ids)
	l.ids = make(map[uint32]Guest, before)
	var dups []Duplicate
	for _, n := range t.order {
		if n.e == nil {
			continue
		}
		g, ok := n.guest()
		if !ok {
			continue
		}
		if have, ok := l.ids[g.VMID]; ok {
			dups = append(dups, Duplicate{g.VMID, have.Path(), g.Path()})
			continue
		}
		l.counter++
		g.Version = l.counter
		l.ids[g.VMID] = g
	}
	if before > 0 || len(l.ids) > 0 {
		l.version++
	}
	return dups
}

// follow makes l, a list just rebuilt, the successor of old: its counters go on
// from old's.
func (l *guestList) follow(old *guestList) {
	for id, g := range l.ids {
		g.Version += old.counter
		l.ids[id] = g
	}
	l.counter += old.counter
	l.version = old.version
	if len(old.ids) > 0 || len(l.ids) > 0 {
		l.version++
	}
}

// guestView is the VM list as readers want it. It never changes.
type guestView struct {
	version uint32
	list    []Guest    // ascending by VMID
	files   []guestRef // where each one's configuration is
	dirs    [][2]string
}

// guestRef is a file in one of a view's directories.
type guestRef struct {
	dir  int
	name string
}

// view returns the list's view at its present version. A reader makes it, for those after it.
func (t *Tree) view() *guestView {
	t.mu.RLock()
	v := t.guestView.Load()
	if v != nil && v.version == t.guests.version {
		t.mu.RUnlock()
		return v
	}
	v = &guestView{version: t.guests.version, list: make([]Guest, 0, len(t.guests.ids))}
	v.list = slices.AppendSeq(v.list, maps.Values(t.guests.ids))
	t.mu.RUnlock()
	slices.SortFunc(v.list, func(a, b Guest) int { return cmp.Compare(a.VMID, b.VMID) })
	v.files = make([]guestRef, len(v.list))
	index := make(map[[2]string]int)
	for i, g := range v.list {
		dir := [2]string{g.Node, g.Type.Dir()}
		at, ok := index[dir]
		if !ok {
			at = len(v.dirs)
			index[dir] = at
			v.dirs = append(v.dirs, dir)
		}
		v.files[i] = guestRef{at, g.file()}
	}
	t.guestView.Store(v)
	return v
}

// Guests returns the VM list, ascending by VMID, and its version. The slice is shared: it
// must not be written to.
func (t *Tree) Guests() ([]Guest, uint32) {
	v := t.view()
	return v.list, v.version
}

// guestChunk is how many guests' configurations are looked up while the lock is held once:
// some 10 µs.
const guestChunk = 256

// GuestFiles calls yield for each guest of the VM list, ascending by VMID, with the entry of its
// configuration: nil if it has moved or gone since the list was taken. yield is called without
// the lock; if it returns false, that was the last call.
func (t *Tree) GuestFiles(yield func(g Guest, e *Entry) bool) {
	v := t.view()
	dirs := make([]*node, len(v.dirs))
	found := make([]*Entry, min(len(v.list), guestChunk))
	for from := 0; from < len(v.list); from += guestChunk {
		part := v.files[from:min(from+guestChunk, len(v.list))]
		t.mu.RLock()
		clear(dirs)
		nodes := t.root.kids["nodes"]
		for i, ref := range part {
			found[i] = nil
			d := dirs[ref.dir]
			if d == nil && nodes != nil {
				if owner := nodes.kids[v.dirs[ref.dir][0]]; owner != nil {
					d = owner.kids[v.dirs[ref.dir][1]]
					dirs[ref.dir] = d
				}
			}
			if d == nil {
				continue
			}
			if n := d.kids[ref.name]; n != nil && !n.e.IsDir() {
				found[i] = n.e
			}
		}
		t.mu.RUnlock()
		for i := range part {
			if !yield(v.list[from+i], found[i]) {
				return
			}
		}
	}
}

// GuestsVersion returns the VM list's version: it changes whenever the list
// does.
func (t *Tree) GuestsVersion() uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.guests.version
}

// Guest returns the VM list's line for a VMID.
func (t *Tree) Guest(vmid uint32) (Guest, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	g, ok := t.guests.ids[vmid]
	return g, ok
}
