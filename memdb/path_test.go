package memdb

import (
	"slices"
	"strings"
	"testing"
)

func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/": "", "///": "", "a": "a", "/a": "a", "a/": "a", "a//": "a", "a/b": "a/b", "//a///b//": "a/b",
		".": ".", "a/./b/..": "a/./b/..", " a / b ": " a / b ", "a\xff//b": "a\xff/b", "a\x00/": "a\x00",
	} {
		if got := CleanPath(in); got != want {
			t.Errorf("CleanPath(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	for _, path := range []string{"", "/", "a//b/", "nodes/a/lxc/100.conf", "\xff//\xfe", ".//.."} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		clean := CleanPath(path)
		want := slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" })
		if clean != strings.Join(want, "/") || CleanPath(clean) != clean {
			t.Fatalf("CleanPath(%q) = %q", path, clean)
		}
		dir, base := Split(clean)
		if Join(dir, base) != clean || strings.Contains(base, "/") {
			t.Fatalf("%q splits into %q and %q", clean, dir, base)
		}
		// The rules by path take anything.
		if name, ok := LockName(clean); ok && (Join(LockDir, name) != clean || strings.Contains(name, "/") || name == "") {
			t.Fatalf("%q is the lock %q", clean, name)
		}
		if want := len(want) > 0 && want[0] == "priv" || len(want) > 2 && want[0] == "nodes" && want[2] == "priv"; IsPrivate(clean) != want {
			t.Fatalf("%q is private: %v", clean, !want)
		}
		IsScript(base)
	})
}

func TestSplitAndJoin(t *testing.T) {
	for path, want := range map[string][2]string{
		"": {"", ""}, "a": {"", "a"}, "a/b": {"a", "b"}, "a/b/c": {"a/b", "c"},
	} {
		if dir, base := Split(path); dir != want[0] || base != want[1] {
			t.Errorf("%q splits into %q and %q", path, dir, base)
		}
		if got := Join(want[0], want[1]); got != path {
			t.Errorf("%q and %q join to %q", want[0], want[1], got)
		}
	}
}

func TestLockName(t *testing.T) {
	for path, want := range map[string]string{
		"priv/lock/a": "a", "priv/lock/a b": "a b", "priv/lock/.": ".",
		"priv/lock": "", "priv/lock/": "", "priv/lock/a/b": "", "priv/locks/a": "", "/priv/lock/a": "", "lock/a": "", "": "",
	} {
		if name, ok := LockName(path); name != want || ok != (want != "") {
			t.Errorf("%q is the lock %q, %v", path, name, ok)
		}
	}
}

func TestIsPrivate(t *testing.T) {
	for path, want := range map[string]bool{
		"priv": true, "priv/x": true, "priv/a/b/c": true, "nodes/a/priv": true, "nodes/a/priv/x": true,
		"nodes/a/priv/x/y": true, "nodes/priv/priv": true,
		"": false, "private": false, "priv2/x": false, "x/priv": false, "nodes": false, "nodes/priv": false,
		"nodes/priv/x": false, "nodes/a/x/priv": false, "nodes/a/private": false, "nodes/a": false, "PRIV": false,
	} {
		if IsPrivate(path) != want {
			t.Errorf("%q is private: %v", path, !want)
		}
	}
}

func TestIsScript(t *testing.T) {
	for name, want := range map[string]bool{
		"vps.mount": true, "vps.umount": true, "101.start": true, "1.stop": true, "0.premount": true, "101.postumount": true,
		"": false, ".": false, ".mount": false, "vps": false, "vps.": false, "vps.conf": false, "101": false, "101.conf": false,
		"x.mount": false, "-1.start": false, "1a.start": false, "vps.mount.x": false, "vps.Mount": false, "VPS.mount": false,
		"101.start ": false, "postmount": false, "101.postmount": false,
	} {
		if IsScript(name) != want {
			t.Errorf("%q is a script: %v", name, !want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "...": true, ".a": true, " ": true, "\xff": true, "\n": true, strings.Repeat("n", 255): true,
		"": false, ".": false, "..": false, "a/b": false, "/": false, "a\x00": false, strings.Repeat("n", 256): false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q is valid: %v", name, !want)
		}
	}
}

func TestPathsOfEntriesOfASoundTreeAndOfADamagedOne(t *testing.T) {
	entry := func(inode, parent uint64, name string) *Entry {
		return NewEntry(inode, parent, inode, 0, 0, TypeDir, name, nil)
	}
	list := []*Entry{
		entry(0, 0, ""), entry(1, 4, "below"), entry(2, 0, "top"), entry(3, 2, "mid"), entry(4, 3, "low"),
		entry(5, 77, "orphan"), entry(6, 5, "of it"), entry(7, 8, "circle"), entry(8, 7, "round"), entry(9, 9, "itself"),
	}
	want := []string{"", "top/mid/low/below", "top", "top/mid", "top/mid/low", "<inode 77>/orphan", "<inode 77>/orphan/of it", "", "", "<inode 9>/itself"}
	check := func(got []string) {
		t.Helper()
		for i := range want {
			if want[i] != "" && got[i] != want[i] {
				t.Errorf("%d: %q, not %q", i, got[i], want[i])
			}
		}
	}
	check(Paths(list, 0))
	if got := Paths(list, 0); !strings.HasPrefix(got[7], "<inode ") || !strings.HasPrefix(got[8], "<inode ") {
		t.Errorf("in a circle: %q", got[7:9])
	}
	check(Paths(list, 24))
	for longest, want := range map[int]string{17: "top/mid/low/below", 16: "<inode 4>/below"} {
		if got := Paths(list, longest); got[1] != want {
			t.Errorf("at most %d bytes: %q", longest, got[1])
		}
	}
	if got := Paths(list[2:5], 0); got[2] != "top/mid/low" {
		t.Errorf("without the root: %q", got)
	}
}
