package memdb

import "strings"

// carryOut makes the changes of an operation that plan has allowed; all but
// the root's.
func (t *Tree) carryOut(op *Op, s *step) []Change {
	changes := make([]Change, 0, 3) // the most there are: rename onto something, and the root
	switch op.Kind {
	case OpMkdir:
		c := t.make(op, s, TypeDir)
		t.noteLock(op.Path, c.New, op.Now)
		changes = append(changes, c)
	case OpCreate:
		changes = append(changes, t.make(op, s, TypeFile))
	case OpWrite:
		e := s.node.e.next(t.nextVersion(), op.Writer, op.MTime)
		e.data = t.splice(s.node, op.Data, int(op.Offset), op.Truncate)
		changes = append(changes, t.replace(s.node, e))
	case OpMTime:
		c := t.replace(s.node, s.node.e.next(t.nextVersion(), op.Writer, op.MTime))
		if s.lock {
			t.noteLock(op.Path, c.New, op.Now)
		}
		changes = append(changes, c)
	case OpDelete:
		changes = append(changes, t.remove(s.node, op.Path))
	case OpRename:
		if s.target != nil {
			changes = append(changes, t.remove(s.target, op.To))
		}
		changes = append(changes, t.move(op, s))
	}
	if s.loses {
		t.guests.remove(s.lose.VMID)
	}
	if s.gains {
		s.gain.Node = s.dir.parent.e.Name // the same, but without the operation's path in tow
		t.guests.register(s.gain)
	}
	return changes
}

// replace publishes the next state of n's entry.
func (t *Tree) replace(n *node, e *Entry) Change {
	c := Change{n.inode, n.e, e}
	t.bytes += int64(len(e.data)) - int64(len(n.e.data))
	n.e = e
	return c
}

// make links a new, empty entry.
func (t *Tree) make(op *Op, s *step, typ Type) Change {
	v := t.nextVersion()
	name := strings.Clone(s.base) // or the entry would keep the whole path
	e := NewEntry(v, s.dir.inode, v, op.Writer, op.MTime, typ, name, nil)
	t.link(e)
	return Change{Inode: v, New: e}
}

// remove takes a file or empty directory out of the tree, the VM list and the
// locks.
func (t *Tree) remove(n *node, path string) Change {
	c := Change{Inode: n.inode, Old: n.e}
	t.unlink(n)
	if g, ok := ParseGuest(path); ok {
		t.guests.remove(g.VMID)
	}
	t.dropNote(path)
	return c
}

// move puts an entry into another directory or under another name.
func (t *Tree) move(op *Op, s *step) Change {
	n := s.node
	e := n.e.next(t.nextVersion(), op.Writer, op.MTime)
	e.Parent, e.Name = s.dir.inode, strings.Clone(s.base)
	n.parent.drop(n)
	n.parent = s.dir
	c := t.replace(n, e)
	n.parent.put(n)
	return c
}
