package fuse

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/memdb"
)

func TestLinkKeepsTheOldContentUnderTheNewName(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	m.write("f", "old")
	m.write("empty", "")
	for _, to := range []string{"g", "d/g"} {
		if err := os.Link(m.path("f"), m.path(to)); err != nil {
			t.Fatal(err)
		}
		m.want(to, "old")
		wantErrno(t, "link onto a file", os.Link(m.path("f"), m.path(to)), syscall.EEXIST)
	}
	if err := os.Link(m.path("empty"), m.path("also-empty")); err != nil {
		t.Fatal(err)
	}
	m.want("also-empty", "")
	m.write("new", "new")
	if err := os.Rename(m.path("new"), m.path("f")); err != nil {
		t.Fatal(err)
	}
	m.want("f", "new")
	m.want("g", "old")
	if err := os.Remove(m.path("f")); err != nil {
		t.Fatal(err)
	}
	m.want("g", "old")
	m.write("g", "other")
	m.want("d/g", "old")

	wantErrno(t, "link of a directory", os.Link(m.path("d"), m.path("e")), syscall.EPERM)
	wantErrno(t, "link of a special file", os.Link(m.path(".version"), m.path("e")), syscall.EPERM)
	wantErrno(t, "link of a link", os.Link(m.path("local"), m.path("e")), syscall.EPERM)
	wantErrno(t, "link onto a special file", os.Link(m.path("g"), m.path(".debug")), syscall.EEXIST)
	m.store.lost.Store(true)
	wantErrno(t, "link without quorum", os.Link(m.path("g"), m.path("e")), syscall.EACCES)
}

// TestLinkIsSeenAsOneFileByWhoTakesALock does what dotlockfile, procmail and Python's
// mailbox do: the lock is theirs if both names are one file with two names.
func TestLinkIsSeenAsOneFileByWhoTakesALock(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m := mountNode(t, nil, shared)
		m.write("unique", "1234\n")
		own := m.stat("unique").Ino // and the kernel keeps what it has seen
		if err := os.Link(m.path("unique"), m.path("lock")); err != nil {
			t.Fatal(err)
		}
		a, b := m.stat("unique"), m.stat("lock")
		if a.Ino != own || b.Ino != own || a.Nlink != 2 || b.Nlink != 2 {
			t.Errorf("inodes %d and %d (it had %d), %d and %d links", a.Ino, b.Ino, own, a.Nlink, b.Nlink)
		}
		if err := os.Remove(m.path("unique")); err != nil {
			t.Fatal(err)
		}
		if b := m.stat("lock"); b.Ino == own || b.Nlink != 1 {
			t.Errorf("the lock alone has inode %d, and %d links", b.Ino, b.Nlink)
		}
		m.want("lock", "1234\n")

		m.write("a", "x")
		if err := os.Link(m.path("a"), m.path("b")); err != nil {
			t.Fatal(err)
		}
		m.write("b", "y") // who writes to one of them has two files
		m.want("a", "x")
		if a, b := m.stat("a"), m.stat("b"); a.Ino == b.Ino || a.Nlink != 1 || b.Nlink != 1 {
			t.Errorf("after a change: inodes %d, %d, links %d, %d", a.Ino, b.Ino, a.Nlink, b.Nlink)
		}
	}
}

func TestTwinsAreForgottenInTime(t *testing.T) {
	tree := memdb.New()
	var made []*memdb.Entry
	for _, name := range []string{"a", "b"} {
		res, err := tree.Apply(&memdb.Op{Kind: memdb.OpCreate, Path: name})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, res.Change().New)
	}
	tw := newTwins()
	tw.add(made[0], made[1])
	if as, ok := tw.shownAs(made[1].Inode, tree); !ok || as != made[0].Inode {
		t.Errorf("shown as %d, %v", as, ok)
	}
	tw.of[made[0].Inode].until = time.Now()
	if _, ok := tw.shownAs(made[1].Inode, tree); ok || tw.n.Load() != 0 || len(tw.of) != 0 {
		t.Errorf("%v, %d pairs, %d inodes", ok, tw.n.Load(), len(tw.of))
	}
	for i := range uint64(3 * maxTwins) {
		tw.add(memdb.NewEntry(1000+2*i, 0, 1, 0, 0, memdb.TypeFile, "f", nil), memdb.NewEntry(1001+2*i, 0, 1, 0, 0, memdb.TypeFile, "g", nil))
	}
	if n := tw.n.Load(); n != maxTwins || len(tw.of) != 2*maxTwins {
		t.Errorf("%d pairs, %d inodes", n, len(tw.of))
	}
}

// TestSSHKeygenRemovesAHostKey is what an administrator does after a reinstalled node.
func TestSSHKeygenRemovesAHostKey(t *testing.T) {
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		if os.Getenv("PMXCFS_REQUIRE_LAB") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	m := mountTest(t, nil)
	m.mkdir("priv")
	keys := t.TempDir()
	for _, host := range []string{"x", "y"} {
		if out, err := exec.Command(program, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(keys, host)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	line := func(host string) string {
		b, err := os.ReadFile(filepath.Join(keys, host+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		return host + " " + string(b)
	}
	m.write("priv/known_hosts", line("x")+line("y"))
	for _, host := range []string{"x", "y"} { // the second time there is an old file already
		before, err := os.ReadFile(m.path("priv/known_hosts"))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program, "-f", m.path("priv/known_hosts"), "-R", host).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m.want("priv/known_hosts.old", string(before))
		if after, err := os.ReadFile(m.path("priv/known_hosts")); err != nil || strings.Contains(string(after), host+" ") {
			t.Errorf("after the removal of %s the file holds %q, %v", host, after, err)
		}
	}
	if list, err := os.ReadDir(m.path("priv")); err != nil || len(list) != 2 {
		t.Errorf("priv holds %v, %v", list, err)
	}
}
