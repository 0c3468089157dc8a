package memdb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a row of a stored tree.
type Problem struct {
	Inode uint64
	Name  string
	What  string // without the row's inode and name
	Fatal bool   // the tree can't be loaded; otherwise a warning

	// Unsound tells that no daemon writes such a row, although it is loaded: a
	// hand or a damaged page has changed it. All that is fatal is unsound.
	Unsound bool
}

// String describes the row and its fault.
func (p Problem) String() string {
	return fmt.Sprintf("inode %d (%q): %s", p.Inode, p.Name, p.What)
}

// LoadError says why a set of entries is not a tree. It lists every problem,
// not only the first.
type LoadError struct {
	Problems []Problem
}

// Error names the first problem and how many more there are.
func (e *LoadError) Error() string {
	msg := "the rows are not a valid tree: " + e.Problems[0].String()
	if n := len(e.Problems) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %d more)", n)
	}
	return msg
}

// DuplicateError says which VMIDs more than one guest configuration claims.
type DuplicateError struct {
	Duplicates []Duplicate
}

// Error names both paths of each duplicate.
func (e *DuplicateError) Error() string {
	parts := make([]string, len(e.Duplicates))
	for i, d := range e.Duplicates {
		parts[i] = fmt.Sprintf("VMID %d is claimed by %s and %s", d.VMID, d.Kept, d.Dropped)
	}
	return strings.Join(parts, "; ")
}

// Build makes a tree of entries, which must hold the root and may come in any
// order. A *LoadError describes the fault if they are no tree. The duplicates are
// the guest configurations that the VM list had to leave out; whether that is
// a failure is for the caller to say.
func Build(entries []*Entry) (*Tree, []Duplicate, error) {
	if bad := fatal(Check(entries)); len(bad) > 0 {
		return nil, nil, &LoadError{bad}
	}
	sorted := entries
	if !slices.IsSortedFunc(entries, byInode) {
		sorted = slices.SortedFunc(slices.Values(entries), byInode)
	}
	t := newTree(len(sorted))
	nodes := make([]node, len(sorted))
	for i, e := range sorted {
		n := &nodes[i]
		n.inode, n.e, n.used = e.Inode, e, -1
		if e.IsDir() {
			n.kids = make(map[string]*node)
		}
		t.nodes[e.Inode] = n
		t.order = append(t.order, n)
		t.bytes += int64(len(e.data))
	}
	t.root = t.nodes[RootInode]
	for _, n := range t.order {
		if n == t.root {
			continue
		}
		n.parent = t.nodes[n.e.Parent]
		n.parent.kids[n.e.Name] = n
	}
	dups := t.guests.rebuild(t)
	t.publish()
	return t, dups, nil
}

func byInode(a, b *Entry) int { return cmp.Compare(a.Inode, b.Inode) }

func fatal(all []Problem) []Problem {
	return slices.DeleteFunc(all, func(p Problem) bool { return !p.Fatal })
}

// The numbers that a tree can hold. Loading a database, storing what a leader sent
// and checking a file go by the same rule: Check.
const (
	// MaxVersion is the greatest version that a database can have. A database counts
	// its changes and never comes near. Inodes are versions, too: those above would
	// be taken for what a mount numbers by itself, from reservedInodes on.
	MaxVersion = 1<<62 - 1

	// Inodes from reservedInodes up to endOfReserved are refused. Greater ones are
	// small negative numbers in the file (somebody's "UPDATE tree SET inode=-5"),
	// which the stock daemon loads, and which are in nobody's way.
	reservedInodes = MaxVersion + 1
	endOfReserved  = 1<<63 + 1<<32
)

// severity is how bad a problem is.
type severity int

const (
	odd     severity = iota // a warning
	unsound                 // see Problem.Unsound
	fatally                 // see Problem.Fatal
)

func (s severity) problem(e *Entry, format string, args ...any) Problem {
	return Problem{Inode: e.Inode, Name: e.Name, What: fmt.Sprintf(format, args...), Fatal: s == fatally, Unsound: s >= unsound}
}

