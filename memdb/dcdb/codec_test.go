package dcdb

import (
	"testing"

	"pmxcfs/memdb"
)

// A peer may write a path with slashes that mean nothing; an Op's path is clean.
func TestPathsOfMessagesAreCleaned(t *testing.T) {
	for sent, want := range map[string]string{
		"": "", "/": "", "//": "", "a": "a", "/a": "a", "a/": "a", "//a///b/": "a/b", "a/./b": "a/./b", "a/../b": "a/../b",
	} {
		payload := encodeOp(&memdb.Op{Kind: memdb.OpRename, Path: sent, To: sent})
		op, err := decodeOp(memdb.OpRename, payload)
		if err != nil || op.Path != want || op.To != want {
			t.Errorf("%q is decoded as %+v, %v", sent, op, err)
		}
		if path, _, err := decodeUnlock(encodeUnlock(sent, memdb.Digest{})); err != nil || path != want {
			t.Errorf("an unlock of %q is decoded as %q, %v", sent, path, err)
		}
	}
}
