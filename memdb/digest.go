package memdb

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	indexHeaderSize = 32
	indexEntrySize  = 8 + DigestSize
)

// Checksum returns the digest over the whole tree by which nodes verify that
// they hold the same.
func (t *Tree) Checksum() Digest { return Checksum(t.Entries()) }

// Checksum returns the digest over a tree's entries, which must be ascending by
// inode and begin with the root: that of one state of a tree which meanwhile
// goes on.
func Checksum(entries []*Entry) Digest {
	h := sha256.New()
	fields := make([]byte, 0, 512)
	for _, e := range entries {
		fields = e.appendFields(fields[:0], true)
		h.Write(fields)
		if e.Type == TypeFile {
			h.Write(e.data)
		}
	}
	var d Digest
	h.Sum(d[:0])
	return d
}

// Index returns the tree's index in its wire form: the state that a
// synchronisation exchanges. Digests are kept with their entries, so only what
// changed since the last call is hashed.
func (t *Tree) Index() []byte { return EncodeIndex(t.Entries()) }

// EncodeIndex returns the index of entries, which must be ascending by inode
// and begin with the root.
func EncodeIndex(entries []*Entry) []byte {
	root, last := entries[0], entries[len(entries)-1]
	size := indexHeaderSize + indexEntrySize*len(entries)
	b := make([]byte, 0, size)
	b = binary.LittleEndian.AppendUint64(b, root.Version)
	b = binary.LittleEndian.AppendUint64(b, last.Inode)
	b = binary.LittleEndian.AppendUint32(b, root.Writer)
	b = binary.LittleEndian.AppendUint32(b, root.MTime)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	for _, e := range entries {
		d := e.IndexDigest()
		b = binary.LittleEndian.AppendUint64(b, e.Inode)
		b = append(b, d[:]...)
	}
	return b
}

// Index is a decoded index.
type Index struct {
	Version   uint64
	LastInode uint64
	Writer    uint32
	MTime     uint32
	Entries   []IndexEntry // ascending by inode
}

// IndexEntry is one entry of an index.
type IndexEntry struct {
	Inode  uint64
	Digest Digest
}

// DecodeIndex takes an index apart. It keeps nothing of b.
func DecodeIndex(b []byte) (*Index, error) {
	if len(b) < indexHeaderSize {
		return nil, &IndexError{"shorter than its header"}
	}
	x := &Index{
		Version:   binary.LittleEndian.Uint64(b),
		LastInode: binary.LittleEndian.Uint64(b[8:]),
		Writer:    binary.LittleEndian.Uint32(b[16:]),
		MTime:     binary.LittleEndian.Uint32(b[20:]),
	}
	n := uint64(binary.LittleEndian.Uint32(b[24:]))
	if want := indexHeaderSize + indexEntrySize*n; uint64(len(b)) != want || uint64(binary.LittleEndian.Uint32(b[28:])) != want {
		return nil, &IndexError{"its size does not fit the number of entries"}
	}
	x.Entries = make([]IndexEntry, n)
	for i := range x.Entries {
		at := b[indexHeaderSize+indexEntrySize*i:]
		e := &x.Entries[i]
		e.Inode = binary.LittleEndian.Uint64(at)
		copy(e.Digest[:], at[8:])
		if i > 0 && e.Inode <= x.Entries[i-1].Inode {
			return nil, &IndexError{"its inodes do not ascend"}
		}
	}
	if n == 0 || x.Entries[0].Inode != RootInode || x.Entries[n-1].Inode != x.LastInode {
		return nil, &IndexError{"its first or last inode is wrong"}
	}
	return x, nil
}

// Storable returns an *IndexError if a tree with this index could not be loaded from a
// database: nobody may follow it then, for they would not start any more.
func (x *Index) Storable() error {
	if x.Version < 1 || x.Version > MaxVersion {
		return &IndexError{fmt.Sprintf("the version %d is not between 1 and %d", x.Version, uint64(MaxVersion))}
	}
	for _, e := range x.Entries {
		if impossible(e.Inode) {
			return &IndexError{fmt.Sprintf("inode %d is one of those that a mount uses for itself", e.Inode)}
		}
	}
	return nil
}

// IndexError says why bytes are not an index.
type IndexError struct{ What string }

// Error describes the fault.
func (e *IndexError) Error() string { return "memdb: malformed index: " + e.What }
