package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

func TestLargeWriteIsOneOperation(t *testing.T) {
	m := mountTest(t, nil)
	content := bytes.Repeat([]byte("0123456789abcdef"), memdb.MaxFileSize/16)
	f := m.open("f", os.O_CREATE|os.O_RDWR)
	before := m.store.writes.Load()
	if n, err := f.Write(content); err != nil || n != len(content) {
		t.Fatal(n, err)
	}
	if n := m.store.writes.Load() - before; n != 1 {
		t.Errorf("1 MiB took %d operations", n)
	}
	_, err := f.WriteAt([]byte("x"), memdb.MaxFileSize)
	wantErrno(t, "a byte past the limit", err, syscall.EFBIG)
	wantErrno(t, "truncate past the limit", f.Truncate(memdb.MaxFileSize+1), syscall.EFBIG)
	_, err = f.WriteAt([]byte("x"), 1<<40)
	wantErrno(t, "a byte far past the limit", err, syscall.EFBIG)
	got, err := os.ReadFile(m.path("f"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
}

func TestGapsAndTruncationGiveZeros(t *testing.T) {
	m := mountTest(t, nil)
	f := m.open("f", os.O_CREATE|os.O_RDWR)
	if _, err := f.WriteAt([]byte("b"), 3); err != nil {
		t.Fatal(err)
	}
	m.want("f", "\x00\x00\x00b")
	if err := f.Truncate(6); err != nil {
		t.Fatal(err)
	}
	m.want("f", "\x00\x00\x00b\x00\x00")
	if err := f.Truncate(2); err != nil {
		t.Fatal(err)
	}
	m.want("f", "\x00\x00")
	if err := os.Truncate(m.path("f"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(m.path("f"), 3); err != nil {
		t.Fatal(err)
	}
	m.want("f", "\x00\x00\x00")
	if n, err := f.ReadAt(make([]byte, 1), 3); n != 0 || err != io.EOF {
		t.Errorf("reading at the end: %d, %v", n, err)
	}
}

// An empty file that grows must be sent as a write of zeros: a stock peer keeps
// no bytes for a bare truncation.
func TestGrowingAnEmptyFileCarriesItsZeros(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "")
	if err := os.Truncate(m.path("f"), 5); err != nil {
		t.Fatal(err)
	}
	last := m.store.last()
	if len(last.Data) != 5 || last.Offset != 0 || !last.Truncate {
		t.Errorf("growing sent %d bytes at %d, truncate %v", len(last.Data), last.Offset, last.Truncate)
	}
	if err := os.Truncate(m.path("f"), 9); err != nil {
		t.Fatal(err)
	}
	if last := m.store.last(); len(last.Data) != 0 || last.Offset != 9 {
		t.Errorf("growing a file that has content sent %d bytes at %d", len(last.Data), last.Offset)
	}
}

func TestOpeningWithTruncateChangesNothingUntilTheFirstWrite(t *testing.T) {
	m := mountTest(t, nil)
	for _, access := range []int{os.O_WRONLY, os.O_RDWR} {
		m.write("f", "old content")
		reader := m.open("f", os.O_RDONLY)
		f := m.open("f", access|os.O_TRUNC)
		m.want("f", "old content")
		if st := m.stat("f"); st.Size != 11 {
			t.Errorf("after open, size is %d", st.Size)
		}
		if access == os.O_RDWR {
			if n, err := f.Read(make([]byte, 20)); n != 0 || err != io.EOF {
				t.Errorf("who truncates reads %d bytes, %v", n, err)
			}
		}
		before := m.store.writes.Load()
		if _, err := f.WriteString("new"); err != nil {
			t.Fatal(err)
		}
		if n := m.store.writes.Load() - before; n != 1 {
			t.Errorf("the first write took %d operations", n)
		}
		m.want("f", "new")
		b := make([]byte, 20)
		if n, err := reader.ReadAt(b, 0); string(b[:n]) != "new" || err != io.EOF {
			t.Errorf("an open reader sees %q, %v", b[:n], err)
		}
		if _, err := f.WriteString("er"); err != nil {
			t.Fatal(err)
		}
		m.want("f", "newer")
		f.Close()
	}
}

func TestTruncationWithoutAWriteHappensAtCloseOrFsync(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "old")
	f := m.open("f", os.O_WRONLY|os.O_TRUNC)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m.want("f", "")
	m.write("g", "old")
	g := m.open("g", os.O_WRONLY|os.O_TRUNC)
	if err := g.Sync(); err != nil {
		t.Fatal(err)
	}
	m.want("g", "")
	m.write("h", "old")
	h := m.open("h", os.O_WRONLY|os.O_TRUNC)
	if _, err := h.WriteAt([]byte("x"), 2); err != nil {
		t.Fatal(err)
	}
	m.want("h", "\x00\x00x")
	m.write("i", "old")
	i := m.open("i", os.O_WRONLY|os.O_TRUNC)
	if err := i.Truncate(2); err != nil {
		t.Fatal(err)
	}
	m.want("i", "\x00\x00")
}

func TestNoReaderSeesAnOverwrittenFileEmpty(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "1111")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b, err := os.ReadFile(m.path("f"))
				if err != nil || len(b) != 4 || strings.Count(string(b), string(b[:1])) != 4 {
					t.Errorf("a reader saw %q, %v", b, err)
					return
				}
			}
		})
	}
	for i := range 300 {
		m.write("f", strings.Repeat(fmt.Sprint(i%10), 4))
	}
	close(stop)
	wg.Wait()
}

