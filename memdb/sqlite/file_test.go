package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/signals"
)

func TestABackupThatMeetsALockGoesOnOrFails(t *testing.T) {
	busy := 3
	if err := stepToEnd(func(int) (bool, error) { busy--; return busy == 0, nil }, time.Minute); err != nil {
		t.Error(err)
	}
	if err := stepToEnd(func(int) (bool, error) { return false, nil }, 0); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("always busy: %v", err)
	}
	broken := errors.New("broken")
	if err := stepToEnd(func(int) (bool, error) { return false, broken }, time.Minute); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestABackupIsComparedWithTheDatabase(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"), write("a", []byte("text")))
	contents, err := Read(s.path)
	if err != nil {
		t.Fatal(err)
	}
	other := *contents
	other.Entries = other.Entries[:1]
	err = withReader(s.path, func(c conn) error {
		_, err := backup(c, &other)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "does not hold what the database holds") {
		t.Errorf("%v", err)
	}
}

func TestADamagedLogIsFound(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"))
	if _, err := s.db.checkpoint(); err != nil {
		t.Fatal(err)
	}
	s.mustCommit(create("b"))
	path := afterAKill(t, s.path)
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	clear(log[:32])
	if err := os.WriteFile(path+"-wal", log, 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := IntegrityCheck(path); err != nil || len(found) != 1 || !strings.Contains(found[0], "does not begin as one") {
		t.Errorf("%q, %v", found, err)
	}
	target := filepath.Join(t.TempDir(), "backup")
	if _, err := Backup(path, target); err == nil || !strings.Contains(err.Error(), "does not begin as one") {
		t.Errorf("Backup: %v", err)
	}
	if exists(target) {
		t.Error("there is a backup")
	}
}

// strange are files whose table is none that a daemon made.
var strange = map[string][]string{
	"view": {"CREATE TABLE t (a)", "INSERT INTO t VALUES (1)",
		"CREATE VIEW tree (inode, parent, version, writer, mtime, type, name, data) AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT n, 0, n, 0, 0, 8, 'x'||n, zeroblob(1000000) FROM c"},
	"generated column": {"CREATE TABLE tree (inode INTEGER PRIMARY KEY, parent, version, writer, mtime, type, name TEXT, data AS (zeroblob(1000)))",
		"INSERT INTO tree (inode, parent, version, writer, mtime, type, name) VALUES (0,0,1,0,0,8,'__version__')"},
	"trigger": {strings.Replace(looseSchema, "CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1),
		"CREATE TRIGGER x AFTER UPDATE ON tree BEGIN DELETE FROM tree; END"},
	"more columns": {"CREATE TABLE tree (inode INTEGER PRIMARY KEY, parent, version, writer, mtime, type, name TEXT, data BLOB, more)"},
}

func TestNothingIsReadThroughAStrangeSchema(t *testing.T) {
	for name, statements := range strange {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			sqlExec(t, path, statements...)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			before := fingerprint(t, filepath.Dir(path))
			for call, f := range map[string]func() error{
				"Open":           func() error { _, _, _, err := Open(Config{Path: path}); return err },
				"Read":           func() error { _, err := Read(path); return err },
				"ReadRows":       func() error { _, err := ReadRows(path); return err },
				"IntegrityCheck": func() error { _, err := IntegrityCheck(path); return err },
				"Backup":         func() error { _, err := Backup(path, filepath.Join(t.TempDir(), "x")); return err },
			} {
				if err := f(); !errors.Is(err, ErrSchema) || !Damaged(err) {
					t.Errorf("%s: %v", call, err)
				}
			}
			_, _, _ = Recover(path) // it ends
			if after := fingerprint(t, filepath.Dir(path)); after != before {
				t.Errorf("the directory holds\n%s, before\n%s", after, before)
			}
		})
	}
}

func TestAFileThatIsTooLargeIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, maxFile+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("Read: %v", err)
	}
	if _, _, err := Recover(path); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("Recover: %v", err)
	}
}

