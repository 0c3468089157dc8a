package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
)

// afterAKill copies what would be left of a database if the daemon were killed now.
func afterAKill(tb testing.TB, path string) string {
	tb.Helper()
	killed := filepath.Join(tb.TempDir(), "config.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(path+suffix, killed+suffix, nil); err != nil && !os.IsNotExist(err) {
			tb.Fatal(err)
		}
	}
	return killed
}

// TestADatabaseBehindASymbolicLink has the daemon and every reader follow the link, as
// SQLite does: the log lies beside what it leads to.
func TestADatabaseBehindASymbolicLink(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"real", "hop", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file, link := filepath.Join(dir, "real", "config.db"), filepath.Join(dir, "etc", "config.db")
	for from, to := range map[string]string{link: "../hop/link", filepath.Join(dir, "hop", "link"): file} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, link) // the file does not exist yet
	s.mustCommit(create("f"), write("f", []byte("only in the log")))
	if _, err := os.Stat(file + "-wal"); err != nil {
		t.Error(err)
	}
	s.verify()
	if s.db.Path() != file {
		t.Errorf("the path is %s", s.db.Path())
	}
	if file, log, err := s.db.Sizes(); err != nil || file == 0 || log == 0 {
		t.Errorf("sizes %d and %d, %v", file, log, err)
	}
	backup := filepath.Join(dir, "backup")
	contents, err := Backup(link, backup)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, contents.Entries, s.tree.Entries())
	if found, err := IntegrityCheck(link); err != nil || len(found) > 0 {
		t.Error(found, err)
	}
	rows, err := ReadRows(link)
	if err != nil || len(rows) != 2 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	// Without a daemon, after a kill: the log is beside the file, not beside the link.
	killed := afterAKill(t, file)
	s.close()
	link = filepath.Join(dir, "hop", "killed")
	if err := os.Symlink(killed, link); err != nil {
		t.Fatal(err)
	}
	after, err := Read(link)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, after.Entries, s.tree.Entries())
	if rows, notes, err := Recover(link); err != nil || len(notes) > 0 || !slices.ContainsFunc(rows, func(r Row) bool { return r[6] == "f" }) {
		t.Errorf("recovered %v, %v, %v", rows, notes, err)
	}
	for _, d := range []string{"hop", "etc"} {
		for _, suffix := range []string{"-wal", "-shm"} {
			if list, _ := filepath.Glob(filepath.Join(dir, d, "*"+suffix)); len(list) > 0 {
				t.Errorf("%v", list)
			}
		}
	}
}

func TestALoopOfLinksIsAnError(t *testing.T) {
	link := filepath.Join(t.TempDir(), "config.db")
	if err := os.Symlink(link, link); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Open(Config{Path: link}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Open: %v", err)
	}
	if _, err := Read(link); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Read: %v", err)
	}
}

func TestModesAndOwnersArePutRightAtEveryStart(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("f"))
	path := afterAKill(t, s.path)
	for suffix, mode := range map[string]os.FileMode{"": 0o644, "-wal": 0o666, "-shm": 0o640} {
		f, err := os.OpenFile(path+suffix, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Chmod(mode), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	root := os.Geteuid() == 0
	if root {
		if err := os.Chown(path, 33, 33); err != nil {
			t.Fatal(err)
		}
	}
	again := openStore(t, path)
	again.mustCommit(create("g"))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		st, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		if st.Mode().Perm() != 0o600 || int(sys.Uid) != os.Geteuid() || int(sys.Gid) != os.Getegid() {
			t.Errorf("%s has mode %v, owner %d:%d", suffix, st.Mode(), sys.Uid, sys.Gid)
		}
	}
	log := again.log.String()
	if strings.Count(log, "another mode than 0600") != 3 || root != strings.Contains(log, "belonged to somebody else") || !strings.Contains(log, "database-exposed") {
		t.Errorf("the log says %s", log)
	}
	again.close()
	once := openStore(t, path)
	if log := once.log.String(); log != "" {
		t.Errorf("the next start says %s", log)
	}
}

func TestTheLockBelongsToTheDatabase(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("f"))
	link, hard := filepath.Join(t.TempDir(), "link"), filepath.Join(filepath.Dir(s.path), "hard")
	if err := errors.Join(os.Symlink(s.path, link), os.Link(s.path, hard)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.path, link, hard} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			if _, _, _, err := Open(Config{Path: path}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), filepath.Dir(s.path)) {
				t.Errorf("a second daemon: %v", err)
			}
		})
	}
	t.Cleanup(func() { // after the subtests
		s.mustCommit(create("g"))
		s.verify()
		s.close()
		openStore(t, s.path).close()
	})
}

func TestAnotherWritersTransactionIsNoticed(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("f"))
	// A daemon that knows nothing of the lock.
	sqlExec(t, s.path, "BEGIN", "REPLACE INTO tree VALUES (3,0,3,0,1,8,'theirs','x')", "UPDATE tree SET version=3 WHERE inode=0", "COMMIT")
	if err := s.commit(create("g")); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "version 3, expected was 2") {
		t.Errorf("committing: %v", err)
	}
	if err := s.commit(create("g")); !errors.Is(err, ErrChanged) {
		t.Errorf("committing again: %v", err)
	}
	contents, err := Read(s.path)
	if err != nil || len(contents.Entries) != 3 || contents.Entries[2].Name != "theirs" {
		t.Errorf("the other's transaction is gone: %v %v", contents, err)
	}
}