// The same for files that have rested, which are read through the kernel's pages.
func TestNoReaderSeesAFileEmptyThatIsOverwrittenAfterALongTime(t *testing.T) {
	const files = 300
	m := mountTest(t, nil)
	m.fs.readersTime = time.Minute // a reader may be kept from running on a busy machine
	name := func(i int) string { return fmt.Sprintf("f%d", i) }
	for i := range files {
		m.write(name(i), "1111")
	}
	time.Sleep(2 * recentTime)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var at atomic.Int64
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				i := int(at.Load())
				b, err := os.ReadFile(m.path(name(i)))
				if err != nil || string(b) != "1111" && string(b) != "2222" {
					t.Errorf("a reader saw %q, %v", b, err)
					return
				}
				if st := m.stat(name(i)); st.Size != 4 {
					t.Errorf("a size of %d", st.Size)
				}
			}
		})
	}
	for i := range files {
		at.Store(int64(i))
		time.Sleep(time.Duration(i) * 3 * time.Microsecond)
		m.write(name(i), "2222")
	}
	stop.Store(true)
	wg.Wait()
}

func TestAppendGoesToTheEndThatTheTreeHas(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "one")
	f := m.open("f", os.O_WRONLY|os.O_APPEND)
	m.stat("f") // the kernel believes in a size of 3
	m.foreign(memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte("two"), Offset: 3})
	if _, err := f.WriteString("three"); err != nil {
		t.Fatal(err)
	}
	e, _ := m.tree.Lookup("f")
	if string(e.Data()) != "onetwothree" {
		t.Errorf("the tree has %q", e.Data())
	}
	m.want("f", "onetwothree")
}

