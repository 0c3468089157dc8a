package memdb

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// garden is the tree that the tables of refusals start from. Guest 100 is a VM
// on node a, 200 a container on node b; priv/lock/held was taken by testWriter
// at testMTime.
var garden = []string{
	"nodes/", "nodes/a/", "nodes/a/qemu-server/", "nodes/a/lxc/",
	"nodes/b/", "nodes/b/qemu-server/", "nodes/b/lxc/",
	"nodes/a/qemu-server/100.conf=cores: 1", "nodes/b/lxc/200.conf=cores: 2",
	"nodes/a/qemu-server/200.conf/", // a directory, so no guest
	"nodes/a/qemu-server/300.conf/",
	"file=abc", "other=", "full/", "full/x=1", "empty/",
	"priv/", "priv/lock/", "priv/lock/held/", "priv/lock/file=",
	"priv/lock/busy/", "priv/lock/busy/child=",
}

func TestOperationsRefuseInTheProtocolsOrder(t *testing.T) {
	past := strings.Repeat("x", 2)
	for _, c := range []struct {
		name string
		op   Op
		want syscall.Errno
	}{
		{"mkdir in an absent directory", opMkdir("absent/x"), syscall.ENOENT},
		{"mkdir of .. in an absent directory", opMkdir("absent/.."), syscall.ENOENT},
		{"mkdir below a file's child", opMkdir("file/x/y"), syscall.ENOENT},
		{"mkdir in a file", opMkdir("file/x"), syscall.ENOTDIR},
		{"mkdir of .. in a file", opMkdir("file/.."), syscall.ENOTDIR},
		{"mkdir of nothing", opMkdir(""), syscall.EACCES},
		{"mkdir of .", opMkdir("."), syscall.EACCES},
		{"mkdir of ..", opMkdir("full/.."), syscall.EACCES},
		{"mkdir where a file is", opMkdir("file"), syscall.EEXIST},
		{"mkdir where a directory is", opMkdir("full"), syscall.EEXIST},
		{"mkdir of a held lock", opMkdir("priv/lock/held"), syscall.EEXIST},
		{"mkdir", opMkdir("new"), 0},
		{"mkdir with the name of a guest's configuration elsewhere", opMkdir("nodes/b/qemu-server/100.conf"), 0},

		{"create in an absent directory", opCreate("absent/x"), syscall.ENOENT},
		{"create of . in an absent directory", opCreate("absent/."), syscall.ENOENT},
		{"create in a file", opCreate("file/x"), syscall.ENOTDIR},
		{"create of . in a file", opCreate("file/."), syscall.ENOTDIR},
		{"create of nothing", opCreate(""), syscall.EACCES},
		{"create of .", opCreate("full/."), syscall.EACCES},
		{"create of ..", opCreate(".."), syscall.EACCES},
		{"create of a guest that another node has", opCreate("nodes/b/qemu-server/100.conf"), syscall.EEXIST},
		{"create of a guest that another type has", opCreate("nodes/a/lxc/100.conf"), syscall.EEXIST},
		{"create of a guest that another node has, in an absent directory", opCreate("nodes/c/lxc/100.conf"), syscall.ENOENT},
		{"create of a guest that another node has, where a directory is", opCreate("nodes/a/qemu-server/200.conf"), syscall.EEXIST},
		{"create of a guest where a directory is", opCreate("nodes/a/qemu-server/300.conf"), syscall.ENOTDIR},
		{"create where a directory is", opCreate("full"), syscall.ENOTDIR},
		{"create where a file is", opCreate("file"), syscall.EEXIST},
		{"create of a guest anew", opCreate("nodes/a/qemu-server/100.conf"), syscall.EEXIST},
		{"create", opCreate("new"), 0},
		{"create of a guest", opCreate("nodes/a/lxc/101.conf"), 0},
		{"create looks at no offset", Op{Kind: OpCreate, Path: "new", Offset: 1 << 31, Data: []byte("x")}, 0},

		{"write past the limit, in an absent directory", opWrite("absent/x", MaxFileSize, "x"), syscall.EFBIG},
		{"write past the limit by one", opWrite("file", MaxFileSize-1, past), syscall.EFBIG},
		{"write at the greatest offset", opWrite("file", 1<<32-1, past), syscall.EFBIG},
		{"write of nothing past the limit", opWrite("file", MaxFileSize+1, ""), syscall.EFBIG},
		{"truncate past the limit", opTruncate("file", MaxFileSize+1), syscall.EFBIG},
		{"write in an absent directory", opWrite("absent/x", 0, "x"), syscall.ENOENT},
		{"write in a file", opWrite("file/x", 0, "x"), syscall.ENOTDIR},
		{"write to nothing", opWrite("", 0, "x"), syscall.EACCES},
		{"write to .", opWrite("full/.", 0, "x"), syscall.EACCES},
		{"write to an absent guest that another node has", opWrite("nodes/b/qemu-server/100.conf", 0, "x"), syscall.EEXIST},
		{"write to a directory called like a guest that another node has", opWrite("nodes/a/qemu-server/200.conf", 0, "x"), syscall.EEXIST},
		{"write to a directory", opWrite("full", 0, "x"), syscall.ENOTDIR},
		{"write to an absent file", opWrite("absent", 0, "x"), syscall.ENOENT},
		{"write to an absent guest", opWrite("nodes/a/lxc/101.conf", 0, "x"), syscall.ENOENT},
		{"write up to the limit", opWrite("file", MaxFileSize-2, past), 0},
		{"write of nothing at the limit", opWrite("file", MaxFileSize, ""), 0},
		{"truncate to the limit", opTruncate("file", MaxFileSize), 0},
		{"write to a guest", opWrite("nodes/a/qemu-server/100.conf", 0, "x"), 0},

		{"mtime in an absent directory", opMTime("absent/x", 1), syscall.ENOENT},
		{"mtime in a file", opMTime("file/x", 1), syscall.ENOTDIR},
		{"mtime of the root", opMTime("", 1), syscall.EACCES},
		{"mtime of ..", opMTime("full/..", 1), syscall.EACCES},
		{"mtime of an absent entry", opMTime("absent", 1), syscall.ENOENT},
		{"mtime of a lock, older", opMTime("priv/lock/held", testMTime-1), syscall.EACCES},
		{"mtime of a lock, zero", opMTime("priv/lock/held", 0), syscall.EACCES},
		{"mtime of a lock by another node", Op{Kind: OpMTime, Path: "priv/lock/held", Writer: 2, MTime: testMTime + 1}, syscall.EACCES},
		{"mtime of a lock with entries, older", opMTime("priv/lock/busy", 1), syscall.EACCES},
		{"mtime of a lock, the same", opMTime("priv/lock/held", testMTime), 0},
		{"mtime of a lock, newer", opMTime("priv/lock/held", testMTime+1), 0},
		{"mtime of a file among the locks, older and by another", Op{Kind: OpMTime, Path: "priv/lock/file", Writer: 2, MTime: 1}, 0},
		{"mtime within a lock, older and by another", Op{Kind: OpMTime, Path: "priv/lock/busy/child", Writer: 2, MTime: 1}, 0},
		{"mtime of the locks' directory, older", opMTime("priv/lock", 1), 0},
		{"mtime of a directory, older and by another", Op{Kind: OpMTime, Path: "full", Writer: 2, MTime: 1}, 0},

		{"delete of an absent entry", opDelete("absent"), syscall.ENOENT},
		{"delete in an absent directory", opDelete("absent/x"), syscall.ENOENT},
		{"delete in a file", opDelete("file/x"), syscall.ENOENT},
		{"delete of .", opDelete("full/."), syscall.ENOENT},
		{"delete of the root", opDelete(""), syscall.EACCES},
		{"delete of a directory with entries", opDelete("full"), syscall.ENOTEMPTY},
		{"delete of a lock with entries", opDelete("priv/lock/busy"), syscall.ENOTEMPTY},
		{"delete of a file", opDelete("file"), 0},
		{"delete of an empty directory", opDelete("empty/"), 0},
		{"delete of a lock", opDelete("priv/lock/held"), 0},

		{"rename of an absent entry", opRename("absent", "new"), syscall.ENOENT},
		{"rename of an absent entry onto a taken guest", opRename("absent", "nodes/b/lxc/100.conf"), syscall.ENOENT},
		{"rename of the root", opRename("", "new"), syscall.EACCES},
		{"rename of the root onto a directory with entries", opRename("", "full"), syscall.EACCES},
		{"rename of a file to a guest that another node has", opRename("file", "nodes/b/qemu-server/100.conf"), syscall.EEXIST},
		{"rename of a file to a guest that another node has, in an absent directory", opRename("file", "nodes/c/qemu-server/100.conf"), syscall.EEXIST},
		{"rename of a guest to one that another node has", opRename("nodes/a/qemu-server/100.conf", "nodes/a/lxc/200.conf"), syscall.EEXIST},
		{"rename of a directory to a guest that another node has", opRename("empty", "nodes/b/qemu-server/100.conf"), 0},
		{"rename of a lock", opRename("priv/lock/held", "new"), syscall.EACCES},
		{"rename of a lock onto a directory with entries", opRename("priv/lock/held", "full"), syscall.EACCES},
		{"rename of a lock into an absent directory", opRename("priv/lock/held", "absent/x"), syscall.EACCES},
		{"rename of a lock with entries", opRename("priv/lock/busy", "new"), syscall.EACCES},
		{"rename of a lock onto itself", opRename("priv/lock/held", "priv/lock/held"), syscall.EACCES},
		{"rename of a file among the locks", opRename("priv/lock/file", "new"), 0},
		{"rename of a file onto a directory with entries", opRename("file", "full"), syscall.ENOTEMPTY},
		{"rename of an entry onto its directory", opRename("full/x", "full"), syscall.ENOTEMPTY},
		{"rename into an absent directory", opRename("file", "absent/x"), syscall.ENOENT},
		{"rename into a file", opRename("file", "other/x"), syscall.ENOTDIR},
		{"rename to ..", opRename("file", "full/.."), syscall.EACCES},
		{"rename to the root", opRename("file", ""), syscall.EACCES},
		{"rename of a directory with entries into an absent directory", opRename("full", "absent/x"), syscall.ENOENT},
		{"rename of a directory with entries into a file", opRename("full", "file/x"), syscall.ENOTDIR},
		{"rename of a directory with entries", opRename("full", "new"), syscall.ENOTEMPTY},
		{"rename of a directory with entries onto itself", opRename("full", "full"), syscall.ENOTEMPTY},
		{"rename of a directory with entries onto an empty one", opRename("full", "empty"), syscall.ENOTEMPTY},
		{"rename of a directory with entries onto a file", opRename("full", "file"), syscall.ENOTEMPTY},
		{"rename of an empty directory into itself", opRename("empty", "empty/x"), syscall.EINVAL},
		{"rename of a directory with entries into itself", opRename("full", "full/y"), syscall.ENOTEMPTY},
		{"rename of a file onto a file", opRename("file", "other"), 0},
		{"rename of a file onto an empty directory", opRename("file", "empty"), 0},
		{"rename of an empty directory onto a file", opRename("empty", "file"), 0},
		{"rename of a file onto itself", opRename("file", "file"), 0},
		{"rename of a guest to another node", opRename("nodes/a/qemu-server/100.conf", "nodes/b/qemu-server/100.conf"), 0},
		{"rename of a guest to another VMID", opRename("nodes/a/qemu-server/100.conf", "nodes/b/lxc/400.conf"), 0},
		{"rename to a new lock", opRename("empty", "priv/lock/new"), 0},

		{"an unknown operation", Op{Kind: 99, Path: "file"}, syscall.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := plant(t, garden...)
			before, root := pictureOf(tr), tr.Root()
			foretold := errnoOf(tr.Check(&c.op))
			if d := before.exactDiff(pictureOf(tr)); d != "" || tr.Root() != root {
				t.Fatalf("Check changed the tree: %s", d)
			}
			res, err := tr.Apply(&c.op)
			if got := errnoOf(err); got != c.want || foretold != c.want {
				t.Fatalf("got %v (foretold %v), want %v", got, foretold, c.want)
			}
			checkSound(t, tr)
			if c.want == 0 {
				if v := tr.Root().Version; v != root.Version+1 {
					t.Errorf("the database went from version %d to %d", root.Version, v)
				}
				return
			}
			if d := before.exactDiff(pictureOf(tr)); d != "" || tr.Root() != root {
				t.Errorf("a refused operation changed the tree: %s", d)
			}
			if res.Changes != nil || res.Change().New != nil {
				t.Errorf("a refused operation reports changes: %v", res.Changes)
			}
		})
	}
}

