package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

func TestModes(t *testing.T) {
	m := mountTest(t, nil)
	for _, d := range []string{"priv/lock", "nodes/alpha/priv/sub", "nodes/alpha/openvz"} {
		m.mkdir(d)
	}
	files := []string{"storage.cfg", "priv/key", "nodes/alpha/priv/key", "nodes/alpha/priv/sub/key", "nodes/alpha/openvz/101.start", "vps.mount"}
	for _, f := range files {
		m.write(f, "x")
	}
	tests := []struct {
		path             string
		quorate, without uint32
	}{
		{"", syscall.S_IFDIR | 0o755, syscall.S_IFDIR | 0o755},
		{"nodes", syscall.S_IFDIR | 0o755, syscall.S_IFDIR | 0o555},
		{"priv", syscall.S_IFDIR | 0o700, syscall.S_IFDIR | 0o500},
		{"priv/lock", syscall.S_IFDIR | 0o700, syscall.S_IFDIR | 0o500},
		{"nodes/alpha/priv", syscall.S_IFDIR | 0o700, syscall.S_IFDIR | 0o500},
		{"storage.cfg", syscall.S_IFREG | 0o640, syscall.S_IFREG | 0o440},
		{"priv/key", syscall.S_IFREG | 0o600, syscall.S_IFREG | 0o400},
		{"nodes/alpha/priv/key", syscall.S_IFREG | 0o600, syscall.S_IFREG | 0o400},
		{"nodes/alpha/priv/sub/key", syscall.S_IFREG | 0o600, syscall.S_IFREG | 0o400},
		{"nodes/alpha/openvz/101.start", syscall.S_IFREG | 0o740, syscall.S_IFREG | 0o540},
		{"vps.mount", syscall.S_IFREG | 0o740, syscall.S_IFREG | 0o540},
		{"local", syscall.S_IFLNK | 0o755, syscall.S_IFLNK | 0o555},
		{".version", syscall.S_IFREG | 0o440, syscall.S_IFREG | 0o440},
		{".debug", syscall.S_IFREG | 0o640, syscall.S_IFREG | 0o640},
	}
	for _, tt := range tests {
		st := m.stat(tt.path)
		if st.Mode != tt.quorate {
			t.Errorf("%q: mode %o, want %o", tt.path, st.Mode, tt.quorate)
		}
		if st.Uid != 0 || st.Gid != testGID {
			t.Errorf("%q belongs to %d:%d", tt.path, st.Uid, st.Gid)
		}
	}
	m.store.lost.Store(true)
	m.fs.QuorumChanged()
	for _, tt := range tests {
		eventually(t, func() string {
			if st := m.stat(tt.path); st.Mode != tt.without {
				return fmt.Sprintf("%q without quorum: mode %o, want %o", tt.path, st.Mode, tt.without)
			}
			return ""
		})
	}
	m.store.lost.Store(false)
	m.fs.QuorumChanged()
}

// eventually waits until check has nothing to complain about.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	testutil.Eventually(t, "the mount is right", func() error {
		if complaint := check(); complaint != "" {
			return errors.New(complaint)
		}
		return nil
	})
}

func TestWithoutQuorumChangesAreRefused(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	m.write("f", "old")
	m.store.lost.Store(true)
	m.fs.QuorumChanged()
	_, err := os.OpenFile(m.path("f"), os.O_WRONLY|os.O_TRUNC, 0)
	wantErrno(t, "open with O_TRUNC", err, syscall.EACCES)
	_, err = os.Create(m.path("new"))
	wantErrno(t, "create", err, syscall.EACCES)
	wantErrno(t, "mkdir", os.Mkdir(m.path("e"), 0o755), syscall.EACCES)
	wantErrno(t, "rmdir", os.Remove(m.path("d")), syscall.EACCES)
	wantErrno(t, "rename", os.Rename(m.path("f"), m.path("g")), syscall.EACCES)
	wantErrno(t, "utimes", os.Chtimes(m.path("f"), time.Now(), time.Now()), syscall.EACCES)
	wantErrno(t, "truncate", os.Truncate(m.path("f"), 0), syscall.EACCES)
	m.want("f", "old")
}

