package memdb

import (
	"maps"
	"slices"
	"time"
)

// LockTimeout is how long a node must have seen a lock unchanged before it
// agrees to break it.
const LockTimeout = 120 * time.Second

// lockNote is this node's memory of a lock: the state in which it saw the
// directory, and since when.
type lockNote struct {
	digest Digest
	since  time.Time
}

// Lock is a cluster-wide lock: a directory in priv/lock.
type Lock struct {
	Name   string
	Entry  *Entry
	Digest Digest    // of the entry in this state
	Since  time.Time // when this node first saw it so
}

// Expired reports whether the lock has been unchanged for more than
// LockTimeout.
func (l Lock) Expired(now time.Time) bool { return now.Sub(l.Since) > LockTimeout }

// noteLock remembers the state of a lock, if path is one. Without a time it
// leaves that to the next look.
func (t *Tree) noteLock(path string, e *Entry, now time.Time) {
	switch {
	case !isLockPath(path):
	case now.IsZero():
		t.dropNote(path)
	default:
		t.setNote(path, lockNote{e.Digest(), now})
	}
}

func (t *Tree) setNote(path string, note lockNote) {
	t.locks[path] = note
	t.counts.locks.Store(path, note.since)
}

func (t *Tree) dropNote(path string) {
	if _, ok := t.locks[path]; ok {
		delete(t.locks, path)
		t.counts.locks.Delete(path)
	}
}

// ObserveLock returns the lock at a clean path, if there is one. It notes the lock's present state
// as seen now, unless this node has seen that state before. (Creating the directory is what
// acquires a lock.)
func (t *Tree) ObserveLock(path string, now time.Time) (Lock, bool) {
	name, ok := LockName(path)
	if !ok {
		return Lock{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.find(path)
	if n == nil || !n.e.IsDir() {
		return Lock{}, false
	}
	note := t.refreshNote(path, n.e, now)
	return Lock{name, n.e, note.digest, note.since}, true
}

func (t *Tree) refreshNote(path string, e *Entry, now time.Time) lockNote {
	d := e.Digest()
	note, ok := t.locks[path]
	if !ok || note.digest != d {
		note = lockNote{d, now}
		t.setNote(path, note)
	}
	return note
}

// ObserveLocks returns all locks, ascending by name. It keeps the notes of unchanged locks
// and begins the others now: call it after the tree was loaded or replaced.
func (t *Tree) ObserveLocks(now time.Time) []Lock {
	t.mu.Lock()
	defer t.mu.Unlock()
	dir := t.find(LockDir)
	var list []Lock
	if dir != nil {
		for _, name := range slices.Sorted(maps.Keys(dir.kids)) {
			if e := dir.kids[name].e; e.IsDir() {
				note := t.refreshNote(Join(LockDir, name), e, now)
				list = append(list, Lock{name, e, note.digest, note.since})
			}
		}
	}
	if len(t.locks) > len(list) {
		held := make(map[string]bool, len(list))
		for _, l := range list {
			held[Join(LockDir, l.Name)] = true
		}
		for path := range t.locks {
			if !held[path] {
				t.dropNote(path)
			}
		}
	}
	return list
}

// ReleaseLock deletes the lock at op.Path if its entry is in the state that digest
// names; otherwise it changes nothing and reports false.
func (t *Tree) ReleaseLock(op *Op, digest Digest) (Result, bool) {
	if !isLockPath(op.Path) {
		return Result{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.find(op.Path); n == nil || !n.e.IsDir() || n.e.Digest() != digest {
		return Result{}, false
	}
	del := *op
	del.Kind = OpDelete
	res, err := t.apply(&del)
	return res, err == nil
}