func TestErrorsNameOperationAndPath(t *testing.T) {
	_, err := New().Apply(&Op{Kind: OpMkdir, Path: "a/b"})
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Op != "mkdir" || pe.Path != "a/b" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for kind, want := range map[Kind]string{OpWrite: "write", OpDelete: "delete", OpRename: "rename",
		OpCreate: "create", OpMTime: "mtime", 77: "operation 77"} {
		if kind.String() != want {
			t.Errorf("kind %d is called %q", kind, kind)
		}
	}
}

func TestNewTreeIsARootAtVersionOne(t *testing.T) {
	tr := New()
	root := tr.Root()
	if root.Inode != 0 || root.Parent != 0 || root.Version != 1 || root.Type != TypeDir || root.Name != "" || root.Writer != 0 || root.MTime != 0 {
		t.Errorf("root is %+v", root)
	}
	if n, entries := tr.Usage(); n != 0 || entries != 1 {
		t.Errorf("usage is %d bytes, %d entries", n, entries)
	}
	checkSound(t, tr)
}

// fields is what an operation sets in the entry that it makes or changes.
func fields(e *Entry) row {
	return row{inode: e.Inode, parent: e.Parent, version: e.Version, writer: e.Writer, mtime: e.MTime,
		typ: e.Type, name: e.Name, data: string(e.Data())}
}