func TestCreateOpensWhatAnotherNodeMadeMeanwhile(t *testing.T) {
	m := mountTest(t, nil)
	if _, err := os.Stat(m.path("f")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	// The kernel remembers that there is no f, and sends CREATE.
	res, err := m.tree.Apply(&memdb.Op{Kind: memdb.OpCreate, Path: "f"})
	if err != nil {
		t.Fatal(err)
	}
	m.fs.Applied(nil, res.Changes, false)
	f, err := os.OpenFile(m.path("f"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	f.Close()
	m.want("f", "x")
	if _, err := os.Stat(m.path("g")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if res, err = m.tree.Apply(&memdb.Op{Kind: memdb.OpCreate, Path: "g"}); err != nil {
		t.Fatal(err)
	}
	_, err = os.OpenFile(m.path("g"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	wantErrno(t, "with O_EXCL", err, syscall.EEXIST)
}

func TestADeletedFileLivesOnForThoseWhoHaveItOpen(t *testing.T) {
	m := mountTest(t, nil)
	for _, foreign := range []bool{false, true} {
		m.write("f", "content")
		f := m.open("f", os.O_RDWR)
		if foreign {
			m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: "f"})
		} else if err := os.Remove(m.path("f")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 20)
		if n, err := f.ReadAt(b, 0); string(b[:n]) != "content" || err != io.EOF {
			t.Errorf("read %q, %v", b[:n], err)
		}
		if _, err := f.WriteAt([]byte("X"), 0); err != nil {
			t.Errorf("write: %v", err)
		}
		if n, err := f.ReadAt(b, 0); string(b[:n]) != "Xontent" || err != io.EOF {
			t.Errorf("read %q, %v", b[:n], err)
		}
		if err := f.Truncate(2); err != nil {
			t.Errorf("truncate: %v", err)
		}
		if fi, err := f.Stat(); err != nil || fi.Size() != 2 {
			t.Errorf("stat: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, ok := m.tree.Lookup("f"); ok {
			t.Error("the tree has it again")
		}
	}
}

func TestForeignChangesAreSeenAtOnceByOpenAndSoonByStat(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "one")
	m.mkdir("d")
	m.want("f", "one")
	listInodes(t, m.path("d"))
	for i := range 50 {
		content := fmt.Sprintf("content %d", i)
		m.foreign(memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: []byte(content), Truncate: true})
		m.want("f", content)
	}
	m.foreign(memdb.Op{Kind: memdb.OpWrite, Path: "f", Data: make([]byte, 100), Truncate: true})
	soon(t, "stat", func() bool { return m.stat("f").Size == 100 })
	if _, err := os.Stat(m.path("d/new")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	m.foreign(memdb.Op{Kind: memdb.OpCreate, Path: "d/new"})
	soon(t, "a new name", func() bool { _, err := os.Stat(m.path("d/new")); return err == nil })
	soon(t, "a listing", func() bool { return len(listInodes(t, m.path("d"))) == 3 })
	m.foreign(memdb.Op{Kind: memdb.OpRename, Path: "d/new", To: "d/newer"})
	soon(t, "a renamed name", func() bool {
		_, gone := os.Stat(m.path("d/new"))
		_, there := os.Stat(m.path("d/newer"))
		return gone != nil && there == nil
	})
	m.foreign(memdb.Op{Kind: memdb.OpDelete, Path: "d/newer"})
	soon(t, "a deleted name", func() bool { _, err := os.Stat(m.path("d/newer")); return err != nil })
	soon(t, "a listing", func() bool { return len(listInodes(t, m.path("d"))) == 2 })
}

// soon fails only after much longer than is promised: a test is no benchmark.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	eventually(t, func() string {
		if ok() {
			return ""
		}
		return what + " is still the old one"
	})
}

// Writers through the mount and changes from elsewhere fight over the same
// names, while invalidations are sent: nobody may hang.
func TestWritersAndNotifiersDoNotDeadlock(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	const workers = 4
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	length := 2 * time.Second
	if testing.Short() {
		length = 300 * time.Millisecond
	}
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	var done atomic.Int64
	for w := range workers {
		rnd := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for time.Now().Before(end) {
				p := filepath.Join(m.dir, "d", fmt.Sprint(rnd.IntN(3)))
				switch rnd.IntN(6) {
				case 0:
					os.WriteFile(p, []byte("data"), 0o640)
				case 1:
					os.Remove(p)
				case 2:
					os.Rename(p, filepath.Join(m.dir, "d", fmt.Sprint(rnd.IntN(3))))
				case 3:
					os.ReadFile(p)
				case 4:
					os.ReadDir(m.path("d"))
				case 5:
					os.Stat(p)
				}
				done.Add(1)
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, workers))
	wg.Go(func() {
		for time.Now().Before(end) {
			p := fmt.Sprintf("d/%d", rnd.IntN(3))
			op := memdb.Op{Path: p, To: fmt.Sprintf("d/%d", rnd.IntN(3)), Kind: memdb.Kind(1 + rnd.IntN(5)), Data: []byte("foreign")}
			if op.Kind == memdb.OpMkdir {
				continue
			}
			// Through the store, so that file and tree stay together.
			var changes []memdb.Change
			if c, err := m.store.Local.Do(nil, &op); err == nil {
				changes = append(changes, c)
			}
			m.fs.invalidate(changes)
			done.Add(1)
		}
	})
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
		t.Logf("%d operations", done.Load())
	case <-time.After(60 * time.Second):
		if mount, err := mountedOn(m.dir); err == nil {
			abort(mount.minor)
		}
		t.Fatal("the mount hangs")
	}
}

