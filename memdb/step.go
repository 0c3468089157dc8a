package memdb

// Step is an operation that was carried out, and what it changed: what an observer needs
// to remember it. Nothing in it changes any more.
type Step struct {
	Kind     Kind
	Path, To string // as in Op
	Tail     bool   // a write at the end of a file that is not empty, or behind it
	Changes  []Change
}

// StepOf returns the step that op and its result are.
func StepOf(op *Op, changes []Change) Step {
	s := Step{Kind: op.Kind, Path: CleanPath(op.Path), Changes: changes}
	if n := len(changes) - 2; op.Kind == OpWrite && n >= 0 && changes[n].Old != nil {
		size := changes[n].Old.Size()
		s.Tail = size > 0 && int(op.Offset) >= size
	}
	if op.Kind == OpRename {
		s.To = CleanPath(op.To)
	}
	return s
}

// Roots returns the tree's root before and after the step.
func (s *Step) Roots() (before, after *Entry) {
	last := s.Changes[len(s.Changes)-1]
	return last.Old, last.New
}

// Difference is what became of one path or entry when a tree was replaced by another.
type Difference struct {
	From string // where Old was
	Old  *Entry // nil: there was none
	To   string // where New is
	New  *Entry // nil: it is gone
}

// Differences says of changes that lead from t to next, as a synchronisation makes them, at
// which paths they are. The root is left out. What lies in a directory that was moved is
// among them, even if it has not changed itself.
func (t *Tree) Differences(next *Tree, changes []Change) []Difference {
	list := make([]Difference, 0, len(changes))
	known := make(map[uint64]bool, len(changes))
	add := func(inode uint64) *Difference {
		if inode == RootInode || known[inode] {
			return nil
		}
		known[inode] = true
		var d Difference
		if e, ok := t.Get(inode); ok {
			d.Old = e.Entry
			d.From, _ = t.Path(inode)
		}
		if e, ok := next.Get(inode); ok {
			d.New = e.Entry
			d.To, _ = next.Path(inode)
		}
		list = append(list, d)
		return &list[len(list)-1]
	}
	var below func(tree *Tree, dir uint64)
	below = func(tree *Tree, dir uint64) {
		kids, _ := tree.ReadDir(dir)
		for _, k := range kids {
			add(k.Inode)
			if k.IsDir() {
				below(tree, k.Inode)
			}
		}
	}
	for _, c := range changes {
		d := add(c.Inode)
		if d != nil && d.Old != nil && d.New != nil && d.From != d.To && (d.Old.IsDir() || d.New.IsDir()) {
			below(t, c.Inode)
			below(next, c.Inode)
		}
	}
	return list
}
