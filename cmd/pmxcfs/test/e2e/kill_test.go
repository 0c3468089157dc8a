package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
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
	"pmxcfs/memdb/sqlite"
)

// state is what a directory holds: contents by name, dirMark for a directory.
type state = map[string]string

const dirMark = "\x00directory"

// history is what a writer knows of its directory: the state that it was told
// is stored, and those that it may have got to since, in their order.
type history struct {
	states []state
	power  bool // it is a power cut that takes changes back, not a kill
}

// now is the present state.
func (h *history) now() state { return h.states[len(h.states)-1] }

// may notes a state that the directory is about to get to: change is applied to
// a copy of the present one.
func (h *history) may(change func(state)) {
	next := maps.Clone(h.now())
	change(next)
	h.states = append(h.states, next)
}

// stored notes that the present state is promised to be in the file, where no
// kill can take it back.
func (h *history) stored() {
	if !h.power {
		h.synced()
	}
}

// synced notes that the present state is promised to have reached the disk.
func (h *history) synced() { h.states = h.states[len(h.states)-1:] }

// settle takes over the state that was found after a kill. It must be one of
// those that are possible.
func (h *history) settle(found state) error {
	for _, s := range h.states {
		if maps.Equal(s, found) {
			h.states = []state{s}
			return nil
		}
	}
	var nearest []string
	for i, s := range h.states {
		var diff []string
		for name := range union(s, found) {
			want, ok1 := s[name]
			got, ok2 := found[name]
			if ok1 != ok2 || want != got {
				diff = append(diff, fmt.Sprintf("state %d: %s: found %v %s, want %v %s", i, name, ok2, brief(got), ok1, brief(want)))
			}
		}
		if nearest == nil || len(diff) < len(nearest) {
			nearest = diff
		}
	}
	return fmt.Errorf("none of the %d possible states; the nearest differs in\n\t%s", len(h.states), strings.Join(nearest, "\n\t"))
}

