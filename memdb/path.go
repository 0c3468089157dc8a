package memdb

import (
	"slices"
	"strconv"
	"strings"
)

// LockDir is the directory whose subdirectories are cluster-wide locks.
const LockDir = "priv/lock"

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// CleanPath drops leading, trailing and repeated slashes. The root is "".
// Components "." and ".." are left as they are: no entry has such a name.
func CleanPath(path string) string {
	clean := !strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && !strings.Contains(path, "//")
	if clean {
		return path
	}
	return strings.Join(strings.FieldsFunc(path, func(r rune) bool { return r == '/' }), "/")
}

// Split splits a clean path into its directory and its last component.
func Split(path string) (dir, base string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// Join returns the path of name in the directory dir.
func Join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// Paths returns the path of each entry of a list, which may come from a damaged database. Of one
// that can't be reached from the root, or whose path would be longer than that many bytes, it
// is the part that is known, below "<inode N>": those of a chain of directories without end would
// else take room by the square of its length. Longest 0: any length.
func Paths(entries []*Entry, longest int) []string {
	index := make(map[uint64]int, len(entries))
	for i, e := range entries {
		index[e.Inode] = i
	}
	const unknown, onWay, known = 0, 1, 2
	paths, state := make([]string, len(entries)), make([]int8, len(entries))
	var way []int // from an entry up to one whose path is known
	for i := range entries {
		way = way[:0]
		for at, ok := i, true; ok && state[at] == unknown; at, ok = index[entries[at].Parent] {
			if entries[at].Inode == RootInode {
				state[at] = known
				break
			}
			way, state[at] = append(way, at), onWay
		}
		for _, at := range slices.Backward(way) {
			e := entries[at]
			up, ok := index[e.Parent]
			dir := ""
			switch {
			case !ok && e.Parent == RootInode:
			case ok && state[up] == known && (longest == 0 || len(paths[up])+1+len(e.Name) <= longest):
				dir = paths[up]
			default:
				dir = "<inode " + itoa(e.Parent) + ">"
			}
			paths[at], state[at] = Join(dir, e.Name), known
		}
	}
	return paths
}

// LockName returns the name of the lock that a clean path stands for:
// priv/lock/NAME. Whether the entry there is a directory, and so a lock, is the
// tree's to say.
func LockName(path string) (name string, ok bool) {
	name, ok = strings.CutPrefix(path, LockDir+"/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", false
	}
	return name, true
}

// The rule about names. The tree itself holds any name that it is given in a row or
// by another node, as the stock daemon does. A mount shows what a kernel takes
// (ShownName), and so much is kept by a repair; what is made here gets a name that any
// file system can hold (ValidName): the mount's create, mkdir and rename, db import, and the
// files of an export. Tree.Check refuses others.

// ShownName reports whether a mount can show an entry of this name: 1 to
// MaxShownName bytes, neither "." nor "..", no slash, no NUL. One name in a listing
// that is none makes the kernel refuse the whole directory.
func ShownName(name string) bool {
	return name != "" && len(name) <= MaxShownName && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// ValidName reports whether an entry that is made here may have this name: a mount
// can show it, and it has no more than MaxNameLen bytes.
func ValidName(name string) bool { return len(name) <= MaxNameLen && ShownName(name) }

func isLockPath(path string) bool {
	_, ok := LockName(path)
	return ok
}

// IsPrivate reports whether a clean path is priv or nodes/NAME/priv or lies
// below one of them: for root's eyes only.
func IsPrivate(path string) bool {
	first, rest, _ := strings.Cut(path, "/")
	switch first {
	case "priv":
		return true
	case "nodes":
		_, rest, _ = strings.Cut(rest, "/")
		third, _, _ := strings.Cut(rest, "/")
		return third == "priv"
	}
	return false
}

// IsScript reports whether name is that of an obsolete OpenVZ action script
// ("vps.mount", "101.start"), which is shown as executable.
func IsScript(name string) bool {
	stem, action, ok := strings.Cut(name, ".")
	if !ok {
		return false
	}
	switch action {
	case "mount", "umount", "start", "stop", "premount", "postumount":
	default:
		return false
	}
	if stem == "vps" {
		return true
	}
	for i := range len(stem) {
		if stem[i] < '0' || stem[i] > '9' {
			return false
		}
	}
	return stem != ""
}
