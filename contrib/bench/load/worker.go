package load

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/bench/tree"
)

// worker is one client: a thread with its files.
type worker struct {
	number  int
	files   []path
	names   []path // of files that are made and deleted
	temp    path
	listDir path
	listed  []path
	version path
	small   []byte
	large   []byte
	buf     []byte
	stat    unix.Stat_t
	statx   unix.Statx_t
	churn   *churn // nil means not this operation
	hist    Histogram
	longest time.Duration
	done    int // operations of the last batch
	stamps  uint64
	err     error
}

// Dir is the directory, below the mount point, that the operations use.
const Dir = "bench"

const listDir = "listed"

// Prepare makes the directories that the operations want, for up to clients
// clients.
func Prepare(mount string, clients int) error {
	base := filepath.Join(mount, Dir)
	dirs := []string{base, filepath.Join(base, listDir)}
	for i := range clients {
		dirs = append(dirs, clientDir(mount, i))
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o750); err != nil {
			return err
		}
	}
	for i := range listed {
		if err := os.WriteFile(filepath.Join(base, listDir, listedName(i)), []byte("x\n"), 0o640); err != nil {
			return err
		}
	}
	return nil
}

func clientDir(mount string, i int) string { return filepath.Join(mount, Dir, strconv.Itoa(i)) }

func listedName(i int) string { return strconv.Itoa(100000+i) + ".conf" }

// newWorker returns client number i. With shared, all clients work in one
// directory.
func newWorker(mount string, i int, shared bool) *worker {
	dir := clientDir(mount, i)
	if shared {
		dir = clientDir(mount, 0)
	}
	list := filepath.Join(mount, Dir, listDir)
	w := &worker{
		number:  i,
		temp:    newPath("%s/temp.%d", dir, i),
		listDir: newPath("%s", list),
		version: newPath("%s/.version", mount),
		small:   tree.Content(Small),
		large:   tree.Content(large),
		buf:     make([]byte, 64<<10),
		hist:    newHistogram(),
	}
	for n := range perClient {
		w.files = append(w.files, newPath("%s/%d-%d.conf", dir, i, n))
	}
	for n := range perBatch {
		w.names = append(w.names, newPath("%s/new-%d-%d.conf", dir, i, n))
	}
	for n := range listed {
		w.listed = append(w.listed, newPath("%s/%s", list, listedName(n)))
	}
	return w
}

// stamp makes b differ from what it was before, in every page: SQLite does not
// write pages that stay the same.
func (w *worker) stamp(b []byte) {
	w.stamps++
	tree.Stamp(b, w.stamps)
}

// guarded calls f and keeps the error of a call in it that failed.
func (w *worker) guarded(f func(*worker)) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			w.err = r.err
		default:
			panic(r)
		}
	}()
	if w.err == nil {
		f(w)
	}
}

// measure runs operations until the time is over, but at least that many, or limit
// of them if that is not zero, and notes how long each took.
func (w *worker) measure(o *op, d time.Duration, least, limit int) {
	w.done = 0
	start := time.Now()
	last := time.Duration(0)
	for i := 0; limit == 0 && (last < d || i < least) || i < limit; i++ {
		o.run(w, i)
		now := time.Since(start)
		w.took(now - last)
		last = now
	}
}

// measureAt runs operations when they are due, until the end, and at least one.
func (w *worker) measureAt(o *op, end time.Time, p *pace) {
	w.done = 0
	for p.wait(end) || w.done == 0 {
		begin := time.Now()
		o.run(w, w.done)
		w.took(time.Since(begin))
	}
}

func (w *worker) took(d time.Duration) {
	w.hist.Add(d)
	w.longest = max(w.longest, d)
	w.done++
}
