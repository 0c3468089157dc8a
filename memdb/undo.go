package memdb

// Delta is the difference between two states of the tree: for each inode
// concerned, the entry in the first state and in the last. Changes that
// overwrite each other in between leave no trace in it.
//
// The zero Delta is empty and ready for use. It is not safe for concurrent use.
type Delta struct {
	list []Change
	at   map[uint64]int // index in list by inode, once list is long
}

// deltaLinear is the length up to which a Delta is searched without a map.
const deltaLinear = 8

// Add appends the changes of one operation, which must have been applied to
// the tree after all those already in d.
func (d *Delta) Add(changes []Change) {
	for _, c := range changes {
		if i, ok := d.find(c.Inode); ok {
			d.list[i].New = c.New
			continue
		}
		if d.at != nil {
			d.at[c.Inode] = len(d.list)
		}
		d.list = append(d.list, c)
	}
}

func (d *Delta) find(inode uint64) (int, bool) {
	if d.at == nil {
		for i := range d.list {
			if d.list[i].Inode == inode {
				return i, true
			}
		}
		if len(d.list) < deltaLinear {
			return 0, false
		}
		d.at = make(map[uint64]int, 4*deltaLinear)
		for i := range d.list {
			d.at[d.list[i].Inode] = i
		}
		return 0, false
	}
	i, ok := d.at[inode]
	return i, ok
}

// Len returns the number of inodes concerned.
func (d *Delta) Len() int { return len(d.list) }

// Changes returns the difference, one change per inode, in the order in which
// the inodes were first touched. A change with neither an old nor a new entry
// is one that came and went. The slice belongs to d.
func (d *Delta) Changes() []Change { return d.list }

// Revert takes the changes of d back: the tree is again as it was before them.
// They must be the last that were made. The VM list is rebuilt and gets a new
// version; locks that changed begin anew when they are next looked at.
func (t *Tree) Revert(d *Delta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range d.list {
		n := t.nodes[c.Inode]
		switch {
		case n == nil || n == t.root:
		case c.Old == nil:
			t.unlink(n)
		default:
			n.parent.drop(n)
		}
	}
	for _, c := range d.list {
		if c.Old == nil {
			continue
		}
		n := t.nodes[c.Inode]
		if n == nil {
			t.add(c.Old)
			continue
		}
		t.replace(n, c.Old)
		n.used = -1
		delete(t.spare, n)
	}
	for _, c := range d.list {
		if c.Old == nil || c.Inode == RootInode {
			continue
		}
		n := t.nodes[c.Inode]
		n.parent = t.nodes[c.Old.Parent]
		n.parent.put(n)
	}
	for path := range t.locks {
		if n := t.find(path); n == nil || !n.e.IsDir() {
			t.dropNote(path)
		}
	}
	t.guests.rebuild(t)
	t.publish()
}