// failingDB refuses transactions while it is told to, and knows what it holds.
type failingDB struct {
	dcdb.Database
	err   atomic.Pointer[error]
	syncs atomic.Int64

	mu   sync.Mutex
	rows map[uint64]*memdb.Entry
}

func (d *failingDB) Commit(changes []memdb.Change) error {
	if err := d.err.Load(); err != nil {
		return *err
	}
	d.mu.Lock()
	if d.rows == nil {
		d.rows = map[uint64]*memdb.Entry{}
	}
	for _, c := range changes {
		d.rows[c.Inode] = c.New
	}
	d.mu.Unlock()
	return d.Database.Commit(changes)
}

func (d *failingDB) Sync() error {
	d.syncs.Add(1)
	return d.Database.Sync()
}

// content returns what is stored of a file in the root.
func (d *failingDB) content(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.rows {
		if e != nil && e.Name == name {
			return string(e.Data())
		}
	}
	return "nothing"
}

func (d *failingDB) fail(err error) {
	if err == nil {
		d.err.Store(nil)
		return
	}
	d.err.Store(&err)
}

func TestWhatWasNotStoredIsNotShown(t *testing.T) {
	var db *failingDB
	m := mountTest(t, func(real dcdb.Database) dcdb.Database {
		db = &failingDB{Database: real}
		return db
	})
	m.mkdir("d")
	m.write("f", "old")
	m.write("gone", "x")
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		f := m.open("f", os.O_WRONLY|os.O_TRUNC)
		db.fail(errno)
		_, err := f.WriteString("new and longer")
		wantErrno(t, "write", err, errno)
		if err := f.Close(); err != nil {
			t.Errorf("close after a write that has reported it: %v", err)
		}
		_, err = os.OpenFile(m.path("f"), os.O_WRONLY|os.O_TRUNC, 0)
		wantErrno(t, "emptying", err, errno)
		_, err = os.Create(m.path("n"))
		wantErrno(t, "create", err, errno)
		wantErrno(t, "mkdir", os.Mkdir(m.path("e"), 0o755), errno)
		wantErrno(t, "unlink", os.Remove(m.path("gone")), errno)
		wantErrno(t, "rename", os.Rename(m.path("gone"), m.path("f")), errno)
		wantErrno(t, "truncate", os.Truncate(m.path("f"), 1), errno)
		m.want("f", "old")
		m.want("gone", "x")
		if _, err := os.Stat(m.path("n")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what was not created is there: %v", err)
		}
		soon(t, "the listing", func() bool { return len(listInodes(t, m.dir)) == 2+3+3 })
		soon(t, "the size", func() bool { return m.stat("f").Size == 3 })
		db.fail(nil)
		m.write("n", "now it works")
		m.want("n", "now it works")
		if err := os.Remove(m.path("n")); err != nil {
			t.Error(err)
		}
	}
	f := m.open("f", os.O_WRONLY)
	if _, err := f.WriteString("a"); err != nil {
		t.Fatal(err)
	}
	db.fail(syscall.ENOSPC)
	if _, err := f.WriteString("b"); err != nil { // of a stream
		t.Fatal(err)
	}
	wantErrno(t, "fsync after a write", f.Sync(), syscall.ENOSPC)
	db.fail(nil)
}