func union(a, b state) state {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

// readState reads a directory.
func readState(dir string) (state, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := state{}
	for _, e := range list {
		if e.IsDir() {
			s[e.Name()] = dirMark
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		s[e.Name()] = string(b)
	}
	return s, nil
}

// writer changes a directory of its own and keeps its history.
type writer struct {
	history
	dir   string // in the mount
	name  string
	rnd   *rand.Rand
	count int
	acked int
}

// content returns one that no other write has.
func (w *writer) content() string {
	w.count++
	size := w.rnd.IntN(3000)
	if w.rnd.IntN(25) == 0 {
		size = w.rnd.IntN(200_000)
	}
	return fmt.Sprintf("%s %d\n", w.name, w.count) + strings.Repeat(string(rune('a'+w.count%26)), size)
}

// step makes one random change, of one or more calls.
func (w *writer) step() error {
	name := fmt.Sprint("f", w.rnd.IntN(5))
	old, exists := w.now()[name]
	path := filepath.Join(w.dir, name)
	switch w.rnd.IntN(10) {
	case 0, 1, 2: // >
		return w.store(name, os.O_TRUNC, 1)
	case 3, 4: // >>
		return w.store(name, os.O_APPEND, 1+w.rnd.IntN(4))
	case 5, 6: // temporary file and rename
		if err := w.store("tmp", os.O_TRUNC, 1); err != nil {
			return err
		}
		w.may(func(s state) { s[name] = s["tmp"]; delete(s, "tmp") })
		if err := os.Rename(filepath.Join(w.dir, "tmp"), path); err != nil {
			return err
		}
	case 7:
		if !exists {
			return nil
		}
		w.may(func(s state) { delete(s, name) })
		if err := os.Remove(path); err != nil {
			return err
		}
	case 8:
		if !exists {
			return nil
		}
		size := w.rnd.IntN(2*len(old) + 1)
		w.may(func(s state) { s[name] = resized(old, size) })
		if err := os.Truncate(path, int64(size)); err != nil {
			return err
		}
	default:
		if _, there := w.now()["d"]; there {
			w.may(func(s state) { delete(s, "d") })
			if err := syscall.Rmdir(filepath.Join(w.dir, "d")); err != nil {
				return err
			}
		} else {
			w.may(func(s state) { s["d"] = dirMark })
			if err := os.Mkdir(filepath.Join(w.dir, "d"), 0o755); err != nil {
				return err
			}
		}
	}
	w.stored()
	w.acked++
	return nil
}

func resized(s string, n int) string {
	if n <= len(s) {
		return s[:n]
	}
	return s + strings.Repeat("\x00", n-len(s))
}

// store opens a file, writes to it several times, and closes it. Meanwhile this
// process makes no other: that would close its copy of the file, and closing is
// what empties a file that was opened with O_TRUNC and not written to.
func (w *writer) store(name string, flags, writes int) (err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	_, exists := w.now()[name]
	if !exists {
		w.may(func(s state) { s[name] = "" })
	}
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY|os.O_CREATE|flags, 0o640)
	if err != nil {
		return err
	}
	if !exists {
		w.stored()
	}
	for range writes {
		c := w.content()
		w.may(func(s state) {
			if flags&os.O_APPEND != 0 {
				s[name] += c
			} else {
				s[name] = c
			}
		})
		if _, err := f.WriteString(c); err != nil {
			return errors.Join(err, f.Close())
		}
		if w.rnd.IntN(10) == 0 {
			if err := f.Sync(); err != nil {
				return errors.Join(err, f.Close())
			}
			w.synced()
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	w.stored()
	w.acked++
	return nil
}

// TestNothingAcknowledgedIsLostByKills kills the daemon over and over while
// several writers are at work.
func TestNothingAcknowledgedIsLostByKills(t *testing.T) {
	needLab(t)
	t.Parallel()
	s := seed(t)
	kills, nodes := 300, 3
	if testing.Short() || raceDetector {
		kills = 60
	}
	if *longFlag {
		kills = 5000
	}
	var acked atomic.Int64
	begin := time.Now()
	t.Run("nodes", func(t *testing.T) {
		for i := range nodes {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				node := newInstance
				if i == 0 {
					node = newRaced
				}
				acked.Add(int64(killLoop(t, node(t), rand.New(rand.NewPCG(s, uint64(i))), kills/nodes)))
			})
		}
	})
	t.Logf("%d kills in %v, %d changes acknowledged", kills, time.Since(begin).Round(time.Millisecond), acked.Load())
	if acked.Load() < int64(kills) {
		t.Errorf("only %d changes were acknowledged: the kills hit nothing", acked.Load())
	}
}

func killLoop(t *testing.T, n *instance, rnd *rand.Rand, kills int) (acked int) {
	var writers []*writer
	n.start()
	for i := range 4 {
		name := fmt.Sprint("w", i)
		n.mkdir(name)
		writers = append(writers, &writer{
			history: history{states: []state{{}}}, dir: n.path(name), name: name,
			rnd: rand.New(rand.NewPCG(rnd.Uint64(), uint64(i))),
		})
	}
	n.stop()
	for kill := range kills {
		if rnd.IntN(10) == 0 { // at its start
			n.launch()
			time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
			n.kill()
		}
		if !n.running() {
			n.start()
		}
		verify(t, n, writers, kill)
		burst(t, n, writers, 20*time.Millisecond+time.Duration(rnd.IntN(30))*time.Millisecond)
		if t.Failed() {
			t.Fatalf("kill %d", kill)
		}
	}
	if !n.running() {
		n.start()
	}
	verify(t, n, writers, kills)
	n.stop()
	onDisk := treeOf(t, n.db)
	for _, w := range writers {
		for name, want := range w.now() {
			if got := onDisk[w.name+"/"+name]; got != want {
				t.Errorf("the file holds %s as %s, the mount showed %s", name, brief(got), brief(want))
			}
		}
		acked += w.acked
	}
	return acked
}

// burst lets the writers write and kills the daemon after a while.
func burst(t *testing.T, n *instance, writers []*writer, length time.Duration) {
	var killed atomic.Bool
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() {
			quiet(t)
			for {
				if err := w.step(); err != nil {
					if !killed.Load() {
						t.Errorf("before the kill: %v", err)
					}
					return
				}
			}
		})
	}
	for i := range 2 { // whoever reads just then must not keep the daemon from ending
		wg.Go(func() {
			quiet(t)
			for j := i; !killed.Load(); j++ {
				_, _ = os.ReadFile(filepath.Join(writers[j%len(writers)].dir, fmt.Sprint("f", j%5)))
			}
		})
	}
	time.Sleep(length)
	killed.Store(true)
	n.kill()
	if n.late != nil {
		n.abort() // writers that wait keep this process from starting the next one, which would free them
	}
	wg.Wait()
}

// quiet keeps signals from the calling goroutine until it ends. The end of
// another test's daemon is one, and a call that a signal interrupts may answer
// EINTR, which is right, but not what is tested.
func quiet(t testing.TB) {
	runtime.LockOSThread()
	var set unix.Sigset_t
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		t.Error(err)
	}
}

