package memdb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
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
func (e *Entry) Data() []byte { return e.data[:len(e.data):len(e.data)] }

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
	d := e.sum(false)
	e.index.Store(&d)
	return d
}

// Digest returns the digest that names e in exactly this state, inode
// included. Lock messages carry it.
func (e *Entry) Digest() Digest { return e.sum(true) }

// sum hashes e, with or without its inode. What is small is put together on
// the stack and hashed at once, without an allocation.
func (e *Entry) sum(inode bool) (d Digest) {
	if len(e.data) <= 2048 {
		var buf [2048 + 512]byte
		b := e.appendFields(buf[:0], inode)
		if e.Type == TypeFile {
			b = append(b, e.data...)
		}
		return sha256.Sum256(b)
	}
	h := sha256.New()
	h.Write(e.appendFields(make([]byte, 0, 512), inode))
	if e.Type == TypeFile {
		h.Write(e.data)
	}
	h.Sum(d[:0])
	return d
}

// appendFields appends e's fields but the content, in the order that all
// digests share; with inode, that comes first.
func (e *Entry) appendFields(b []byte, inode bool) []byte {
	if inode {
		b = binary.LittleEndian.AppendUint64(b, e.Inode)
	}
	b = binary.LittleEndian.AppendUint64(b, e.Version)
	b = binary.LittleEndian.AppendUint32(b, e.Writer)
	b = binary.LittleEndian.AppendUint32(b, e.MTime)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.data)))
	b = append(b, byte(e.Type))
	b = binary.LittleEndian.AppendUint64(b, e.Parent)
	return append(b, e.Name...)
}

// same reports whether e and o are the same state of the same entry.
func (e *Entry) same(o *Entry) bool {
	return e == o || e.Inode == o.Inode && e.Version == o.Version && e.Parent == o.Parent &&
		e.Writer == o.Writer && e.MTime == o.MTime && e.Type == o.Type && e.Name == o.Name &&
		bytes.Equal(e.data, o.data)
}
