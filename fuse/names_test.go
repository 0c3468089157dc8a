package fuse

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

// A name that a local call gives has 255 bytes at most. One that a stock node gave is
// kept, shown, and can be used and removed like any other.
func TestLongNamesAreRefusedHereAndShownFromElsewhere(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	m.write("f", "content")
	longest, long := strings.Repeat("n", 255), strings.Repeat("n", 256)
	m.write("d/"+longest, "longest")
	m.want("d/"+longest, "longest")
	_, err := os.Create(m.path("d/" + long))
	wantErrno(t, "create", err, syscall.ENAMETOOLONG)
	wantErrno(t, "mkdir", os.Mkdir(m.path("d/"+long), 0o755), syscall.ENAMETOOLONG)
	wantErrno(t, "mknod", syscall.Mknod(m.path("d/"+long), syscall.S_IFREG|0o640, 0), syscall.ENAMETOOLONG)
	wantErrno(t, "rename", os.Rename(m.path("f"), m.path("d/"+long)), syscall.ENAMETOOLONG)
	wantErrno(t, "link", os.Link(m.path("f"), m.path("d/"+long)), syscall.ENAMETOOLONG)
	_, err = os.Lstat(m.path("d/" + long))
	wantErrno(t, "stat", err, syscall.ENAMETOOLONG)

	shown := strings.Repeat("s", memdb.MaxShownName)
	for _, name := range []string{long, shown, shown + "x"} {
		m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: "d/" + name})
		m.foreign(memdb.Op{Kind: memdb.OpWrite, Path: "d/" + name, Data: []byte("foreign")})
	}
	eventually(t, func() string {
		list, err := os.ReadDir(m.path("d"))
		if len(list) != 3 || err != nil {
			return fmt.Sprintf("the directory lists %d names, %v", len(list), err)
		}
		return ""
	})
	m.want("d/"+shown, "foreign")
	for _, name := range []string{long, shown} {
		m.write("d/"+name, "changed here")
		m.want("d/"+name, "changed here")
	}
	if err := os.Rename(m.path("d/"+shown), m.path("d/short")); err != nil {
		t.Error(err)
	}
	m.want("d/short", "changed here")
	m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: "d/" + shown + "x"})
	if err := os.RemoveAll(m.path("d")); err != nil {
		t.Error(err)
	}
}

// mountTree mounts a tree that no operation makes.
func mountTree(t *testing.T, entries []*memdb.Entry) string {
	t.Helper()
	needFUSE(t)
	tree, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	fs := New(Config{Log: log, Store: &testStore{Local: dcdb.NewLocal(dcdb.Config{Tree: tree, Log: log})},
		Specials: []Special{{Name: ".version", Mode: 0o440, Read: func() []byte { return []byte("special") }}}})
	dir := t.TempDir()
	mount, err := fs.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(); err != nil {
			t.Error(err)
		}
	})
	if err := refusePolling(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A row of a damaged file can have nearly any inode.
func TestAnyInodeIsListedOnceAndIsItself(t *testing.T) {
	entries := []*memdb.Entry{memdb.NewEntry(0, 0, memdb.MaxVersion, 0, 0, memdb.TypeDir, "", nil)}
	inodes := []uint64{1, 2, 63, 64, 1<<32 - 1, 1 << 32, memdb.MaxVersion - 64, memdb.MaxVersion - 63, memdb.MaxVersion - 1, memdb.MaxVersion}
	for i := range uint64(3000) { // -1 and down: more than one request lists
		inodes = append(inodes, math.MaxUint64-i)
	}
	for _, inode := range inodes {
		name := fmt.Sprint("f", inode)
		entries = append(entries, memdb.NewEntry(inode, 0, 1, 0, 0, memdb.TypeFile, name, []byte(name)))
	}
	dir := mountTree(t, entries)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var names []string
	for len(names) <= 2*len(inodes) {
		some, err := d.Readdirnames(100)
		names = append(names, some...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) != len(inodes)+1 {
		t.Errorf("%d names are listed of %d files and a special one", len(names), len(inodes))
	}
	slices.Sort(names)
	if n := len(slices.Compact(names)); n != len(inodes)+1 {
		t.Errorf("%d different names", n)
	}
	seen := map[uint64]string{}
	for _, name := range append(names[:50], ".version", "f1", fmt.Sprint("f", uint64(math.MaxUint64))) {
		want := name
		if name == ".version" {
			want = "special"
		}
		b, err := os.ReadFile(dir + "/" + name)
		if err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+name, &st); err != nil {
			t.Error(err)
		}
		if other, ok := seen[st.Ino]; ok && other != name {
			t.Errorf("%s and %s both have inode number %d", name, other, st.Ino)
		}
		seen[st.Ino] = name
	}
}

func TestListingGoesOnBehindAnyOffset(t *testing.T) {
	var list []*memdb.Entry
	for _, inode := range []uint64{1, 63, 64, oddCookies - cookieBase - 1, oddCookies - cookieBase, oddCookies, 1 << 63, math.MaxUint64 - 64, math.MaxUint64 - 63, math.MaxUint64} {
		list = append(list, memdb.NewEntry(inode, 0, 1, 0, 0, memdb.TypeFile, "f", nil))
	}
	c := newCookies(list)
	last := uint64(cookieBase)
	for i := range list {
		at := c.at(i)
		if at <= last || at > math.MaxInt64 {
			t.Errorf("inode %d has offset %d behind %d", list[i].Inode, at, last)
		}
		if got := c.behind(at); got != i+1 {
			t.Errorf("behind offset %d comes index %d, want %d", at, got, i+1)
		}
		last = at
	}
	if got := c.behind(math.MaxUint64); got != len(list) {
		t.Errorf("behind everything comes index %d", got)
	}
}