// TestASignalLeavesNothingBehind runs this test program again as a command that is
// ended by a signal in the middle of its work.
func TestASignalLeavesNothingBehind(t *testing.T) {
	if target := os.Getenv("PMXCFS_TEST_SIGNAL_TARGET"); target != "" {
		if os.Getenv("PMXCFS_TEST_SIGNAL_WORK") == "scratch" {
			_ = withScratch(func(dir string, h signals.Held) error {
				_ = os.WriteFile(filepath.Join(dir, "copy"), []byte("secret"), 0o600)
				_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
				for len(h) == 0 {
					time.Sleep(time.Millisecond)
				}
				_, err := h.Write([]byte("x"))
				if err == nil {
					fmt.Println("the copy goes on")
				}
				return err
			})
		} else {
			_ = writeNamedInterrupted(target)
		}
		time.Sleep(time.Minute) // the signal ends the process meanwhile
		return
	}
	for _, work := range []string{"scratch", "target"} {
		t.Run(work, func(t *testing.T) {
			t.Parallel()
			dir, tmp := t.TempDir(), t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestASignalLeavesNothingBehind$")
			cmd.Env = append(os.Environ(), "PMXCFS_TEST_SIGNAL_TARGET="+filepath.Join(dir, "target"), "PMXCFS_TEST_SIGNAL_WORK="+work, "TMPDIR="+tmp)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
				t.Errorf("it ended with %v: %s", err, out)
			}
			if strings.Contains(string(out), "the copy goes on") {
				t.Error("the copy was not interrupted")
			}
			left, _ := filepath.Glob(filepath.Join(tmp, "pmxcfs-*"))
			if list, _ := os.ReadDir(dir); len(left) > 0 || len(list) > 1 || len(list) == 1 && list[0].Name() != "target" {
				t.Errorf("left behind: %v %v", left, list)
			}
		})
	}
}

// writeNamedInterrupted is writeNamed with a signal that comes while there is a file.
func writeNamedInterrupted(path string) error {
	h := make(chan os.Signal, 1)
	signal.Notify(h, syscall.SIGTERM)
	defer signal.Stop(h)
	go func() {
		for {
			if list, _ := filepath.Glob(path + ".partial-*"); len(list) > 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
				return
			}
		}
	}()
	err := writeNamed(path, make([]byte, 64<<20))
	<-h
	signal.Stop(h)
	return errors.Join(err, syscall.Kill(os.Getpid(), syscall.SIGTERM))
}

func TestNewFilesAppearWhole(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"without a name": writeNew, "with another name": writeNamed} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "new")
			if err := write(path, []byte("content")); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil || st.Mode() != 0o600 || st.Size() != 7 {
				t.Errorf("%v, %v", st, err)
			}
			if err := write(path, []byte("other")); !errors.Is(err, fs.ErrExist) {
				t.Errorf("over a file: %v", err)
			}
			if b, _ := os.ReadFile(path); string(b) != "content" {
				t.Errorf("it holds %q", b)
			}
			list, _ := os.ReadDir(dir)
			if len(list) != 1 {
				t.Errorf("beside it: %v", list)
			}
			if err := write(filepath.Join(dir, "absent", "new"), nil); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("in no directory: %v", err)
			}
		})
	}
}

// TestNothingIsBesideAReader looks while the reader reads: what it copied is gone.
func TestNothingIsBesideAReader(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	s := newStore(t)
	s.mustCommit(create("a"))
	path := afterAKill(t, s.path)
	err := withReader(path, func(c conn) error {
		if list, _ := os.ReadDir(tmp); slices.ContainsFunc(list, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "pmxcfs") }) {
			t.Errorf("beside the reader: %v", list)
		}
		contents, err := c.contents()
		if err == nil && len(contents.Entries) != 2 {
			t.Errorf("it reads %v", contents.Entries)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