// verify compares what the mount shows with what each writer was told.
func verify(t *testing.T, n *instance, writers []*writer, kill int) {
	t.Helper()
	for _, w := range writers {
		found, err := readState(w.dir)
		if err == nil {
			err = w.settle(found)
		}
		if err != nil {
			t.Fatalf("after %d kills, writer %s: %v", kill, w.name, err)
		}
	}
	list, err := mounts()
	must(t, err)
	count := 0
	for _, m := range list {
		if m == n.mount {
			count++
		}
	}
	if count != 1 {
		t.Fatalf("after %d kills there are %d mounts on the mount point", kill, count)
	}
}

// treeOf reads a database file and returns its entries by path.
func treeOf(t testing.TB, path string) state {
	t.Helper()
	contents, err := sqlite.Read(path)
	must(t, err)
	for _, p := range contents.Problems {
		t.Errorf("%s: %s", path, p)
	}
	byID := map[uint64]*memdb.Entry{}
	for _, e := range contents.Entries {
		byID[e.Inode] = e
	}
	s := state{}
	for _, e := range contents.Entries {
		if e.Inode == memdb.RootInode {
			continue
		}
		content := string(e.Data())
		if e.IsDir() {
			content = dirMark
		}
		s[pathOf(byID, e)] = content
	}
	return s
}

func pathOf(byID map[uint64]*memdb.Entry, e *memdb.Entry) string {
	path := e.Name
	for e.Parent != memdb.RootInode {
		e = byID[e.Parent]
		path = e.Name + "/" + path
	}
	return path
}

// TestDeadMountIsSeenAsSuchAndReplaced is about what a killed daemon leaves.
func TestDeadMountIsSeenAsSuchAndReplaced(t *testing.T) {
	n := newInstance(t)
	n.start()
	n.write("file", "content")
	held, err := os.Open(n.path("file"))
	must(t, err)
	defer held.Close()
	n.kill()
	if _, err := os.Stat(n.path("file")); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("a dead mount answers %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(n.root, "run/pve-cluster/cfs-restart-flag")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a killed daemon has left a restart flag: %q, %v", b, err)
	}
	n.start()
	n.wantContent("file", "content")
	if _, err := held.ReadAt(make([]byte, 1), 0); err == nil {
		// The page cache may answer; what it may not do is hang.
		t.Log("the old mount's cache still answers")
	}
	n.stop()
	if list, err := mounts(); err != nil || len(list) == 0 || contains(list, n.mount) {
		t.Errorf("a mount is left: %v", err)
	}
}

// TestGuardOfAKilledDaemonLeavesTheNextOnesMountAlone has a supervisor that does not
// collect its dead at once: the killed daemon stays as a zombie while the next one
// starts on the same mount point.
func TestGuardOfAKilledDaemonLeavesTheNextOnesMountAlone(t *testing.T) {
	n := newInstance(t)
	dead := n.command(n.args("--foreground")...)
	must(t, dead.Start())
	n.eventually("the first daemon is up", func() bool {
		b, err := os.ReadFile(n.path(".version"))
		return err == nil && len(b) > 0
	})
	must(t, dead.Process.Kill())
	t.Cleanup(func() { _ = dead.Wait() })
	n.forget()
	n.start()
	guardLooks := time.Now().Add(time.Second) // three times its grace
	for time.Now().Before(guardLooks) {
		if _, err := os.ReadFile(n.path(".version")); err != nil || !n.running() {
			t.Fatalf("the next daemon's mount is gone: %v; it runs: %v", err, n.running())
		}
		time.Sleep(5 * time.Millisecond)
	}
	if alive(dead.Process.Pid) {
		t.Error("the first daemon is no zombie: this has shown nothing")
	}
	n.stop()
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// TestKillEndsTheDaemonAtEveryMomentOfItsStart kills it around the moment at
// which it mounts: a process that waits for its own mount can't be killed.
func TestKillEndsTheDaemonAtEveryMomentOfItsStart(t *testing.T) {
	n := newInstance(t)
	rnd := rand.New(rand.NewPCG(seed(t), 0))
	n.start()
	n.kill()
	mounted := 0
	for range 60 {
		n.forget()
		n.launch()
		n.eventually("it has mounted or ended", func() bool { return n.mounted() || !n.running() })
		for begin := time.Now(); time.Since(begin) < time.Duration(rnd.IntN(2000))*time.Microsecond; {
		}
		n.kill()
		if n.mounted() {
			mounted++
		}
	}
	if mounted < 30 {
		t.Errorf("only %d of the daemons had mounted", mounted)
	}
}
