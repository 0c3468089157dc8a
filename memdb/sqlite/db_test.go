package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/memdb"
)

func TestNewDatabaseHasTheDocumentedForm(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("file"), mkdir("dir"))
	for _, file := range []string{"", "-wal", "-shm"} {
		st, err := os.Stat(s.path + file)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode() != 0o600 {
			t.Errorf("config.db%s has the mode %v", file, st.Mode())
		}
	}
	s.close()
	for query, want := range map[string]any{
		"SELECT sql FROM sqlite_schema": "CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, " +
			"parent INTEGER NOT NULL CHECK(typeof(parent)=='integer'), version INTEGER NOT NULL CHECK(typeof(version)=='integer'), " +
			"writer INTEGER NOT NULL CHECK(typeof(writer)=='integer'), mtime INTEGER NOT NULL CHECK(typeof(mtime)=='integer'), " +
			"type INTEGER NOT NULL CHECK(typeof(type)=='integer'), name TEXT NOT NULL, data BLOB)",
		"SELECT count(*) FROM sqlite_schema": int64(1),
		"SELECT parent||' '||version||' '||writer||' '||mtime||' '||type||' '||name||' '||typeof(name)||' '||typeof(data) FROM tree WHERE inode=0":                     "0 3 1 1000 8 __version__ text null",
		"SELECT inode||' '||parent||' '||version||' '||writer||' '||mtime||' '||type||' '||name||' '||typeof(name)||' '||typeof(data) FROM tree WHERE name='file'":     "2 0 2 1 1000 8 file text null",
		"SELECT inode||' '||parent||' '||version||' '||writer||' '||mtime||' '||type||' '||name||' '||typeof(name)||' '||typeof(data) FROM tree WHERE name GLOB 'dir'": "3 0 3 1 1000 4 dir text null",
		"PRAGMA journal_mode": "wal",
		"PRAGMA page_size":    int64(4096),
	} {
		if got := sqlValue(t, s.path, query); got != want {
			t.Errorf("%s\nis   %v\nwant %v", query, got, want)
		}
	}
}

func TestOpenTellsWhetherTheFileIsNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	for _, want := range []bool{true, false} {
		db, entries, created, err := Open(Config{Path: path, Clock: func() time.Time { return t0 }})
		if err != nil {
			t.Fatal(err)
		}
		if created != want || len(entries) != 1 || entries[0].Version != 1 || entries[0].MTime != uint32(t0.Unix()) {
			t.Errorf("created %v, entries %v", created, entries)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenWithoutADirectoryNamesThePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "config.db")
	_, _, _, err := Open(Config{Path: path})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

func TestCloseLeavesTheFileAlone(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("file"), write("file", bytes.Repeat([]byte("x"), 100_000)))
	s.close()
	list, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil || len(list) != 1 {
		t.Errorf("the directory has %v, %v", list, err)
	}
	for what, err := range map[string]error{"Commit": s.commit(create("late")), "Sync": s.db.Sync(), "Close": s.db.Close()} {
		if !errors.Is(err, fs.ErrClosed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

func TestChangeOfTypeOfAnInodeIsStored(t *testing.T) {
	// A synchronisation can bring a directory in the place of an empty file.
	s := newStore(t)
	s.mustCommit(create("x"))
	old, _ := s.tree.Lookup("x")
	e := memdb.NewEntry(old.Inode, old.Parent, old.Version, old.Writer, old.MTime, memdb.TypeDir, "x", nil)
	if err := s.db.Commit([]memdb.Change{{Inode: e.Inode, Old: old.Entry, New: e}}); err != nil {
		t.Fatal(err)
	}
	if got := sqlValue(t, s.path, "SELECT type FROM tree WHERE name='x'"); got != int64(memdb.TypeDir) {
		t.Errorf("type %v", got)
	}
}

// randomOp returns an operation on a small set of paths; it may be refused.
func randomOp(r *rand.Rand) memdb.Op {
	names := []string{"a", "b", "c", "ü", "sp ace", "d\x80", "e\nf"}
	path := names[r.IntN(len(names))]
	for range r.IntN(3) {
		path += "/" + names[r.IntN(len(names))]
	}
	op := memdb.Op{Kind: memdb.Kind(1 + r.IntN(6)), Path: path, Writer: r.Uint32(), MTime: r.Uint32(), Now: t0}
	switch op.Kind {
	case memdb.OpWrite:
		op.Offset = uint32(r.IntN(100))
		if r.IntN(10) == 0 {
			op.Offset = uint32(r.IntN(20_000))
		}
		op.Truncate = r.IntN(2) == 0
		op.Data = bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(1<<r.IntN(15)))
	case memdb.OpRename:
		op.To = names[r.IntN(len(names))]
		if r.IntN(2) == 0 {
			op.To += "/" + names[r.IntN(len(names))]
		}
	case memdb.OpDelete:
		if r.IntN(2) == 0 {
			op.Kind = memdb.OpCreate
		}
	}
	return op
}

func TestRandomBatchesAreInTheFile(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := newStore(t)
	for range 30 {
		for range r.IntN(20) {
			var d memdb.Delta
			for range 1 + r.IntN(60) {
				op := randomOp(r)
				if res, err := s.tree.Apply(&op); err == nil {
					d.Add(res.Changes)
				}
			}
			if err := s.db.Commit(d.Changes()); err != nil {
				t.Fatal(err)
			}
		}
		s.verify()
		if r.IntN(3) == 0 {
			want := s.tree.Entries()
			s.close()
			s = openStore(t, s.path)
			sameEntries(t, s.tree.Entries(), want)
		}
	}
	if _, n := s.tree.Usage(); n < 5 {
		t.Errorf("only %d entries at the end: the test is too tame", n)
	}
}

func TestExtremeNumbersSurvive(t *testing.T) {
	s := newStore(t)
	root := s.tree.Root()
	e := memdb.NewEntry(1<<64-1, 0, 1<<63, 1<<32-1, 1<<32-1, memdb.TypeFile, "x", []byte("y"))
	now := memdb.NewEntry(0, 0, memdb.MaxVersion, 1<<32-1, 1<<32-1, memdb.TypeDir, "", nil)
	if err := s.db.Commit([]memdb.Change{{Inode: e.Inode, New: e}, {Inode: 0, Old: root, New: now}}); err != nil {
		t.Fatal(err)
	}
	contents, err := Read(s.path)
	if err != nil || contents.Fatal() {
		t.Fatal(err, contents)
	}
	sameEntries(t, contents.Entries, []*memdb.Entry{now, e})
}

// TestReadersSeeConsistentStatesDuringCommits reads while commits run: in every
// state, the two files hold the same.
func TestReadersSeeConsistentStatesDuringCommits(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"), create("b"))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	reads := 0
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			contents, err := Read(s.path)
			if err != nil || contents.Fatal() || len(contents.Entries) != 3 {
				t.Errorf("reading: %v %v", err, contents)
				return
			}
			if a, b := contents.Entries[1].Data(), contents.Entries[2].Data(); !bytes.Equal(a, b) {
				t.Errorf("torn: %q and %q", a, b)
			}
			reads++
		}
	})
	tool, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Log("no sqlite3 program here")
	} else {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := exec.Command(tool, "-readonly", s.path, ".dump").CombinedOutput()
				if err != nil || !strings.Contains(string(out), "'__version__'") || !strings.Contains(string(out), "COMMIT;") {
					t.Errorf("sqlite3 .dump: %v\n%s", err, out)
					return
				}
			}
		})
	}
	for i := range 2000 {
		text := fmt.Appendf(nil, "%d", i)
		s.mustCommit(write("a", text), write("b", text))
	}
	close(stop)
	readers.Wait()
	if reads == 0 {
		t.Error("nothing was read meanwhile")
	}
	s.verify()
}

func TestLogStaysBoundedUnderConstantWrites(t *testing.T) {
	s := newStore(t)
	const files, transactions = 500, 20_000
	for i := range files {
		s.mustCommit(create(fmt.Sprint(i)))
	}
	var largest int64
	for i := range transactions {
		s.mustCommit(write(fmt.Sprint(i*7919%files), bytes.Repeat([]byte{byte(i)}, 700)))
		if i%50 == 0 {
			st, err := os.Stat(s.path + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, st.Size())
		}
	}
	if largest > 32<<20 || largest < 1<<20 {
		t.Errorf("the log grew to %d bytes", largest)
	}
	t.Logf("the log grew to %d bytes, %d checkpoints", largest, s.db.Stats().Checkpoints.Load())
	s.verify()
	s.close()
	if exists(s.path + "-wal") {
		t.Error("Close left the log")
	}
}

