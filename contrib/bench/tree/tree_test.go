package tree

import (
	"testing"

	"pmxcfs/memdb"
)

func TestShapesAreTreesWithTheFilesWherePathSays(t *testing.T) {
	for _, s := range []Shape{
		{Name: "guests", Files: 10, Size: 700, Dirs: 3, Guest: true},
		{Name: "files", Files: 10, Size: 4096, Dirs: 4},
	} {
		entries := s.Entries()
		if len(entries) != s.Count() {
			t.Errorf("%s: %d entries, Count says %d", s.Name, len(entries), s.Count())
		}
		if bad := memdb.Check(entries); len(bad) > 0 {
			t.Errorf("%s: %v", s.Name, bad)
		}
		built, dups, err := memdb.Build(entries)
		if err != nil || len(dups) > 0 {
			t.Fatalf("%s: %v, duplicates %v", s.Name, err, dups)
		}
		for i := range s.Files {
			e, ok := built.Lookup(s.Path(i))
			if !ok || e.Size() != s.Size {
				t.Errorf("%s: %s: found %v, %d bytes", s.Name, s.Path(i), ok, e.Size())
			}
		}
	}
}

func TestStampChangesEveryPageAndNothingElse(t *testing.T) {
	before := Content(10_000)
	after := Content(10_000)
	Stamp(after, 18446744073709551615)
	for i := range before {
		stamped := i%4096 < 20
		if digit := after[i] >= '0' && after[i] <= '9'; stamped && !digit || !stamped && after[i] != before[i] {
			t.Fatalf("byte %d is %q, was %q", i, after[i], before[i])
		}
	}
	Stamp(nil, 1)
	Stamp(make([]byte, 19), 1) // too short to hold one
}