func TestOperationsKeepTheBooks(t *testing.T) {
	tr := New()
	version := uint64(1)
	step := func(op Op, want row) {
		t.Helper()
		version++
		op.Writer, op.MTime = uint32(version)*3, uint32(version)*7
		old, _ := tr.Lookup(op.Path)
		oldRoot := tr.Root()
		res := do(t, tr, op)
		want.version, want.writer, want.mtime = version, op.Writer, op.MTime
		root := row{version: version, writer: op.Writer, mtime: op.MTime, typ: TypeDir}
		if got := fields(tr.Root()); got != root {
			t.Fatalf("%v: root is %+v, want %+v", op.Kind, got, root)
		}
		last := res.Changes[len(res.Changes)-1]
		if last.Inode != RootInode || last.Old != oldRoot || last.New != tr.Root() {
			t.Errorf("%v: the last change is not the root's: %+v", op.Kind, last)
		}
		first := res.Changes[len(res.Changes)-2]
		if first.Old != old.Entry || first.New != res.Change().New {
			t.Errorf("%v: the entry's change is %+v", op.Kind, first)
		}
		if op.Kind == OpDelete {
			if res.Change().New != nil || first.Inode != old.Inode {
				t.Errorf("delete reports %+v", first)
			}
			return
		}
		if got := fields(res.Change().New); got != want || first.Inode != want.inode {
			t.Fatalf("%v: entry is %+v, want %+v", op.Kind, got, want)
		}
		if now, ok := tr.Get(want.inode); !ok || now.Entry != res.Change().New {
			t.Errorf("%v: the tree shows another entry than the result", op.Kind)
		}
	}
	step(Op{Kind: OpMkdir, Path: "d"}, row{inode: 2, typ: TypeDir, name: "d"})
	step(Op{Kind: OpCreate, Path: "d/f"}, row{inode: 3, parent: 2, typ: TypeFile, name: "f"})
	step(Op{Kind: OpWrite, Path: "d/f", Data: []byte("text")}, row{inode: 3, parent: 2, typ: TypeFile, name: "f", data: "text"})
	step(Op{Kind: OpMTime, Path: "d/f"}, row{inode: 3, parent: 2, typ: TypeFile, name: "f", data: "text"})
	step(Op{Kind: OpRename, Path: "d/f", To: "g"}, row{inode: 3, typ: TypeFile, name: "g", data: "text"})
	step(Op{Kind: OpMTime, Path: "d"}, row{inode: 2, typ: TypeDir, name: "d"})
	step(Op{Kind: OpRename, Path: "d", To: "e"}, row{inode: 2, typ: TypeDir, name: "e"})
	step(Op{Kind: OpRename, Path: "g", To: "g"}, row{inode: 3, typ: TypeFile, name: "g", data: "text"})
	step(Op{Kind: OpDelete, Path: "g"}, row{})
	step(Op{Kind: OpCreate, Path: "g"}, row{inode: 11, typ: TypeFile, name: "g"})
	checkSound(t, tr)
}

