package memdb

import (
	"bytes"
	"math"
)

// splice returns a file's content after a write of data at offset.
//
// Published content never changes, but what lies in its array behind its end
// belongs to nobody: an append that fits there is made in place. n.used tells
// how far an array has been given out, so that no two states of a file ever
// append to the same bytes.
func (t *Tree) splice(n *node, data []byte, offset int, truncate bool) []byte {
	old := n.e.data
	end := offset + len(data)
	size := max(end, len(old))
	if truncate {
		size = end
	}
	switch {
	case size == 0:
		n.used = -1
		return nil
	case size == len(old) && len(data) == 0:
		return old
	case offset == 0 && len(data) == size:
		n.used = size
		return bytes.Clone(data)
	case offset >= len(old) && n.used == len(old) && size <= cap(old):
		buf := old[:size]
		clear(buf[len(old):offset])
		copy(buf[offset:], data)
		n.used = size
		return buf
	}
	room := size
	if offset > 0 && offset >= len(old) && len(data) > 0 { // grows at its end, and will again
		room = min(size+max(size/2, 4096), max(MaxFileSize, size))
		t.spare[n] = math.MaxUint64
	}
	buf := make([]byte, size, room)
	copy(buf, old[:min(len(old), size)])
	copy(buf[offset:], data)
	n.used = size
	return buf
}

// Trim gives back the spare room of files that were appended to and have not
// changed since the last call, and reports whether there is more, for which it is to be
// called again.
func (t *Tree) Trim() (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, seen := range t.spare {
		e := n.e
		if e.Version != seen {
			t.spare[n] = e.Version
			continue
		}
		delete(t.spare, n)
		if cap(e.data)-len(e.data) <= len(e.data)/8 {
			continue
		}
		trimmed := e.next(e.Version, e.Writer, e.MTime)
		trimmed.data = bytes.Clone(e.data)
		trimmed.index.Store(e.index.Load())
		n.e, n.used = trimmed, len(trimmed.data)
	}
	return len(t.spare) > 0
}