func TestReaderInTheWayHoldsNoWriterUp(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("file"))
	reader, err := open(s.path, "ro")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, q := range []string{"BEGIN", "SELECT count(*) FROM tree"} {
		if err := reader.Do(q); err != nil {
			t.Fatal(err)
		}
	}
	data := make([]byte, memdb.MaxFileSize)
	for i := range 100 { // far beyond the bound, which the reader makes impossible
		data[0] = byte(i)
		s.mustCommit(write("file", data))
	}
	if err := reader.Do("COMMIT"); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		data[1] = byte(i)
		s.mustCommit(write("file", data))
	}
	st, err := os.Stat(s.path + "-wal")
	if err != nil || st.Size() > 48<<20 {
		t.Errorf("the log has %d bytes long after the reader has gone (%v)", st.Size(), err)
	}
	s.verify()
}

func TestSyncSyncsTheLog(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("file"))
	if err := s.db.Sync(); err != nil {
		t.Fatal(err)
	}
	wal, err := os.Stat(s.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := s.db.wal.Stat(); err != nil || !os.SameFile(st, wal) {
		t.Fatalf("what is synced is not the log (%v)", err)
	}

	// A pipe can't be synced: the error shows that it was tried.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.db.wal.Close()
	s.db.wal = w
	err = s.db.Sync()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, syscall.EIO) || !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("Sync of a pipe: %v", err)
	}

	// After a failure, only a copy in the main file is believed.
	s.mustCommit(write("file", []byte("text")))
	if err := s.db.Sync(); err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "alone.db")
	main, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(alone, main, 0o600); err != nil {
		t.Fatal(err)
	}
	contents, err := Read(alone)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, contents.Entries, s.tree.Entries())
	if s.db.suspect {
		t.Error("the log is not trusted again")
	}
}

func TestSyncRacesWithNewConnections(t *testing.T) {
	s := newStore(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.db.Sync(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 50 {
		s.db.mu.Lock()
		err := s.db.disconnect()
		s.db.mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		s.mustCommit(create(fmt.Sprint(i)))
	}
	close(stop)
	wg.Wait()
	s.verify()
}

func TestFileRemovedOrReplacedIsNoticed(t *testing.T) {
	tests := map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, path string) {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			// The same version, another file.
			b, err := os.ReadFile(path + ".away")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range tests {
		for _, connected := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/connected=%v", name, connected), func(t *testing.T) {
				s := newStore(t)
				s.mustCommit(create("before"))
				if !connected {
					s.db.mu.Lock()
					if err := s.db.disconnect(); err != nil {
						t.Fatal(err)
					}
					s.db.mu.Unlock()
				}
				change(t, s.path)
				other := []byte(nil)
				if name == "replaced" {
					other, _ = os.ReadFile(s.path)
				}
				for range 2 {
					s.db.looked = time.Time{}
					if err := s.commit(create("lost")); !errors.Is(err, ErrChanged) || !errors.Is(err, syscall.EIO) {
						t.Fatalf("Commit: %v", err)
					}
				}
				if now, _ := os.ReadFile(s.path); !bytes.Equal(now, other) {
					t.Error("the other file was written to")
				}
				// Put back, it is used again.
				if err := os.Rename(s.path+".away", s.path); err != nil {
					t.Fatal(err)
				}
				s.mustCommit(create("after"))
				s.verify()
			})
		}
	}
}

func TestFileChangedByAnotherProgramIsNoticed(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"), create("b"))
	sqlExec(t, s.path, "DELETE FROM tree WHERE name='a'")
	if err := s.commit(write("b", []byte("kept")), rename("a", "c")); !errors.Is(err, ErrChanged) {
		t.Errorf("a change of a row that is gone: %v", err)
	}
	if got := sqlValue(t, s.path, "SELECT count(*) FROM tree WHERE data IS NOT NULL"); got != int64(0) {
		t.Errorf("a part of the transaction was stored: %v", got)
	}
	s.mustCommit(write("b", []byte("text")))
}

func TestTransactionThatTookEffectAfterAllIsTakenBack(t *testing.T) {
	s := newStore(t)
	s.mustCommit(mkdir("d"), create("d/old"), write("d/old", []byte("old")), create("gone"), write("gone", []byte("back")))
	before := s.tree.Entries()

	// What a COMMIT does that reports a failure but is found in the log later.
	var d memdb.Delta
	for _, op := range []memdb.Op{write("d/old", []byte("new")), create("d/new"), remove("gone"), rename("d/old", "moved")} {
		res, err := s.tree.Apply(&op)
		if err != nil {
			t.Fatal(err)
		}
		d.Add(res.Changes)
	}
	if _, err := s.db.transaction(d.Changes()); err != nil {
		t.Fatal(err)
	}
	s.db.mu.Lock()
	s.db.doubtful(d.Changes())
	if err := s.db.disconnect(); err != nil {
		t.Fatal(err)
	}
	s.db.mu.Unlock()
	s.tree.Revert(&d)
	sameEntries(t, s.tree.Entries(), before)

	s.mustCommit(create("next"))
	s.verify()
	if !strings.Contains(s.log.String(), "taken back") {
		t.Errorf("the log says %q", s.log.String())
	}
	if s.db.inDoubt != nil {
		t.Error("still in doubt")
	}
}