func TestRenameOntoAnEntryReportsItsRemovalFirst(t *testing.T) {
	tr := plant(t, "a=new", "b=old content")
	a, _ := tr.Lookup("a")
	b, _ := tr.Lookup("b")
	res := do(t, tr, opRename("a", "b"))
	if len(res.Changes) != 3 || res.Changes[0] != (Change{b.Inode, b.Entry, nil}) ||
		res.Changes[1].Inode != a.Inode || res.Changes[1].Old != a.Entry || res.Change().New != res.Changes[1].New {
		t.Fatalf("changes are %+v", res.Changes)
	}
	now, _ := tr.Lookup("b")
	if now.Inode != a.Inode || string(now.Data()) != "new" {
		t.Errorf("b is inode %d with %q", now.Inode, now.Data())
	}
	if _, ok := tr.Lookup("a"); ok {
		t.Error("a is still there")
	}
	if _, ok := tr.Get(b.Inode); ok {
		t.Error("the replaced entry is still there")
	}
	if n, entries := tr.Usage(); n != 3 || entries != 2 {
		t.Errorf("usage is %d bytes, %d entries", n, entries)
	}
	checkSound(t, tr)
}

func TestRenameOntoAnotherEntrysOldNameKeepsBoth(t *testing.T) {
	tr := plant(t, "a=1", "b=2")
	do(t, tr, opRename("a", "c"), opRename("b", "a"), opRename("c", "b"))
	a, _ := tr.Lookup("a")
	b, _ := tr.Lookup("b")
	if string(a.Data()) != "2" || string(b.Data()) != "1" {
		t.Errorf("a is %q, b is %q", a.Data(), b.Data())
	}
	checkSound(t, tr)
}

