package clusterlog

import "encoding/binary"

// The binary form of the ring and of an entry, as the specification's section
// "Cluster log" of the status store has it. All integers are little-endian.
const (
	// RingSize is the size of a ring in bytes, its header included. A ring of
	// any other size is not a ring.
	RingSize = 131072

	// MaxEntrySize is the size in bytes of the largest entry, padding
	// included.
	MaxEntrySize = 4096

	// maxName is the longest node, ident or tag in bytes, without its NUL.
	maxName = 254

	// Ring header: u32 size, u32 position of the newest entry (0 means empty).
	ringSizeOff   = 0
	ringNewestOff = 4
	ringHeader    = 8

	// Entry header, 44 bytes, then node, ident, tag and message, each with
	// its NUL, then 4 bytes of padding of any content.
	entryPrevOff        = 0
	entryNextOff        = 4
	entryUIDOff         = 8
	entryTimeOff        = 12
	entryNodeDigestOff  = 16
	entryIdentDigestOff = 24
	entryPIDOff         = 32
	entryPriorityOff    = 36
	entryNodeLenOff     = 37
	entryIdentLenOff    = 38
	entryTagLenOff      = 39
	entryMessageLenOff  = 40
	entryStringsOff     = 44
	entryPadding        = 4

	// entryOverhead is what an entry takes besides its strings; minEntrySize
	// is an entry of four empty strings.
	entryOverhead = entryStringsOff + entryPadding
	minEntrySize  = entryOverhead + 4
)

var le = binary.LittleEndian

// align8 rounds up to the alignment of entries in a ring.
func align8(n int) int { return (n + 7) &^ 7 }

// Digest is the 64-bit FNV-1a hash over s and a NUL byte: the form in which
// entries name their node and their ident.
func Digest(s string) uint64 {
	const (
		offsetBasis = 14695981039346656037
		prime       = 1099511628211
	)
	h := uint64(offsetBasis)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * prime
	}
	return h * prime // the NUL
}