func TestChmodAndChownAcceptOnlyWhatIsShown(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("priv")
	m.write("f", "")
	m.write("priv/k", "")
	before := m.store.writes.Load()
	for _, tt := range []struct {
		path string
		mode uint32
		want error
	}{
		{"f", 0o640, nil}, {"f", 0o600, syscall.EPERM}, {"f", 0o644, syscall.EPERM},
		{"priv/k", 0o600, nil}, {"priv/k", 0o640, syscall.EPERM}, {"f", 0o4640, syscall.EPERM},
	} {
		if err := syscall.Chmod(m.path(tt.path), tt.mode); err != tt.want {
			t.Errorf("chmod %o %s: %v, want %v", tt.mode, tt.path, err, tt.want)
		}
	}
	for _, tt := range []struct {
		uid, gid int
		want     error
	}{
		{0, testGID, nil}, {-1, -1, nil}, {0, -1, nil}, {-1, testGID, nil},
		{1, -1, syscall.EPERM}, {-1, 0, syscall.EPERM},
	} {
		if err := syscall.Chown(m.path("f"), tt.uid, tt.gid); err != tt.want {
			t.Errorf("chown %d:%d: %v, want %v", tt.uid, tt.gid, err, tt.want)
		}
	}
	if n := m.store.writes.Load() - before; n != 0 {
		t.Errorf("chmod and chown made %d changes", n)
	}
}

func TestTimesAndSizesAndInodes(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "12345")
	if err := syscall.UtimesNano(m.path("f"), []syscall.Timespec{{Sec: 1, Nsec: 5}, {Sec: 1234567890, Nsec: 999}}); err != nil {
		t.Fatal(err)
	}
	st := m.stat("f")
	if st.Mtim.Sec != 1234567890 || st.Mtim.Nsec != 0 || st.Atim != st.Mtim || st.Ctim != st.Mtim {
		t.Errorf("times are %v %v %v", st.Mtim, st.Atim, st.Ctim)
	}
	if st.Size != 5 || st.Blocks != 1 || st.Nlink != 1 {
		t.Errorf("size %d, blocks %d, nlink %d", st.Size, st.Blocks, st.Nlink)
	}
	e, _ := m.tree.Lookup("f")
	if st.Ino != e.Inode {
		t.Errorf("inode %d, the database has %d", st.Ino, e.Inode)
	}
	if err := os.Rename(m.path("f"), m.path("g")); err != nil {
		t.Fatal(err)
	}
	if again := m.stat("g"); again.Ino != st.Ino {
		t.Errorf("rename changed the inode from %d to %d", st.Ino, again.Ino)
	}
	root := m.stat("")
	if root.Ino != 1 || root.Nlink != 2 || root.Mtim.Sec != 0 {
		t.Errorf("root: inode %d, nlink %d, time %d", root.Ino, root.Nlink, root.Mtim.Sec)
	}
	wantErrno(t, "a time that does not fit", syscall.UtimesNano(m.path("g"), []syscall.Timespec{{Sec: 0}, {Sec: 1 << 33}}), syscall.EINVAL)
}