func TestARowChangedByHandIsWarnedAbout(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("f"))
	s.forget()
	if _, err := s.db.checkpoint(); err != nil {
		t.Fatal(err)
	}
	s.forget()
	s.mustCommit(create("g"))
	if log := s.log.String(); log != "" {
		t.Errorf("own transactions and checkpoints are taken for another's: %s", log)
	}
	sqlExec(t, s.path, "UPDATE tree SET data='by hand' WHERE inode=2")
	s.forget()
	s.mustCommit(create("h"))
	if log := s.log.String(); !strings.Contains(log, "another program has written") || !strings.Contains(log, "database-meddled") {
		t.Errorf("the log says %s", log)
	}
}

// forget makes the next commit look at the files.
func (s *store) forget() {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.db.looked = time.Time{}
}

func TestARemovedLogIsNoticedAndNothingIsLost(t *testing.T) {
	for name, meddle := range map[string]func(log string) error{
		"removed": os.Remove,
		"emptied": func(log string) error { return errors.Join(os.Remove(log), os.WriteFile(log, nil, 0o600)) },
		"with its index": func(log string) error {
			return errors.Join(os.Remove(log), os.Remove(strings.TrimSuffix(log, "-wal")+"-shm"))
		},
		"replaced": func(log string) error {
			return errors.Join(os.Remove(log), os.WriteFile(log, []byte(strings.Repeat("rubbish ", 10000)), 0o600))
		},
		"renamed": func(log string) error { return os.Rename(log, log+".old") },
	} {
		for _, checkpointed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newStore(t)
				s.mustCommit(create("a"))
				if checkpointed { // the checkpointer has a connection, too
					if _, err := s.db.checkpoint(); err != nil {
						t.Fatal(err)
					}
				}
				s.mustCommit(create("b"), write("b", []byte(strings.Repeat("content ", 1000))))
				if err := meddle(s.path + "-wal"); err != nil {
					t.Fatal(err)
				}
				s.forget()
				s.mustCommit(create("c"))
				if log := s.log.String(); !strings.Contains(log, "write-ahead log was removed or replaced") || !strings.Contains(log, "database-meddled") {
					t.Errorf("the log says %s", log)
				}
				s.mustCommit(create("d"))
				if err := s.db.Sync(); err != nil {
					t.Error(err)
				}
				again := openStore(t, afterAKill(t, s.path))
				sameEntries(t, again.tree.Entries(), s.tree.Entries())
				if _, err := s.db.checkpoint(); err != nil {
					t.Error(err)
				}
				s.mustCommit(create("e"))
				s.verify()
				s.close()
				s.verify()
			})
		}
	}
}

// TestTheFileAloneHoldsEverythingWhenNothingChanges copies config.db alone, as backup
// scripts do.
func TestTheFileAloneHoldsEverythingWhenNothingChanges(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.db")
	db, entries, _, err := Open(Config{Path: path, Rest: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tree, _, err := memdb.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	s := &store{tb: t, path: path, tree: tree, db: db}
	alone := func() error {
		copied := filepath.Join(t.TempDir(), "copy.db")
		if err := copyFile(path, copied, nil); err != nil {
			return err
		}
		contents, err := Read(copied)
		if err != nil {
			return err
		}
		if len(contents.Entries) != len(tree.Entries()) {
			return errors.New("the copy lacks entries")
		}
		return nil
	}
	for _, name := range []string{"a", "b"} {
		s.mustCommit(create(name))
		testutil.Eventually(t, "the copy is whole", alone)
	}
	// The clock stands still then.
	n := db.Stats().Checkpoints.Load()
	db.mu.Lock()
	rested := db.rested
	db.mu.Unlock()
	time.Sleep(200 * time.Millisecond)
	if again := db.Stats().Checkpoints.Load(); again > n+1 || !rested && again == n {
		t.Errorf("%d checkpoints, then %d, without a change", n, again)
	}
}

func TestAnEmptyDatabaseThatWasNoneBeforeIsWarnedAbout(t *testing.T) {
	for name, test := range map[string]struct {
		beside map[string]string
		empty  bool
		says   []string
	}{
		"new node":          {nil, false, nil},
		"0 bytes":           {nil, true, []string{"the database was empty, with 0 bytes"}},
		"log":               {map[string]string{"config.db-wal": "x"}, false, []string{"traces of an earlier one", "config.db-wal"}},
		"backup beside it":  {map[string]string{"config.db.bak": "x"}, false, []string{"traces of an earlier one", "config.db.bak"}},
		"stock backups":     {map[string]string{"backup/config-1.sql.gz": "x"}, false, []string{"traces of an earlier one", "backup"}},
		"an empty log":      {map[string]string{"config.db-wal": ""}, false, nil},
		"another program's": {map[string]string{"authkey": "x"}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "config.db")
			for file, content := range test.beside {
				file = filepath.Join(dir, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if test.empty {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := openStore(t, path)
			for _, want := range test.says {
				if !strings.Contains(s.log.String(), want) || !strings.Contains(s.log.String(), "database-begun-anew") {
					t.Errorf("the log says %q, not %q", s.log.String(), want)
				}
			}
			if len(test.says) == 0 && s.log.Len() > 0 {
				t.Errorf("the log says %q", s.log.String())
			}
		})
	}
}