// Only the later writes of a stream go on before they are stored, and only as long as all is well.
func TestWriteReportsWhetherItIsStored(t *testing.T) {
	var db *failingDB
	m := mountTest(t, func(real dcdb.Database) dcdb.Database {
		db = &failingDB{Database: real}
		return db
	})
	stored := func(path, want string) {
		t.Helper()
		if got := db.content(path); got != want {
			t.Errorf("the database has %q in %s, want %q", got, path, want)
		}
	}
	for _, flags := range []int{os.O_TRUNC, os.O_APPEND, 0} {
		m.write("f", "12345")
		f := m.open("f", os.O_WRONLY|flags)
		writeTo(t, f, "first")
		stored("f", map[int]string{os.O_TRUNC: "first", os.O_APPEND: "12345first", 0: "first"}[flags])
		f.Close()
	}
	for _, flags := range []int{syscall.O_SYNC, syscall.O_DSYNC} {
		syncs := db.syncs.Load()
		f := m.open("s", os.O_CREATE|os.O_WRONLY|os.O_TRUNC|flags)
		for i := range 5 {
			writeTo(t, f, "x")
			stored("s", strings.Repeat("x", i+1))
		}
		if n := db.syncs.Load() - syncs; n != 5 {
			t.Errorf("5 writes were synced %d times", n)
		}
		f.Close()
	}

	f := m.open("f", os.O_WRONLY|os.O_TRUNC)
	writeTo(t, f, "a")
	db.fail(syscall.ENOSPC)
	writeTo(t, f, "b")
	soon(t, "the failure", func() bool { return m.store.Failing() != nil })
	_, err := f.WriteString("c")
	wantErrno(t, "the write after one that was taken back", err, syscall.ENOSPC)
	_, err = f.WriteString("c")
	wantErrno(t, "a write while transactions fail", err, syscall.ENOSPC)
	m.want("f", "a")
	db.fail(nil)
	writeTo(t, f, "d")
	stored("f", "a\x00d")
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func writeTo(t *testing.T, f *os.File, text string) {
	t.Helper()
	if n, err := f.WriteString(text); err != nil || n != len(text) {
		t.Errorf("writing %q: %d, %v", text, n, err)
	}
}

// blockedDB holds transactions up until it is released.
type blockedDB struct {
	dcdb.Database
	gate atomic.Pointer[chan struct{}]
}

func (d *blockedDB) Commit(changes []memdb.Change) error {
	if g := d.gate.Load(); g != nil {
		<-*g
	}
	return d.Database.Commit(changes)
}

func mountBlocked(t *testing.T) (*testMount, *blockedDB) {
	t.Helper()
	var db *blockedDB
	m := mountTest(t, func(real dcdb.Database) dcdb.Database {
		db = &blockedDB{Database: real}
		return db
	})
	return m, db
}

// hold blocks transactions, the first one being that of a new directory, and
// returns once that is in the tree. Release lets all go on, and returns when the
// directory is stored.
func (d *blockedDB) hold(m *testMount, dir string) (release func()) {
	m.t.Helper()
	gate := make(chan struct{})
	d.gate.Store(&gate)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := os.Mkdir(m.path(dir), 0o755); err != nil {
			m.t.Error(err)
		}
	})
	eventually(m.t, func() string {
		if _, ok := m.tree.Lookup(dir); !ok {
			return "the tree lacks " + dir
		}
		return ""
	})
	return func() {
		d.gate.Store(nil)
		close(gate)
		wg.Wait()
	}
}

func TestReadsDoNotWaitForATransaction(t *testing.T) {
	m, db := mountBlocked(t)
	m.write("f", "old")
	f := m.open("f", os.O_WRONLY)
	writeTo(t, f, "new")
	release := db.hold(m, "d")
	m.want("f", "new")
	writeTo(t, f, "er") // and the later writes of a stream need only the tree
	m.want("f", "newer")
	release()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// Told EINTR, a program tries again. An append must not be there twice then, and what another
// write has changed must be seen.
func TestAnInterruptedWriteIsMadeOnce(t *testing.T) {
	m, db := mountBlocked(t)
	m.write("append", "1")
	m.write("overwrite", "old content")
	appends := m.open("append", os.O_WRONLY|os.O_APPEND)
	overwrites := m.open("overwrite", os.O_WRONLY|os.O_TRUNC)
	reader := m.open("overwrite", os.O_RDONLY)
	if _, err := reader.Read(make([]byte, 3)); err != nil { // from the kernel's pages
		t.Fatal(err)
	}
	release := db.hold(m, "d")
	appended, overwritten := interrupted(m, appends, "2"), interrupted(m, overwrites, "new")
	select {
	case err := <-overwritten:
		wantErrno(t, "an interrupted overwrite", err, syscall.EINTR)
	case <-time.After(30 * time.Second):
		t.Error("an overwrite can't be interrupted")
	}
	b := make([]byte, 20)
	eventually(t, func() string {
		if n, _ := reader.ReadAt(b, 0); string(b[:n]) != "new" {
			return fmt.Sprintf("an open reader sees %q", b[:n])
		}
		return ""
	})
	release()
	if err := <-appended; err != nil {
		t.Errorf("an interrupted append: %v", err)
	}
	m.want("append", "12")
	m.want("overwrite", "new")
	if err := errors.Join(appends.Close(), overwrites.Close()); err != nil {
		t.Error(err)
	}
}

// interrupted writes to f, with signals arriving all the time, and gives the result.
func interrupted(m *testMount, f *os.File, text string) <-chan error {
	fd := int(f.Fd())
	result := make(chan error, 1)
	thread := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // and never unlock it: the thread ends here
		thread <- syscall.Gettid()
		n, err := syscall.Write(fd, []byte(text))
		if err == nil && n != len(text) {
			err = io.ErrShortWrite
		}
		result <- err
	}()
	tid := <-thread
	name := filepath.Base(f.Name())
	eventually(m.t, func() string {
		if e, ok := m.tree.Lookup(name); !ok || !strings.HasSuffix(string(e.Data()), text) {
			return "it is not in the tree"
		}
		return ""
	})
	if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil { // once is enough
		m.t.Error(err)
	}
	return result
}

