package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sql runs statements on a database file with SQLite's own shell.
func sql(t *testing.T, db, statements string) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		if os.Getenv("PMXCFS_REQUIRE_LAB") == "1" {
			t.Fatal(err)
		}
		t.Skip("needs sqlite3")
	}
	cmd := exec.Command("sqlite3", "-bail", db)
	cmd.Stdin = strings.NewReader("PRAGMA ignore_check_constraints=ON;\n" + statements)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
}

// soundTables makes a database with a directory (5), a file in it (6), and
// another one (7).
const soundTables = `
CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, version INTEGER NOT NULL,
  writer INTEGER NOT NULL, mtime INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL, data BLOB);
INSERT INTO tree VALUES (0, 0, 9, 0, 1000, 8, '__version__', NULL);
INSERT INTO tree VALUES (5, 0, 5, 0, 1000, 4, 'dir', NULL);
INSERT INTO tree VALUES (6, 5, 6, 0, 1000, 8, 'file', 'content');
INSERT INTO tree VALUES (7, 0, 7, 0, 1000, 8, 'other', 'more');
`

// snapshot returns what the files in a directory hold.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var s []string
	for _, e := range list {
		if e.Name() == ".pmxcfs.lockfile" || strings.HasSuffix(e.Name(), "-shm") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		s = append(s, fmt.Sprintf("%s %x", e.Name(), sha256.Sum256(b)))
	}
	slices.Sort(s)
	return strings.Join(s, "\n")
}

func TestSoundDatabaseOfTheShellLoads(t *testing.T) {
	n := newInstance(t)
	sql(t, n.db, soundTables)
	n.start()
	n.wantContent("dir/file", "content")
	n.stop()
}

func TestBrokenDatabaseIsRefusedWithItsRowAndLeftAlone(t *testing.T) {
	needLab(t)
	for what, c := range map[string]struct {
		sql  string
		want []string // in the message
	}{
		"empty name":               {"UPDATE tree SET name='' WHERE inode=6;", []string{"inode 6"}},
		"directory with data":      {"UPDATE tree SET data='x' WHERE inode=5;", []string{"inode 5", `"dir"`}},
		"unknown type":             {"UPDATE tree SET type=7 WHERE inode=6;", []string{"inode 6", `"file"`, "7"}},
		"version row's name":       {"UPDATE tree SET name='version' WHERE inode=0;", []string{"inode 0", `"version"`}},
		"parent that is a file":    {"UPDATE tree SET parent=7 WHERE inode=6;", []string{"inode 6", `"file"`, "inode 7"}},
		"parent that is missing":   {"DELETE FROM tree WHERE inode=5;", []string{"inode 6", `"file"`, "inode 5"}},
		"duplicate name":           {"INSERT INTO tree VALUES (8, 5, 8, 0, 1, 8, 'file', NULL);", []string{"inode 8", `"file"`, "inode 6"}},
		"loop":                     {"UPDATE tree SET parent=5 WHERE inode=5;", []string{"inode 5", `"dir"`}},
		"text where a number goes": {"UPDATE tree SET mtime='soon' WHERE inode=6;", []string{"inode 6", `"file"`, "mtime"}},
		"two at once":              {"UPDATE tree SET type=7 WHERE inode=6; UPDATE tree SET data='x' WHERE inode=5;", []string{"inode 5", "and 1 more"}},
		"another table":            {"DROP TABLE tree; CREATE TABLE other (x);", []string{"no table tree"}},
		"another layout":           {"DROP TABLE tree; CREATE TABLE tree (inode, name);", []string{"is not that of a configuration database"}},
	} {
		for _, journal := range []string{"DELETE", "WAL"} {
			t.Run(what+" "+journal, func(t *testing.T) {
				n := newInstance(t)
				sql(t, n.db, "PRAGMA journal_mode="+journal+";"+soundTables+c.sql)
				wantRefused(t, n, c.want...)
			})
		}
	}
}

// wantRefused starts the daemon on a database that it must not take.
func wantRefused(t *testing.T, n *instance, words ...string) {
	t.Helper()
	before := snapshot(t, filepath.Dir(n.db))
	code, _, stderr := n.runToEnd(n.args("-f")...)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, w := range append(words, n.db) {
		if !strings.Contains(stderr, w) {
			t.Errorf("the message lacks %q: %s", w, stderr)
		}
	}
	if after := snapshot(t, filepath.Dir(n.db)); after != before {
		t.Errorf("the file was touched:\n%s\nwas\n%s", after, before)
	}
	if n.mounted() {
		t.Error("it mounted")
	}
	if _, err := os.Stat(n.restartFlag()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it left a restart flag: %v", err)
	}
}

// forget takes away what earlier runs have left beside the database.
func (n *instance) forget() {
	n.t.Helper()
	unmountAll(n.t, n.mount)
	must(n.t, os.RemoveAll(filepath.Join(n.root, "run")))
}

func TestFileThatIsNoDatabaseIsRefusedAndLeftAlone(t *testing.T) {
	needLab(t)
	for what, damage := range map[string]func([]byte) []byte{
		"text":           func([]byte) []byte { return []byte(strings.Repeat("hello\n", 1000)) },
		"truncated":      func(b []byte) []byte { return b[:len(b)/2] },
		"damaged header": func(b []byte) []byte { b[0] = 'X'; return b },
		"damaged pages": func(b []byte) []byte {
			for i := 4096; i < len(b); i++ {
				b[i] = 0xa5
			}
			return b
		},
		"damaged schema": func(b []byte) []byte { copy(b[100:], make([]byte, 3000)); return b },
	} {
		t.Run(what, func(t *testing.T) {
			n := newInstance(t)
			must(t, os.WriteFile(n.db, damage(unzip(t, "varied.db.gz")), 0o600))
			wantRefused(t, n)
		})
	}
}

func TestDatabaseWithALogLeftByAKillIsRefusedUntouchedToo(t *testing.T) {
	n := newInstance(t)
	n.start()
	n.write("file", "content")
	n.kill()
	sql(t, n.db, ".filectrl persist_wal 1\nUPDATE tree SET type=7 WHERE name='file';")
	if _, err := os.Stat(n.db + "-wal"); err != nil {
		t.Fatal("the test is wrong: there is no log", err)
	}
	n.forget()
	wantRefused(t, n, `"file"`, "type 7")
}

func TestDuplicateGuestsAreRefusedUnlessForced(t *testing.T) {
	n := newInstance(t)
	n.start()
	n.mkdir("nodes/a/qemu-server")
	n.mkdir("nodes/b/lxc")
	n.write("nodes/a/qemu-server/100.conf", "a")
	n.write("nodes/b/lxc/101.conf", "b")
	n.stop()
	sql(t, n.db, "UPDATE tree SET name='100.conf' WHERE name='101.conf';")
	n.forget()
	wantRefused(t, n, "100", "nodes/a/qemu-server/100.conf", "nodes/b/lxc/100.conf", "--force-duplicates")

	n.start("--force-duplicates")
	n.wantContent("nodes/a/qemu-server/100.conf", "a")
	n.wantContent("nodes/b/lxc/100.conf", "b")
	if list := n.read(".vmlist"); !strings.Contains(list, `"node": "a", "type": "qemu"`) || strings.Contains(list, `"node": "b"`) {
		t.Errorf(".vmlist: %s", list)
	}
	n.wantLog("left_out=nodes/b/lxc/100.conf")
	must(t, os.Remove(n.path("nodes/b/lxc/100.conf")))
	n.stop()
	n.start() // without
	n.stop()
}
