package fuse

import (
	"sync"
	"time"
)

// known is what the kernel may have of this mount: the inodes that it was told
// of and has not forgotten, and the names that it was told are not there. What
// it does not have it need not be told to forget. That is most of what other
// nodes change; and to tell it takes the directory's lock in the kernel, for which
// everybody queues who makes or deletes something there.
//
// A reply is noted here before the tree is read for it. So a change comes either
// before the reading, and the reply shows it, or after the noting, and
// whoever applied it finds the note.
type known struct {
	mu     sync.Mutex
	inodes map[uint64]uint64     // by node id: replies that named it, less those forgotten
	absent map[absence]time.Time // until when the kernel may believe it
}

type absence struct {
	dir  uint64
	name string
}

// maxAbsent is how many absences the kernel may keep. Others it asks for again.
const maxAbsent = 1 << 14

func newKnown() *known {
	return &known{inodes: make(map[uint64]uint64), absent: make(map[absence]time.Time)}
}

// add notes that a reply will name an inode.
func (k *known) add(id uint64) {
	k.mu.Lock()
	k.inodes[id]++
	k.mu.Unlock()
}

// forget takes back what n replies have noted, and reports whether none is left.
func (k *known) forget(id, n uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if have := k.inodes[id]; have > n {
		k.inodes[id] = have - n
		return false
	}
	delete(k.inodes, id)
	return true
}

// has reports whether the kernel may have an inode.
func (k *known) has(id uint64) bool {
	if id == rootID {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inodes[id] > 0
}

// all returns the inodes that the kernel may have.
func (k *known) all() []uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]uint64, 0, len(k.inodes)+1)
	for id := range k.inodes {
		list = append(list, id)
	}
	return append(list, rootID)
}

// addAbsent notes that a reply will say that there is no such name. False: there
// are too many such notes, and the kernel must not keep it.
func (k *known) addAbsent(dir uint64, name string) bool {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	a := absence{dir, name}
	if _, ok := k.absent[a]; !ok && len(k.absent) >= maxAbsent {
		k.prune(now)
		if len(k.absent) >= maxAbsent {
			return false
		}
	}
	k.absent[a] = now.Add(cacheTime + time.Minute) // the reply is still on its way
	return true
}

// prune drops what the kernel does not believe any more. mu is held.
func (k *known) prune(now time.Time) {
	for a, until := range k.absent {
		if now.After(until) {
			delete(k.absent, a)
		}
	}
}

// takeAbsent reports whether the kernel may believe that there is no such name, and
// drops the note: the caller makes the kernel forget it, or knows that it does.
func (k *known) takeAbsent(dir uint64, name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := absence{dir, name}
	_, ok := k.absent[a]
	delete(k.absent, a)
	return ok
}

// takeAbsentIn drops all such notes of a directory, and returns the names.
func (k *known) takeAbsentIn(dir uint64) (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for a := range k.absent {
		if a.dir == dir {
			names = append(names, a.name)
			delete(k.absent, a)
		}
	}
	return names
}
