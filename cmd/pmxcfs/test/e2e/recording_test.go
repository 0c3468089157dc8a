package e2e

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func unzip(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	b, err := io.ReadAll(z)
	must(t, err)
	return b
}

// sorted returns the lines of a text in order.
func sorted(text string) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

// wantLines compares two lists of lines as sets.
func wantLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	bad := 0
	report := func(format, line string) {
		if bad++; bad <= 10 {
			t.Errorf(format, what, line)
		}
	}
	for _, l := range want {
		if _, ok := slices.BinarySearch(got, l); !ok {
			report("%s: missing: %s", l)
		}
	}
	for _, l := range got {
		if _, ok := slices.BinarySearch(want, l); !ok {
			report("%s: not in the recording: %s", l)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d lines, want %d", what, len(got), len(want))
	}
}

// TestStockDatabaseShowsAsRecorded starts on a database that the stock daemon
// wrote, and shows what that one showed.
func TestStockDatabaseShowsAsRecorded(t *testing.T) {
	n := newInstance(t)
	must(t, os.WriteFile(n.db, unzip(t, "varied.db.gz"), 0o600))
	n.start()

	var tree, sums []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(n.mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(n.mount, path)
		if other, ok := inodes[st.Ino]; ok {
			t.Errorf("%q and %q share the inode number %d", rel, other, st.Ino)
		}
		inodes[st.Ino] = rel
		if st.Uid != 0 || st.Gid != 33 {
			t.Errorf("%q belongs to %d:%d", rel, st.Uid, st.Gid)
		}
		kind := "f"
		switch {
		case rel == ".", info.Mode()&fs.ModeSymlink != 0, strings.HasPrefix(rel, ".") && !d.IsDir() && !strings.Contains(rel, "/"):
			return nil // root, links, special files
		case d.IsDir():
			kind = "d"
		default:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := fmt.Sprintf("%x  ./%s", sha256.Sum256(content), strings.ReplaceAll(rel, `\`, `\\`))
			if strings.Contains(rel, `\`) { // as sha256sum marks an escaped name
				sum = `\` + sum
			}
			sums = append(sums, sum)
		}
		tree = append(tree, fmt.Sprintf("%s %o %d %d.%010d %s", kind, st.Mode&0o7777, st.Size, st.Mtim.Sec, st.Mtim.Nsec, rel))
		return nil
	})
	must(t, err)
	slices.Sort(tree)
	slices.Sort(sums)
	wantLines(t, "tree", tree, sorted(string(unzip(t, "varied.tree.txt.gz"))))
	wantLines(t, "contents", sums, sorted(string(unzip(t, "varied.tree.sha256.gz"))))
	compareVMLists(t, []byte(n.read(".vmlist")), unzip(t, "varied.vmlist.json.gz"))

	for link, target := range map[string]string{"local": "nodes/node1", "qemu-server": "nodes/node1/qemu-server", "lxc": "nodes/node1/lxc", "openvz": "nodes/node1/openvz"} {
		if got, err := os.Readlink(n.path(link)); err != nil || got != target {
			t.Errorf("the link %s leads to %q, %v", link, got, err)
		}
	}
	n.stop()
}

// compareVMLists compares guests, and the set of their versions: which guest has
// which depends on the order in which the stock daemon's hash table goes.
func compareVMLists(t *testing.T, got, want []byte) {
	t.Helper()
	type guest struct {
		Node, Type string
		Version    int
	}
	type list struct {
		Version int
		IDs     map[string]guest
	}
	var g, w list
	must(t, json.Unmarshal(got, &g))
	must(t, json.Unmarshal(want, &w))
	if g.Version != w.Version {
		t.Errorf(".vmlist has version %d, want %d", g.Version, w.Version)
	}
	var gv, wv []int
	for id, x := range w.IDs {
		y := g.IDs[id]
		if x.Node != y.Node || x.Type != y.Type {
			t.Errorf("guest %s is %+v, want %+v", id, y, x)
		}
		wv = append(wv, x.Version)
	}
	for _, y := range g.IDs {
		gv = append(gv, y.Version)
	}
	slices.Sort(gv)
	slices.Sort(wv)
	if !slices.Equal(gv, wv) {
		t.Errorf("the guests' versions are %v, want %v", gv, wv)
	}
}
