package memdb

import (
	"slices"
	"strings"
	"time"
)

// HeldLocks returns all locks, ascending by name. Unlike ObserveLocks it changes no note, and
// delays a writer no longer than reading one directory does. A lock whose present state this
// node has not noted counts as seen now.
func (t *Tree) HeldLocks(now time.Time) []Lock {
	list, notes := t.lockEntries()
	for i := range list {
		l := &list[i]
		l.Digest, l.Since = l.Entry.Digest(), now
		if note := notes[i]; note.digest == l.Digest {
			l.Since = note.since
		}
	}
	slices.SortFunc(list, func(a, b Lock) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// lockEntries returns the locks, in no order, and the note of each.
func (t *Tree) lockEntries() (list []Lock, notes []lockNote) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	dir := t.find(LockDir)
	if dir == nil {
		return nil, nil
	}
	for name, n := range dir.kids {
		if n.e.IsDir() {
			list = append(list, Lock{Name: name, Entry: n.e})
			notes = append(notes, t.locks[Join(LockDir, name)])
		}
	}
	return list, notes
}
