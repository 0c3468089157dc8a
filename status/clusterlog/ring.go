package clusterlog

import (
	"errors"
	"fmt"
	"slices"
)

// ErrRing is wrapped by the error about bytes that are not a ring.
var ErrRing = errors.New("clusterlog: malformed ring")

// ring is a ring buffer that this package has written itself.
type ring struct{ buf []byte }

func newRing() ring {
	buf := make([]byte, RingSize)
	le.PutUint32(buf[ringSizeOff:], RingSize)
	return ring{buf}
}

// add appends a copy of e, with zero padding, over the oldest entries if need
// be.
func (r ring) add(e Entry) {
	newest := int(le.Uint32(r.buf[ringNewestOff:]))
	pos, size := ringHeader, align8(len(e.raw))
	if newest != 0 {
		pos = int(le.Uint32(r.buf[newest+entryNextOff:]))
		if pos+size >= RingSize {
			pos = ringHeader
		}
	}
	b := r.buf[pos : pos+size]
	n := copy(b, e.raw)
	clear(b[n-entryPadding:])
	le.PutUint32(b[entryPrevOff:], uint32(newest))
	le.PutUint32(b[entryNextOff:], uint32(pos+size))
	le.PutUint32(r.buf[ringNewestOff:], uint32(pos))
}

// entries lists what can be walked to, newest first, in the ring's memory.
func (r ring) entries() []Entry {
	list, err := ParseRing(r.buf)
	if err != nil {
		// Only add writes the ring, and a test walks it after every
		// kind of wrap: an empty log is the answer that harms least.
		return nil
	}
	return list
}

// ParseRing walks a ring, newest entry first, in the ring's own order. The
// entries share b's memory. An offset is followed only where an entry can be:
// walking goes down from the newest entry, once around the end of the buffer,
// and down to what the newest entry has overwritten; whatever else an offset
// does, or an entry that is malformed or runs into the one walked before, makes
// the whole ring be refused with an error that wraps ErrRing.
func ParseRing(b []byte) ([]Entry, error) {
	if len(b) != RingSize || le.Uint32(b[ringSizeOff:]) != RingSize {
		return nil, fmt.Errorf("%w: not of %d bytes", ErrRing, RingSize)
	}
	newest := int64(le.Uint32(b[ringNewestOff:]))
	var list []Entry
	wrapped := false
	ceiling := int64(RingSize) // where what has been walked already begins
	for pos := newest; pos != 0; {
		if pos%8 != 0 || pos < ringHeader || pos > RingSize-minEntrySize {
			return nil, fmt.Errorf("%w: an offset leads to %d", ErrRing, pos)
		}
		size, err := entrySize(b[pos:ceiling])
		if err != nil {
			return nil, fmt.Errorf("%w: at offset %d: %w", ErrRing, pos, err)
		}
		e := Entry{b[pos : pos+int64(size) : pos+int64(size)]}
		if next := le.Uint32(e.raw[entryNextOff:]); int64(next) != pos+int64(align8(size)) {
			return nil, fmt.Errorf("%w: at offset %d: next is %d", ErrRing, pos, next)
		}
		list = append(list, e)

		prev := int64(le.Uint32(e.raw[entryPrevOff:]))
		switch {
		case prev >= newest && prev < newest+MaxEntrySize,
			!wrapped && prev > pos && prev <= newest:
			return list, nil // overwritten: pos was the oldest
		case wrapped && prev != 0 && (prev > pos || prev < newest):
			return nil, fmt.Errorf("%w: going around twice, at offset %d", ErrRing, pos)
		case prev > pos:
			wrapped = true
			ceiling = RingSize
		default:
			ceiling = pos
		}
		pos = prev
	}
	return list, nil
}

// rebuild makes a ring of the entries, oldest first, one of each key. It
// reorders list.
func rebuild(list []Entry) ring {
	slices.SortStableFunc(list, func(a, b Entry) int { return a.key().compare(b.key()) })
	r := newRing()
	for i, e := range list {
		if i == 0 || e.key() != list[i-1].key() {
			r.add(e)
		}
	}
	return r
}

// mergeLimit is how many bytes of entries end a merge: with one more of the
// largest size the ring is still not full.
const mergeLimit = RingSize - ringHeader - MaxEntrySize

// merge takes the newest entries of all lists until the ring is full. Of
// entries with the same key the first one met counts.
func merge(lists [][]Entry) ring {
	var all []Entry
	seen := make(map[key]struct{})
	for _, list := range lists {
		for _, e := range list {
			k := e.key()
			if _, dup := seen[k]; !dup {
				seen[k] = struct{}{}
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return b.key().compare(a.key()) })
	used := 0
	for i, e := range all {
		if used >= mergeLimit {
			all = all[:i]
			break
		}
		used += align8(len(e.raw))
	}
	return rebuild(all)
}
