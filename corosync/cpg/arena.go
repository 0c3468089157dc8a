package cpg

// Messages up to arenaSmall bytes share allocations of arenaChunk bytes; one
// that is kept keeps its chunk.
const (
	arenaChunk = 64 << 10
	arenaSmall = 4 << 10
)

// arena copies messages: many small ones at the cost of one allocation. What it
// has given out is never written again.
type arena struct {
	free []byte // the unused rest of a chunk is its capacity
}

func (a *arena) copy(msg []byte) []byte {
	if len(msg) > arenaSmall {
		// append, unlike make, doesn't clear what it is about to write
		return append([]byte(nil), msg...)
	}
	if cap(a.free)-len(a.free) < len(msg) {
		a.free = make([]byte, 0, arenaChunk)
	}
	begin := len(a.free)
	a.free = append(a.free, msg...)
	return a.free[begin:len(a.free):len(a.free)]
}
