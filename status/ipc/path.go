package ipc

import (
	"pmxcfs/fuse"
	"strings"
)

// cleanPath makes a path canonical: no leading, trailing or repeated slashes and no ".".
// It refuses "..": no entry has such a name, and no answer may depend on what it would mean.
// The mount's root is "".
func cleanPath(path string) (string, bool) {
	if isClean(path) {
		return path, true
	}
	var b strings.Builder
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			return "", false
		}
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(part)
	}
	return b.String(), true
}

// isClean reports whether path is canonical and not the root: the usual case.
func isClean(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".", "..":
			return false
		}
	}
	return true
}

// notInDatabase reports whether a canonical path is, or leads through, a name in the
// mount's root that is not an entry of the database: a link or a special file. They hide
// entries of their name.
func notInDatabase(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return fuse.Reserved(first)
}