func TestAWaitingCallCanBeInterrupted(t *testing.T) {
	m, db := mountBlocked(t)
	m.mkdir("d") // the kernel lets one at a time change a directory
	release := db.hold(m, "leads")
	cmd := exec.Command("mkdir", m.path("d/waits"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	soon(t, "the second", func() bool { _, ok := m.tree.Lookup("d/waits"); return ok })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a killed process ended well")
		}
	case <-time.After(30 * time.Second):
		t.Error("a killed process still waits for its change")
	}
	release()
}

// A shell opens a redirection's target, copies the descriptor and closes the
// first; children close their copies when they end. None of that is the close
// that empties the file.
func TestAShellsRedirectionIsOneChange(t *testing.T) {
	m := mountTest(t, nil)
	m.mkdir("d")
	m.write("d/f", "old")
	for _, tt := range []struct{ script, want string }{
		{"echo new > f", "new\n"},
		{"sh -c 'echo newer' > f", "newer\n"},
		{"{ true; /bin/true; /bin/echo newest; } > f", "newest\n"},
		{"(/bin/true; /bin/echo last) > f", "last\n"},
		{": > f", ""},
	} {
		before := m.tree.Root().Version
		// The shell changes directory, not exec's child: that shares our memory until it has
		// become the shell, and a call of it in a mount that we serve could wait for ever.
		cmd := exec.Command("sh", "-c", "cd \"$0\" && "+tt.script, m.path("d"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", tt.script, err, out)
		}
		m.want("d/f", tt.want)
		if n := m.tree.Root().Version - before; n != 1 {
			t.Errorf("%q made %d changes", tt.script, n)
		}
	}
}

func TestClosingOneOfTwoHandlesTruncatesAtOnce(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "old")
	other := m.open("f", os.O_WRONLY)
	f := m.open("f", os.O_WRONLY|os.O_TRUNC)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if st := m.stat("f"); st.Size != 0 {
		t.Errorf("after close the size is %d", st.Size)
	}
	other.Close()
}

func TestTruncatingByPathAFileThatIsOpenHappensAtOnce(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "old")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := m.open("f", os.O_WRONLY)
	if err := os.Truncate(m.path("f"), 0); err != nil {
		t.Fatal(err)
	}
	if st := m.stat("f"); st.Size != 0 {
		t.Errorf("after truncate(2) the size is %d", st.Size)
	}
	m.want("f", "")
	f.Close()
}

