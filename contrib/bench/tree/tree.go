// Package tree makes databases of a given shape, quickly, and knows the names of
// the files in them.
package tree

import (
	"bytes"
	"fmt"
	"strconv"

	"pmxcfs/memdb"
)

// Shape says what a tree holds: files of one size, spread evenly over
// directories.
type Shape struct {
	Name  string `json:"name"`
	Files int    `json:"files"`
	Size  int    `json:"size"`  // of a file, in bytes
	Dirs  int    `json:"dirs"`  // that the files are in
	Guest bool   `json:"guest"` // the files are guests, the directories those of nodes
}

// Path returns the path of file number i, without a leading slash.
func (s *Shape) Path(i int) string {
	dir := i % s.Dirs
	if s.Guest {
		return fmt.Sprintf("nodes/%s/qemu-server/%s", nodeName(dir), fileName(i))
	}
	return fmt.Sprintf("full/%d/%s", dir, fileName(i))
}

func nodeName(i int) string { return "node" + strconv.Itoa(i+1) }
func fileName(i int) string { return strconv.Itoa(100+i) + ".conf" }

// Count returns the number of entries, the root included.
func (s *Shape) Count() int {
	dirs := s.Dirs
	if s.Guest {
		dirs *= 2
	}
	return 2 + dirs + s.Files
}

// Entries returns the tree's entries, the root first.
func (s *Shape) Entries() []*memdb.Entry {
	const now = 1700000000
	root := memdb.NewEntry(memdb.RootInode, memdb.RootInode, uint64(2+2*s.Dirs+1+s.Files), 0, now, memdb.TypeDir, "", nil)
	list := []*memdb.Entry{root}
	inode := uint64(1)
	add := func(parent uint64, typ memdb.Type, name string, data []byte) uint64 {
		inode++
		list = append(list, memdb.NewEntry(inode, parent, inode, 0, now, typ, name, data))
		return inode
	}
	top := "full"
	if s.Guest {
		top = "nodes"
	}
	parent := add(memdb.RootInode, memdb.TypeDir, top, nil)
	dirs := make([]uint64, s.Dirs)
	for i := range dirs {
		if !s.Guest {
			dirs[i] = add(parent, memdb.TypeDir, strconv.Itoa(i), nil)
			continue
		}
		node := add(parent, memdb.TypeDir, nodeName(i), nil)
		dirs[i] = add(node, memdb.TypeDir, "qemu-server", nil)
	}
	data := Content(s.Size)
	for i := range s.Files {
		add(dirs[i%s.Dirs], memdb.TypeFile, fileName(i), data)
	}
	return list
}

// Content returns text of n bytes, about as a configuration has it.
func Content(n int) []byte {
	line := []byte("net0: virtio=BC:24:11:2E:5A:01,bridge=vmbr0,firewall=1\n")
	return bytes.Repeat(line, n/len(line)+1)[:n]
}

// Stamp writes n into each page of b, of any length.
func Stamp(b []byte, n uint64) {
	const page = 4096
	for off := 0; off+20 <= len(b); off += page {
		at := b[off : off+20]
		for i, x := 19, n; i >= 0; i, x = i-1, x/10 {
			at[i] = byte('0' + x%10)
		}
	}
}