func TestNewEntriesDoNotKeepTheWholePathInMemory(t *testing.T) {
	// The name must be a string of its own. That can be seen through the
	// path's bytes, if they are changed behind the tree's back.
	path := []byte("dir/name")
	tr := plant(t, "dir/")
	do(t, tr, opCreate(unsafeString(path)))
	copy(path, "xxx/yyyy")
	if e, ok := tr.Lookup("dir/name"); !ok || e.Name != "name" {
		t.Error("the entry's name shares the operation's path")
	}
}

func TestAnInodeInUseIsNeverGivenOutAgain(t *testing.T) {
	entries := []*Entry{
		NewEntry(0, 0, 4, 0, 0, TypeDir, "", nil),
		NewEntry(5, 0, 4, 0, 0, TypeFile, "ahead", []byte("kept")),
	}
	tr, _, err := Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []Op{opCreate("new"), opMkdir("new")} {
		before := pictureOf(tr)
		if _, err := tr.Apply(&op); errnoOf(err) != syscall.EIO {
			t.Errorf("%v with the next inode in use: %v", op.Kind, err)
		}
		if d := before.exactDiff(pictureOf(tr)); d != "" {
			t.Error(d)
		}
	}
	do(t, tr, opWrite("ahead", 0, "more"), opCreate("new")) // past it, all is well
	checkSound(t, tr)

	end, _, err := Build([]*Entry{
		NewEntry(0, 0, MaxVersion-1, 0, 0, TypeDir, "", nil),
		NewEntry(5, 0, 4, 0, 0, TypeFile, "f", []byte("kept")),
	})
	if err != nil {
		t.Fatal(err)
	}
	do(t, end, opWrite("f", 0, "last"))
	for _, op := range []Op{opCreate("x"), opMkdir("x"), opWrite("f", 0, "more"), opDelete("f"), opRename("f", "g")} {
		if _, err := end.Apply(&op); errnoOf(err) != syscall.EIO {
			t.Errorf("%v at the end of all version numbers: %v", op.Kind, err)
		}
	}
	checkSound(t, end)
}

func TestCheckGoesByTheLengthOfNamesAndByTheEndOfVersions(t *testing.T) {
	longest, long := strings.Repeat("n", MaxNameLen), strings.Repeat("n", MaxNameLen+1)
	tree := New()
	for _, path := range []string{"f", long} { // another node's are applied, however long
		if _, err := tree.Apply(&Op{Kind: OpCreate, Path: path}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		op   Op
		want error
	}{
		{Op{Kind: OpCreate, Path: "d/" + long}, syscall.ENAMETOOLONG},
		{Op{Kind: OpMkdir, Path: long}, syscall.ENAMETOOLONG},
		{Op{Kind: OpRename, Path: "f", To: long}, syscall.ENAMETOOLONG},
		{Op{Kind: OpCreate, Path: longest}, nil},
		{Op{Kind: OpMkdir, Path: long + "/" + longest}, nil},
		{Op{Kind: OpRename, Path: long, To: longest}, nil},
		{Op{Kind: OpWrite, Path: long, Data: []byte("x")}, nil},
		{Op{Kind: OpDelete, Path: long}, nil},
	} {
		if err := tree.Check(&c.op); errors.Is(err, syscall.ENAMETOOLONG) != (c.want != nil) {
			t.Errorf("%v: %v, want %v", c.op.Kind, err, c.want)
		}
	}
	for version, want := range map[uint64]error{MaxVersion - 1: nil, MaxVersion: syscall.EIO} {
		tree, _, err := Build([]*Entry{NewEntry(0, 0, version, 0, 0, TypeDir, "", nil)})
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Check(&Op{Kind: OpMkdir, Path: "d"}); !errors.Is(err, want) {
			t.Errorf("at version %d: %v, want %v", version, err, want)
		}
	}
}
