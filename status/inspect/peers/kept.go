package peers

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"pmxcfs/memdb"
)

// kept is a state of the tree, of which an asker wants to know more. Entries never
// change: keeping them costs the pointers, and the memory of what the tree itself
// has dropped meanwhile.
type kept struct {
	entries []*memdb.Entry // ascending by inode, the root first
	until   time.Time      // then it is dropped
}

func (k *kept) version() uint64 { return k.entries[0].Version }

// digest is that of the index: of what a synchronisation would compare.
func (k *kept) digest() [32]byte { return sha256.Sum256(memdb.EncodeIndex(k.entries)) }

// from returns the position of the first entry whose inode is at least so much.
func (k *kept) from(inode uint64) int {
	i, _ := slices.BinarySearchFunc(k.entries, inode, func(e *memdb.Entry, inode uint64) int { return cmp.Compare(e.Inode, inode) })
	return i
}

// ranges answers for ranges.
func (k *kept) ranges(bounds []uint64) ranges {
	list := make([]rangeSum, len(bounds))
	h := sha256.New()
	for i, first := range bounds {
		end := len(k.entries)
		if i+1 < len(bounds) {
			end = k.from(bounds[i+1])
		}
		part := k.entries[min(k.from(first), end):end]
		h.Reset()
		var b [8]byte
		for _, e := range part {
			binary.LittleEndian.PutUint64(b[:], e.Inode)
			h.Write(b[:])
			d := e.IndexDigest()
			h.Write(d[:])
		}
		list[i] = rangeSum{Count: uint32(len(part))}
		copy(list[i].Sum[:], h.Sum(nil))
	}
	return ranges{list}
}

// split returns the bounds of n ranges, at most, of as many entries each as the
// next one.
func (k *kept) split(n int) []uint64 {
	n = max(1, min(n, len(k.entries)))
	bounds := make([]uint64, n)
	for i := range bounds {
		bounds[i] = k.entries[i*len(k.entries)/n].Inode
	}
	return bounds
}

// sums answers for entries.
func (k *kept) sums(spans []span) (a entries) {
	for _, s := range spans {
		for i := k.from(s.First); i < len(k.entries) && k.entries[i].Inode <= s.Last; i++ {
			if len(a.List) == maxEntries {
				a.Cut = true
				return a
			}
			e := k.entries[i]
			d := e.IndexDigest()
			sum := entrySum{Inode: e.Inode}
			copy(sum.Sum[:], d[:])
			a.List = append(a.List, sum)
		}
	}
	return a
}

// maxHashed bounds the bytes of content that one question has hashed.
const maxHashed = 64 << 20

// details answers for details.
func (k *kept) details(inodes []uint64) details {
	list := make([]detail, 0, len(inodes))
	hashed := 0
	for _, inode := range inodes {
		e := k.find(inode)
		if e == nil {
			continue
		}
		t := detail{
			Inode: e.Inode, Parent: e.Parent, Version: e.Version, Writer: e.Writer, MTime: e.MTime,
			Size: uint32(e.Size()), Type: uint8(e.Type), Path: k.path(e),
		}
		if hashed += e.Size(); !e.IsDir() && hashed <= maxHashed {
			sum := sha256.Sum256(e.Data())
			t.Hashed = true
			copy(t.Content[:], sum[:])
		}
		list = append(list, t)
	}
	return details{list}
}

func (k *kept) find(inode uint64) *memdb.Entry {
	if i := k.from(inode); i < len(k.entries) && k.entries[i].Inode == inode {
		return k.entries[i]
	}
	return nil
}

// path returns an entry's path; of one that is not below the root, what there is
// of it, and no more of its end than a message holds.
func (k *kept) path(e *memdb.Entry) string {
	path := ""
	for n := len(k.entries); n > 0 && e != nil && e.Inode != memdb.RootInode && len(path) <= maxPath; n-- {
		if path == "" {
			path = e.Name
		} else {
			path = e.Name + "/" + path
		}
		e = k.find(e.Parent)
	}
	return path[max(0, len(path)-maxPath):]
}