func TestListingAgreesWithStat(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d/sub")
	m.write("d/f", "")
	for _, dir := range []string{"", "d"} {
		entries, err := os.ReadDir(m.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, e := range entries {
			names[e.Name()] = true
			st := m.stat(dir + "/" + e.Name())
			if e.Type() != os.FileMode(0) && e.IsDir() != (st.Mode&syscall.S_IFMT == syscall.S_IFDIR) {
				t.Errorf("%s: types differ", e.Name())
			}
		}
		if dir == "" && !(names[".version"] && names[".debug"] && names["local"] && names["d"] && len(names) == 4) {
			t.Errorf("the root lists %v", names)
		}
	}
	inodes := listInodes(t, m.path("d"))
	for name, ino := range inodes {
		if name != "." && name != ".." && m.stat("d/"+name).Ino != ino {
			t.Errorf("%s: d_ino %d, st_ino %d", name, ino, m.stat("d/"+name).Ino)
		}
	}
	if inodes["."] != m.stat("d").Ino || inodes[".."] != 1 {
		t.Errorf("dots: %v", inodes)
	}
}

func listInodes(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	buf := make([]byte, 32<<10)
	list := map[string]uint64{}
	for {
		n, err := syscall.ReadDirent(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return list
		}
		for b := buf[:n]; len(b) > 0; {
			// linux_dirent64: u64 ino, u64 off, u16 reclen, u8 type, name
			reclen := int(b[16]) | int(b[17])<<8
			name := b[19:reclen]
			for i, c := range name {
				if c == 0 {
					name = name[:i]
					break
				}
			}
			var ino uint64
			for i := 7; i >= 0; i-- {
				ino = ino<<8 | uint64(b[i])
			}
			list[string(name)] = ino
			b = b[reclen:]
		}
	}
}

// A listing may be continued through a handle that has not read its beginning,
// after entries have come and gone: nothing that stayed may be left out or
// shown twice.
func TestAListingIsContinuedThroughAnotherHandle(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	for i := range 100 {
		m.write(fmt.Sprintf("d/%d", i), "")
	}
	dir := nodeID(m.dirInode("d"))
	list := func(fh, offset uint64, size int) (names []string, last uint64) {
		t.Helper()
		out := gofuse.NewDirEntryList(make([]byte, size), offset)
		if st := m.fs.ReadDir(nil, &gofuse.ReadIn{InHeader: gofuse.InHeader{NodeId: dir}, Fh: fh, Offset: offset}, out); !st.Ok() {
			t.Fatal(st)
		}
		for b := out.Bytes(); len(b) > 0; {
			var e gofuse.DirEntry
			// struct fuse_dirent: u64 ino, u64 off, u32 namelen, u32 type, name
			n := int(binary.LittleEndian.Uint32(b[16:]))
			e.Name, e.Off = string(b[24:24+n]), binary.LittleEndian.Uint64(b[8:])
			names, last = append(names, e.Name), e.Off
			b = b[(24+n+7)/8*8:]
		}
		return names, last
	}
	open := func() uint64 {
		var out gofuse.OpenOut
		if st := m.fs.OpenDir(nil, &gofuse.OpenIn{InHeader: gofuse.InHeader{NodeId: dir}}, &out); !st.Ok() {
			t.Fatal(st)
		}
		t.Cleanup(func() { m.fs.ReleaseDir(&gofuse.ReleaseIn{Fh: out.Fh}) })
		return out.Fh
	}
	seen := map[string]int{}
	names, at := list(open(), 0, 1000)
	for len(names) > 0 {
		for _, n := range names {
			seen[n]++
		}
		if gone := "d/" + names[len(names)-1]; len(seen) < 60 {
			if err := os.Remove(m.path(gone)); err != nil {
				t.Fatal(err)
			}
			m.write(fmt.Sprintf("d/new%d", len(seen)), "")
		}
		names, at = list(open(), at, 1000)
	}
	for i := range 100 {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("%d was listed %d times", i, n)
		}
	}
}

func (m *testMount) dirInode(path string) uint64 {
	e, ok := m.tree.Lookup(path)
	if !ok {
		m.t.Fatalf("there is no %s", path)
	}
	return e.Inode
}

func TestStatfsCountsWhatIsThere(t *testing.T) {
	m := mountTest(t, nil)
	var before, after syscall.Statfs_t
	if err := syscall.Statfs(m.dir, &before); err != nil {
		t.Fatal(err)
	}
	m.write("f", string(make([]byte, 4097)))
	if err := syscall.Statfs(m.dir, &after); err != nil {
		t.Fatal(err)
	}
	if before.Bsize != 4096 || before.Blocks != 32768 || before.Files != 262144 || before.Namelen != 255 {
		t.Errorf("statfs is %+v", before)
	}
	if before.Bfree-after.Bfree != 2 || before.Ffree-after.Ffree != 1 || before.Ffree != 262143 {
		t.Errorf("free blocks %d → %d, free files %d → %d", before.Bfree, after.Bfree, before.Ffree, after.Ffree)
	}
}

func TestReservedNamesCannotBeTaken(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "")
	m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: "local"}) // hidden by the link
	m.mkdir("d")
	for _, name := range []string{".version", "local"} {
		wantErrno(t, "rename onto "+name, os.Rename(m.path("f"), m.path(name)), syscall.EACCES)
		wantErrno(t, "rename of "+name, os.Rename(m.path(name), m.path("g")), syscall.EACCES)
		wantErrno(t, "unlink "+name, os.Remove(m.path(name)), syscall.EACCES)
		m.write("d/"+name, "elsewhere it is a name as any other")
	}
	if target, err := os.Readlink(m.path("local")); err != nil || target != "nodes/alpha" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if n := len(listInodes(t, m.dir)); n != 2+3+2 {
		t.Errorf("the root lists %v", listInodes(t, m.dir))
	}
}