// Check returns everything that keeps entries from being a tree, and warnings
// about oddities that can be loaded.
func Check(entries []*Entry) []Problem {
	var bad []Problem
	report := func(e *Entry, s severity, format string, args ...any) {
		bad = append(bad, s.problem(e, format, args...))
	}
	byID := make(map[uint64]*Entry, len(entries))
	for _, e := range entries {
		if byID[e.Inode] != nil {
			report(e, fatally, "the inode occurs twice")
			continue
		}
		byID[e.Inode] = e
	}
	root := byID[RootInode]
	switch {
	case root == nil:
		report(&Entry{}, fatally, "the root is missing")
	case root.Type != TypeDir || root.Name != "" || root.Parent != RootInode:
		report(root, fatally, "the root is not a directory without a name")
	case len(root.data) > 0:
		report(root, fatally, "a directory with %d bytes of data", len(root.data))
	case root.Version < 1 || root.Version > MaxVersion:
		report(root, fatally, "the database's version is %d, which is not between 1 and %d", int64(root.Version), int64(MaxVersion))
	}
	type place struct {
		parent uint64
		name   string
	}
	names := make(map[place]uint64, len(entries))
	for _, e := range entries {
		if e.Inode == RootInode {
			continue
		}
		switch {
		case e.Name == "":
			report(e, fatally, "the name is empty")
		case !ShownName(e.Name):
			report(e, odd, "the name can't be reached through a mount")
		case len(e.Name) > MaxNameLen:
			report(e, odd, "the name has %d bytes, more than %d", len(e.Name), MaxNameLen)
		}
		switch e.Type {
		case TypeDir:
			if len(e.data) > 0 {
				report(e, fatally, "a directory with %d bytes of data", len(e.data))
			}
		case TypeFile:
			if len(e.data) > MaxFileSize {
				report(e, odd, "a file of %d bytes, more than %d", len(e.data), MaxFileSize)
			}
		default:
			report(e, fatally, "type %d is neither file (%d) nor directory (%d)", e.Type, TypeFile, TypeDir)
		}
		switch p := byID[e.Parent]; {
		case p == nil:
			report(e, fatally, "the parent, inode %d, does not exist", e.Parent)
		case p.Type != TypeDir && p.Inode != RootInode:
			report(e, fatally, "the parent, inode %d (%q), is not a directory", p.Inode, p.Name)
		}
		checkNumbers(e, root, report)
		at := place{e.Parent, e.Name}
		if other, ok := names[at]; ok {
			report(e, fatally, "the name exists twice in directory %d: also inode %d", e.Parent, other)
		} else {
			names[at] = e.Inode
		}
	}
	return append(bad, checkLoops(entries, byID)...)
}

// impossible tells whether no row may have an inode: an index that names it is refused, too.
// Inode 1 is none of these: no change has it, but db repair gives it, the stock daemon follows
// it, and a mount shows it by another number.
func impossible(inode uint64) bool { return inode >= reservedInodes && inode < endOfReserved }

// checkNumbers reports an inode or version that no change can have had.
func checkNumbers(e, root *Entry, report func(*Entry, severity, string, ...any)) {
	switch {
	case impossible(e.Inode):
		report(e, fatally, "the inode is one of those that a mount uses for itself, from %d on", uint64(reservedInodes))
	case e.Inode >= endOfReserved:
		report(e, unsound, "the inode is negative: %d in the file", int64(e.Inode))
	case root != nil && e.Inode > root.Version:
		report(e, unsound, "the inode is greater than the database's version %d", root.Version)
	}
	switch {
	case e.Version > MaxVersion:
		report(e, unsound, "the version, %d in the file, is not between 0 and %d", int64(e.Version), int64(MaxVersion))
	case root != nil && e.Version > root.Version:
		report(e, unsound, "the version, %d, is greater than the database's version %d", e.Version, root.Version)
	}
}

// checkLoops reports entries that can't be reached from the root although all
// their parents exist: one of each loop.
func checkLoops(entries []*Entry, byID map[uint64]*Entry) []Problem {
	var bad []Problem
	walked := make(map[uint64]int, len(byID)) // which walk came by first, from 1
	for i, e := range entries {
		for cur := e; cur != nil && cur.Inode != RootInode; cur = byID[cur.Parent] {
			if walk := walked[cur.Inode]; walk == 0 {
				walked[cur.Inode] = i + 1
				continue
			} else if walk == i+1 {
				bad = append(bad, fatally.problem(cur, "the directory contains itself"))
			}
			break
		}
	}
	return bad
}
