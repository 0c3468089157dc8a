package fuse

import (
	"sync"
	"time"

	"pmxcfs/memdb"
)

// recentTime is how long a changed file counts as being changed.
const recentTime = 100 * time.Millisecond

// recentMax is how many files are remembered before old ones are looked for.
const recentMax = 1024

// recent remembers which files' contents have changed a moment ago.
//
// Such a file is read without the kernel's pages. They would be dropped again
// soon; and dropping them while a reader fills one is the one thing that a
// daemon can't be killed in: the kernel waits for the page, whose reader waits for
// an answer of the process that is ending. (See EndDying.)
type recent struct {
	since time.Time // nothing is known of before: then everything counts as recent
	mu    sync.Mutex
	at    map[uint64]time.Time // by inode
}

func newRecent() *recent {
	return &recent{since: time.Now(), at: make(map[uint64]time.Time)}
}

// note remembers the files among changes.
func (r *recent) note(changes []memdb.Change) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if c.New == nil || c.New.IsDir() {
			delete(r.at, c.Inode)
			continue
		}
		if len(r.at) >= recentMax {
			r.prune(now)
		}
		r.at[c.Inode] = now
	}
}

// prune forgets the files that have rested, or everything if all of it is recent. mu is
// held.
func (r *recent) prune(now time.Time) {
	for inode, at := range r.at {
		if now.Sub(at) > recentTime {
			delete(r.at, inode)
		}
	}
	if len(r.at) >= recentMax {
		clear(r.at)
	}
}

func (r *recent) has(inode uint64) bool {
	now := time.Now()
	if now.Sub(r.since) < recentTime {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.at[inode]
	return ok && now.Sub(at) < recentTime
}