func TestSpecialFiles(t *testing.T) {
	m := mountTest(t, nil)
	m.want(".version", "{}\n")
	if st := m.stat(".version"); st.Size != 3 {
		t.Errorf("size %d", st.Size)
	}
	_, err := os.OpenFile(m.path(".version"), os.O_WRONLY, 0)
	wantErrno(t, "open .version for writing", err, syscall.EACCES)
	m.write(".debug", "1\n") // with O_TRUNC, as a shell does
	m.want(".debug", "1\n")
	f := m.open(".debug", os.O_WRONLY)
	_, err = f.WriteString("2\n")
	wantErrno(t, "writing another value", err, syscall.EIO)
	_, err = f.WriteAt([]byte("0\n"), 1)
	wantErrno(t, "writing at another place", err, syscall.EIO)
	m.want(".debug", "1\n")
	// One open shows one state, however it is read.
	r := m.open(".debug", os.O_RDONLY)
	b := make([]byte, 1)
	if _, err := r.ReadAt(b, 0); err != nil || b[0] != '1' {
		t.Fatal(err)
	}
	m.write(".debug", "0\n")
	if _, err := r.ReadAt(b, 0); err != nil || b[0] != '1' {
		t.Errorf("an open file changed to %q, %v", b, err)
	}
	m.want(".debug", "0\n")
}

// Who unpacks an archive sets the time of the directory that it began with.
func TestTimeOfWhatHasNoneMayBeSetAlone(t *testing.T) {
	m := mountTest(t, nil)
	alone := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1e9}}
	for _, path := range []string{"", ".version", ".debug"} {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, m.path(path), alone, 0); err != nil {
			t.Errorf("%q: %v", path, err)
		}
		wantErrno(t, "both times of "+path, os.Chtimes(m.path(path), time.Now(), time.Now()), syscall.EACCES)
		if st := m.stat(path); st.Mtim.Sec != 0 {
			t.Errorf("%q has time %d", path, st.Mtim.Sec)
		}
	}
	if n := m.store.writes.Load(); n != 0 {
		t.Errorf("%d changes", n)
	}
	m.write("f", "x")
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, m.path("f"), alone, 0); err != nil || m.stat("f").Mtim.Sec != 1e9 {
		t.Errorf("a file's time is %d, %v", m.stat("f").Mtim.Sec, err)
	}
}

func TestChmodAndChownCanBeIgnored(t *testing.T) {
	m := mountTest(t, nil)
	m.fs.ignoreChmod = true
	m.mkdir("priv")
	for path, mode := range map[string]uint32{"f": 0o640, "priv/k": 0o600} {
		m.write(path, "x")
		before := m.store.writes.Load()
		if err := errors.Join(os.Chmod(m.path(path), 0o755), os.Chmod(m.path(path), 0o4777), os.Chown(m.path(path), 1, 2)); err != nil {
			t.Error(err)
		}
		if st := m.stat(path); st.Mode&0o7777 != mode || st.Uid != 0 || st.Gid != testGID {
			t.Errorf("%s has mode %o, owner %d:%d", path, st.Mode, st.Uid, st.Gid)
		}
		if n := m.store.writes.Load() - before; n != 0 {
			t.Errorf("%d changes", n)
		}
	}
	for _, path := range []string{"", ".version"} { // rsync -a and cp -a set both times of the root
		both := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, m.path(path), both, 0); err != nil {
			t.Errorf("the times of %q: %v", path, err)
		}
	}
	m.store.lost.Store(true)
	wantErrno(t, "truncate without quorum", os.Truncate(m.path("f"), 0), syscall.EACCES)
}

func TestFilesHaveNoExtendedAttributes(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "x")
	m.mkdir("d")
	for _, path := range []string{"f", "d", "", ".version", "local"} {
		for range 2 { // the second time the kernel knows some answers
			if n, err := unix.Llistxattr(m.path(path), make([]byte, 100)); n != 0 || err != nil {
				t.Errorf("%q lists %d bytes, %v", path, n, err)
			}
			if n, err := unix.Llistxattr(m.path(path), nil); n != 0 || err != nil {
				t.Errorf("%q lists %d bytes, %v", path, n, err)
			}
			for _, name := range []string{"security.capability", "trusted.x", "security.selinux"} {
				_, err := unix.Lgetxattr(m.path(path), name, make([]byte, 100))
				wantErrno(t, path+" "+name, err, syscall.EOPNOTSUPP)
			}
		}
	}
	wantErrno(t, "setxattr", unix.Setxattr(m.path("f"), "user.x", []byte("y"), 0), syscall.EOPNOTSUPP)
	wantErrno(t, "removexattr", unix.Removexattr(m.path("f"), "user.x"), syscall.ENODATA)
}