func TestBusyDatabaseFailsTheTransactionOnly(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"))
	other, err := open(s.path, "rw")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Do("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if err := s.db.w.c.Do("PRAGMA busy_timeout=10"); err != nil {
		t.Fatal(err)
	}
	w := s.db.w
	err = s.commit(create("b"))
	var e *Error
	if !errors.As(err, &e) || e.Call != "BEGIN" || !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
	if err := other.Do("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	s.mustCommit(create("c"))
	if s.db.w != w {
		t.Error("the connection was given up for a lock")
	}
	s.verify()
	if st := s.db.Stats(); st.Failed.Load() != 1 || st.Transactions.Load() != 2 {
		t.Errorf("%d failed, %d done", st.Failed.Load(), st.Transactions.Load())
	}
}

func TestCreateMakesAnEqualDatabase(t *testing.T) {
	contents, err := Read(unpack(t, "varied.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "new.db")
	if err := Create(path, contents.Entries); err != nil {
		t.Fatal(err)
	}
	again, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, again.Entries, contents.Entries)
	before := fingerprint(t, filepath.Dir(path))
	if err := Create(path, contents.Entries); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a file: %v", err)
	}
	if err := Create(filepath.Join(filepath.Dir(path), "x"), contents.Entries[1:]); err == nil {
		t.Error("Create took a tree without a root")
	}
	if after := fingerprint(t, filepath.Dir(path)); after != before {
		t.Errorf("failures left traces:\n%s\nbefore:\n%s", after, before)
	}
}

func TestBackupOfABusyDatabaseIsOneState(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("a"), create("b"))
	stop, started := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i == 10 {
				close(started)
			}
			text := fmt.Appendf(nil, "%d", i)
			if err := s.commit(write("a", text), write("b", text)); err != nil {
				t.Error(err)
			}
		}
	})
	<-started
	dir := t.TempDir()
	for i := range 20 {
		contents, err := Backup(s.path, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Error(err)
			break
		}
		if a, b := contents.Entries[1].Data(), contents.Entries[2].Data(); !bytes.Equal(a, b) {
			t.Errorf("torn: %q and %q", a, b)
		}
	}
	close(stop)
	wg.Wait()
	last := filepath.Join(dir, "last")
	if _, err := Backup(s.path, last); err != nil {
		t.Fatal(err)
	}
	contents, err := Read(last)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, contents.Entries, s.tree.Entries())
	if st, err := os.Stat(last); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if _, err := Backup(s.path, last); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Backup over a file: %v", err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 21 {
		t.Errorf("%d files", len(list))
	}
}

func TestReadNeverTouchesAFile(t *testing.T) {
	s := newStore(t)
	s.mustCommit(create("file"), write("file", []byte("text")))
	crashed := filepath.Join(t.TempDir(), "config.db") // as a kill leaves it: with a log
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(s.path+suffix, crashed+suffix, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	for _, path := range []string{s.path, crashed} {
		before := fingerprint(t, filepath.Dir(path))
		contents, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, contents.Entries, s.tree.Entries())
		if found, err := IntegrityCheck(path); err != nil || len(found) > 0 {
			t.Errorf("%v %v", found, err)
		}
		if rows, err := ReadRows(path); err != nil || len(rows) != 2 {
			t.Errorf("%v %v", rows, err)
		}
		if _, err := Backup(path, filepath.Join(t.TempDir(), "copy")); err != nil {
			t.Error(err)
		}
		if after := fingerprint(t, filepath.Dir(path)); after != before {
			t.Errorf("reading left traces:\n%s\nbefore:\n%s", after, before)
		}
	}
	if _, err := Read("/dev/null"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/null was read: %v", err)
	}
}

func TestConnectionsAreDefensive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	writer, err := open(path, "rwc")
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	memory, err := openMemory(4096)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for name, c := range map[string]conn{"file": writer, "memory": memory} {
		if err := errors.Join(c.Do(schema), c.Do("PRAGMA writable_schema=ON")); err != nil {
			t.Fatal(name, err)
		}
		if err := c.Do("UPDATE sqlite_schema SET sql='CREATE TABLE tree (inode)'"); err == nil {
			t.Errorf("%s: the schema can be changed as text", name)
		}
	}
}
