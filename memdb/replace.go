package memdb

// Replace puts the content of next in the place of t's, as a synchronisation
// does: readers see all of the one or all of the other. next is used up. The
// VM list is next's, with a new version. Notes of locks that are unchanged are
// kept; Locks begins the others.
//
// It returns the differences, ascending by inode; the root comes first, if it
// differs. Callers that change t in other ways must wait meanwhile, or their changes
// are lost.
func (t *Tree) Replace(next *Tree) []Change {
	changes := t.compare(next)
	t.mu.Lock()
	defer t.mu.Unlock()
	next.mu.Lock()
	defer next.mu.Unlock()

	for n := range t.spare { // spare room that both know of is still to be given back
		if m := next.nodes[n.inode]; m != nil && m.e == n.e {
			next.spare[m] = n.e.Version
		}
	}
	next.guests.follow(&t.guests)
	t.nodes, t.root = next.nodes, next.root
	t.order, t.holes = next.order, next.holes
	t.bytes, t.guests, t.spare = next.bytes, next.guests, next.spare
	next.nodes, next.root, next.order, next.spare = nil, nil, nil, nil
	next.guests = guestList{}
	t.publish()
	return changes
}

// compare returns the changes that lead from t to next.
func (t *Tree) compare(next *Tree) []Change {
	old, now := t.Entries(), next.Entries()
	var changes []Change
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].Inode < now[0].Inode:
			changes = append(changes, Change{Inode: old[0].Inode, Old: old[0]})
			old = old[1:]
		case len(old) == 0 || now[0].Inode < old[0].Inode:
			changes = append(changes, Change{Inode: now[0].Inode, New: now[0]})
			now = now[1:]
		default:
			if !old[0].same(now[0]) {
				changes = append(changes, Change{old[0].Inode, old[0], now[0]})
			}
			old, now = old[1:], now[1:]
		}
	}
	return changes
}
