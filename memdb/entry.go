package memdb

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync/atomic"
)

// RootInode is the inode of the tree's root. The root's version, writer and
// modification time are those of the whole database.
const RootInode = 0

// Type is an entry's type, with the values of dirent's d_type.
type Type uint8

const (
	TypeDir  Type = 4 // DT_DIR
	TypeFile Type = 8 // DT_REG
)

// String returns "directory", "file", or the number of a type that is neither.
func (t Type) String() string {
	switch t {
	case TypeDir:
		return "directory"
	case TypeFile:
		return "file"
	}
	return "type " + itoa(uint64(t))
}

// DigestSize is the length in bytes of every digest in this package (SHA-256).
const DigestSize = sha256.Size

// Digest is a SHA-256 sum.
type Digest = [DigestSize]byte

// Entry is one state of one file or directory. Entries are shared and must not
// be changed once made; their content belongs to the tree.
type Entry struct {
	Inode   uint64 // the database version at which the entry was created; 0 for the root
	Parent  uint64 // inode of its directory
	Version uint64 // the database version of its last change
	Writer  uint32 // node id of the last writer; 0 in local mode
	MTime   uint32 // seconds since 1970
	Type    Type
	Name    string // without slash; empty for the root

	data  []byte
	index atomic.Pointer[Digest] // IndexDigest, once computed
}

// NewEntry returns an entry. It takes over data, which must be empty for a
// directory.
func NewEntry(inode, parent, version uint64, writer, mtime uint32, typ Type, name string, data []byte) *Entry {
	return &Entry{Inode: inode, Parent: parent, Version: version, Writer: writer, MTime: mtime,
		Type: typ, Name: name, data: data}
}

// IsDir reports whether e is a directory.
func (e *Entry) IsDir() bool { return e.Type == TypeDir }

// Size returns the content's length in bytes; 0 for a directory.
func (e *Entry) Size() int { return len(e.data) }

// Data returns the content. It is shared with the tree and with every other
// reader: it must not be written to.
func (e *Entry) Data() []byte { return e.data }

// next returns a copy of e as changed by version, writer and mtime. The copy
// shares e's content.
func (e *Entry) next(version uint64, writer, mtime uint32) *Entry {
	return &Entry{Inode: e.Inode, Parent: e.Parent, Version: version, Writer: writer, MTime: mtime,
		Type: e.Type, Name: e.Name, data: e.data}
}

// IndexDigest returns the digest by which a synchronisation compares e: all
// fields but the inode. It is computed once per entry and kept.
func (e *Entry) IndexDigest() Digest {
	if d := e.index.Load(); d != nil {
		return *d
	}
	h := sha256.New()
	e.hash(h, false)
	d := new(Digest)
	h.Sum(d[:0])
	e.index.Store(d)
	return *d
}

// Digest returns the digest that names e in exactly this state, inode
// included: what lock messages carry.
func (e *Entry) Digest() Digest {
	h := sha256.New()
	e.hash(h, true)
	var d Digest
	h.Sum(d[:0])
	return d
}

// hash writes e's fields in the order that all digests share; with inode, that
// comes first.
func (e *Entry) hash(h hash.Hash, inode bool) {
	b := make([]byte, 0, 8+8+4+4+4+1+8+256) // names have at most 255 bytes
	if inode {
		b = binary.LittleEndian.AppendUint64(b, e.Inode)
	}
	b = binary.LittleEndian.AppendUint64(b, e.Version)
	b = binary.LittleEndian.AppendUint32(b, e.Writer)
	b = binary.LittleEndian.AppendUint32(b, e.MTime)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.data)))
	b = append(b, byte(e.Type))
	b = binary.LittleEndian.AppendUint64(b, e.Parent)
	b = append(b, e.Name...)
	h.Write(b)
	if e.Type == TypeFile && len(e.data) > 0 {
		h.Write(e.data)
	}
}