// A process handles signals all the time; its calls must not fail for that.
func TestSignalsDoNotInterruptChanges(t *testing.T) {
	m, db := mountBlocked(t)
	m.mkdir("d")
	release := db.hold(m, "leads")
	// A shell that handles a signal while its child, mkdir, does not count: perl
	// makes the call itself.
	cmd := exec.Command("perl", "-e", `$SIG{USR1} = sub {}; mkdir($ARGV[0]) or die "mkdir: $!"`, m.path("d/waits"))
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	soon(t, "the second", func() bool { _, ok := m.tree.Lookup("d/waits"); return ok })
	for range 20 {
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	release()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}

// A descriptor of another file system is none of this file, whatever its inode number.
func TestClosingTruncatesBesideAnotherMountsFileOfTheSameNumber(t *testing.T) {
	m, other := mountTest(t, nil), mountTest(t, nil)
	m.write("f", "old")
	other.write("f", "old")
	if a, b := m.stat("f").Ino, other.stat("f").Ino; a != b {
		t.Fatalf("the files have inode numbers %d and %d", a, b)
	}
	held := other.open("f", os.O_WRONLY)
	defer held.Close()
	fd, err := unix.Open(m.path("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	if e, _ := m.tree.Lookup("f"); e.Size() != 0 {
		t.Errorf("after close the file has %d bytes", e.Size())
	}
}

// Who is refused is told so, by close; the log needs no line for each.
func TestRefusedTruncationIsToldAndNotLogged(t *testing.T) {
	m := mountTest(t, nil)
	m.write("f", "old")
	var log bytes.Buffer
	m.fs.log = slog.New(slog.NewTextHandler(&log, nil))
	fd, err := unix.Open(m.path("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.store.lost.Store(true)
	before := m.store.writes.Load()
	wantErrno(t, "close", unix.Close(fd), syscall.EACCES)
	m.store.lost.Store(false)
	eventually(t, func() string {
		m.fs.mu.Lock()
		defer m.fs.mu.Unlock()
		if len(m.fs.handles) > 0 {
			return "the handle is still there"
		}
		return ""
	})
	if n := m.store.writes.Load() - before; n != 1 {
		t.Errorf("the truncation was tried %d times", n)
	}
	if log.Len() > 0 {
		t.Errorf("the log says %s", log.String())
	}
	m.want("f", "old")
}

// Another node's change reaches the tree before the kernel is told of it. What the kernel
// then asks for by its old inode it has to look up again: the names exist all the time.
func TestRequestsForAReplacedEntryFindItsSuccessor(t *testing.T) {
	requests := map[string]func(m *testMount, name string) error{
		"open": func(m *testMount, name string) error {
			content, err := os.ReadFile(m.path(name))
			if err == nil && string(content) != "new" {
				return fmt.Errorf("it holds %q", content)
			}
			return err
		},
		"append": func(m *testMount, name string) error {
			f, err := os.OpenFile(m.path(name), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("!")
			return err
		},
		"truncate": func(m *testMount, name string) error { return os.Truncate(m.path(name), 1) },
		"times":    func(m *testMount, name string) error { return os.Chtimes(m.path(name), time.Time{}, time.Unix(1, 0)) },
		"chmod":    func(m *testMount, name string) error { return os.Chmod(m.path(name), 0o640) },
		"access":   func(m *testMount, name string) error { return unix.Access(m.path(name), unix.R_OK) },
		"list": func(m *testMount, name string) error {
			_, err := os.ReadDir(m.path(filepath.Dir(name)))
			return err
		},
		"lookup": func(m *testMount, name string) error {
			_, err := os.Stat(m.path(name + ".other"))
			return err
		},
		"create": func(m *testMount, name string) error { return os.WriteFile(m.path(name+".x"), []byte("x"), 0o640) },
		"delete": func(m *testMount, name string) error { return os.Remove(m.path(name + ".other")) },
		"rename": func(m *testMount, name string) error { return os.Rename(m.path(name+".other"), m.path(name)) },
	}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			m := mountNode(t, nil, true)
			m.mkdir("d")
			m.write("d/file", "old")
			m.write("d/file.other", "old")
			m.stat("d/file") // the kernel knows the inodes of both
			for _, op := range []memdb.Op{
				{Kind: memdb.OpDelete, Path: "d/file"},
				{Kind: memdb.OpDelete, Path: "d/file.other"},
				{Kind: memdb.OpDelete, Path: "d"},
				{Kind: memdb.OpMkdir, Path: "d"},
				{Kind: memdb.OpCreate, Path: "d/file"},
				{Kind: memdb.OpWrite, Path: "d/file", Data: []byte("new")},
				{Kind: memdb.OpCreate, Path: "d/file.other"},
			} {
				if _, err := m.store.Local.Do(nil, &op); err != nil { // no kernel hears of it
					t.Fatal(err)
				}
			}
			if err := request(m, "d/file"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	t.Run("what is gone", func(t *testing.T) {
		m := mountNode(t, nil, true)
		m.write("file", "old")
		m.stat("file")
		if _, err := m.store.Local.Do(nil, &memdb.Op{Kind: memdb.OpDelete, Path: "file"}); err != nil {
			t.Fatal(err)
		}
		_, err := os.ReadFile(m.path("file"))
		wantErrno(t, "opening it", err, syscall.ENOENT)
	})
}
