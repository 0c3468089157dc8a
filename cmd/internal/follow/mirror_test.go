package follow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/internal/event"
)

func confText(version int, more string) string {
	return fmt.Sprintf("totem {\n  cluster_name: lab\n  config_version: %d\n}\nnodelist {\n  node {\n    nodeid: 1\n    ring0_addr: 10.99.0.1\n  }\n}\n%s", version, more)
}

func TestJudgementOfTheCopiesOfCorosyncConf(t *testing.T) {
	example, err := os.ReadFile("../../../corosync/conf/testdata/debian-example.conf")
	if err != nil {
		t.Fatal(err)
	}
	v := func(n int) string { return confText(n, "") }
	broken := func(n int) string { return "garbage {\n" + v(n) }
	for _, c := range []struct {
		name       string
		tree, host string
		noHost     bool
		write      bool
		reload     bool // if the change is our own
		mistake    bool // in the tree's
		refused    bool // unless the host's is not guarded
		note       string
	}{
		{name: "newer in the tree", tree: v(3), host: v(2), write: true, reload: true},
		{name: "same version, other text", tree: v(3), host: confText(3, "# other\n"), write: true, reload: true},
		{name: "equal", tree: v(3), host: v(3)},
		{name: "host newer", tree: v(3), host: v(4), refused: true, note: "local corosync.conf is newer"},
		{name: "no host copy", tree: v(3), noHost: true, write: true},
		{name: "tree unparsable", tree: "nonsense", host: v(2), note: "in the tree is not usable"},
		{name: "tree unparsable, no host copy", tree: "nonsense", noHost: true, note: "in the tree is not usable"},
		{name: "both unparsable and equal", tree: "nonsense", host: "nonsense", note: "in the tree is not usable"},
		{name: "tree empty", tree: "", host: v(2), note: "in the tree is not usable"},
		{name: "host unparsable", tree: v(3), host: strings.Replace(v(2), "config_version: 2", "config_version: two", 1), note: "local corosync.conf is not usable"},
		{name: "the package's example on the host", tree: v(3), host: string(example), write: true},
		{name: "the host's has a stray brace", tree: v(3), host: broken(2), write: true, reload: true},
		{name: "the host's has a stray brace and is newer", tree: v(3), host: broken(4), note: "local corosync.conf is newer"},
		{name: "the host's is a cut example", tree: v(3), host: string(example[:len(example)-20]), note: "local corosync.conf is not usable"},
		{name: "the host's is empty", tree: v(3), host: "", note: "local corosync.conf is not usable"},
		{name: "the tree's has a stray brace", tree: broken(3), host: v(2), mistake: true, refused: true},
		{name: "another cluster's", tree: strings.Replace(v(3), "lab", "bal", 1), host: v(2), write: true, reload: true, refused: true},
		{name: "without nodes", tree: strings.Replace(v(3), "nodelist", "nodes", 1), host: v(2), write: true, reload: true, refused: true},
		{name: "the tree's has a stray brace, no host copy", tree: broken(3), noHost: true, write: true, mistake: true},
		{name: "both have a stray brace", tree: broken(3), host: broken(2), write: true, reload: true, mistake: true},
	} {
		for _, own := range []bool{false, true} {
			copies := confCopies{tree: []byte(c.tree), host: []byte(c.host), exists: !c.noHost, own: own}
			if d := copies.judge(); (d.refused != "") != c.refused || c.refused && d.write {
				t.Errorf("%s, own %v, guarded: %+v", c.name, own, d)
			}
			copies.unguarded = !c.noHost && c.refused
			d := copies.judge()
			if d.write != c.write || d.reload != (c.reload && own) || (d.mistake != nil) != c.mistake || (d.note == "") != (c.note == "") || !strings.Contains(d.note, c.note) {
				t.Errorf("%s, own %v: %+v", c.name, own, d)
			}
			if d.write && d.version != 3 {
				t.Errorf("%s: version %d", c.name, d.version)
			}
		}
	}
}

// confBench is a mirror in a directory of its own.
type confBench struct {
	*Mirror
	work    *Worker
	out     *logText
	mu      sync.Mutex
	text    string
	absent  bool
	reloads atomic.Int32
	failure error
	during  func() // called by reload
}

func newConfBench(t *testing.T) *confBench {
	b := &confBench{}
	log, logger := newLogText()
	b.out = log
	b.Mirror = NewMirror(filepath.Join(t.TempDir(), "corosync.conf"), func() ([]byte, bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return []byte(b.text), !b.absent
	}, logger)
	b.reload = func() error {
		b.reloads.Add(1)
		if b.during != nil {
			b.during()
		}
		return b.failure
	}
	b.work = Start("corosync.conf", b.Run)
	return b
}

func (b *confBench) close() error { return Close(b.work) }

func (b *confBench) set(text string, own bool) {
	b.mu.Lock()
	b.text = text
	b.mu.Unlock()
	b.Changed(own)
}

func (b *confBench) wantHost(t *testing.T, want string) {
	t.Helper()
	got, err := os.ReadFile(b.path)
	if err != nil || string(got) != want {
		t.Errorf("the host has %q (%v), want %q", got, err, want)
	}
}

func TestMirrorWritesTheHostsCopyAndReloadsForItsOwnChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newConfBench(t)
		b.set(confText(1, ""), true)
		synctest.Wait()
		b.wantHost(t, confText(1, ""))
		st, err := os.Stat(b.path)
		if err != nil || st.Mode() != 0o644 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if text := fmt.Sprintf("wrote new corosync config '%s' (version = 1)", b.path); b.out.count(text) != 1 {
			t.Errorf("log: %s", b.out)
		}
		time.Sleep(time.Minute)
		if n := b.reloads.Load(); n != 0 {
			t.Errorf("%d reloads although the host had no copy before", n)
		}
		b.set(confText(2, ""), false)
		time.Sleep(time.Minute)
		b.wantHost(t, confText(2, ""))
		b.failure = errors.New("refused")
		if n := b.reloads.Load(); n != 0 {
			t.Errorf("%d reloads for another node's change", n)
		}
		b.set(confText(3, ""), true)
		time.Sleep(confSettle - time.Millisecond)
		synctest.Wait()
		b.wantHost(t, confText(3, ""))
		if n := b.reloads.Load(); n != 0 {
			t.Error("reloaded before the other nodes can have the file")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := b.reloads.Load(); n != 1 || b.out.count("refused") != 1 {
			t.Errorf("%d reloads; log: %s", n, b.out)
		}
		b.set(confText(2, ""), true)
		time.Sleep(time.Minute)
		b.wantHost(t, confText(3, ""))
		if b.out.count("local corosync.conf is newer") != 1 || b.reloads.Load() != 1 {
			t.Errorf("%d reloads; log: %s", b.reloads.Load(), b.out)
		}
		b.mu.Lock()
		b.absent = true
		b.mu.Unlock()
		b.Changed(true)
		synctest.Wait()
		b.wantHost(t, confText(3, ""))
		if err := b.close(); err != nil {
			t.Error(err)
		}
		left, _ := os.ReadDir(filepath.Dir(b.path))
		if len(left) != 2 { // beside it what was refused
			t.Errorf("left: %v", left)
		}
	})
}

func TestMirrorForgetsNoChangeWhileItReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newConfBench(t)
		release := make(chan struct{})
		b.during = func() { <-release }
		b.set(confText(1, ""), false)
		synctest.Wait()
		b.set(confText(2, ""), true)
		time.Sleep(2 * confSettle)
		// Stuck in the reload: reporting more changes doesn't block.
		for i := 3; i < 100; i++ {
			b.set(confText(i, ""), i == 50)
		}
		synctest.Wait()
		b.wantHost(t, confText(2, ""))
		close(release)
		time.Sleep(2 * confSettle)
		synctest.Wait()
		b.wantHost(t, confText(99, ""))
		if n := b.reloads.Load(); n != 2 {
			t.Errorf("%d reloads", n)
		}
		// Stopping doesn't wait for a reload that is due.
		b.set(confText(100, ""), true)
		synctest.Wait()
		start := time.Now()
		if err := b.close(); err != nil || time.Since(start) != 0 || b.reloads.Load() != 2 {
			t.Errorf("close: %v after %v, %d reloads", err, time.Since(start), b.reloads.Load())
		}
	})
}

func TestMirrorLeavesTheOldCopyIfItCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newConfBench(t)
		defer b.close()
		b.set(confText(1, ""), false)
		synctest.Wait()
		// A directory that can't be removed stands where the new copy is made.
		tmp := filepath.Join(filepath.Dir(b.path), ".corosync.conf.pmxcfs-new")
		if err := os.MkdirAll(filepath.Join(tmp, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		b.set(confText(2, ""), true)
		time.Sleep(time.Minute)
		b.wantHost(t, confText(1, ""))
		if b.out.count("writing the local corosync.conf") != 1 || b.reloads.Load() != 0 {
			t.Errorf("%d reloads; log: %s", b.reloads.Load(), b.out)
		}
		if err := os.RemoveAll(tmp); err != nil {
			t.Fatal(err)
		}
		// A leftover of a crash, and a link planted there, are replaced.
		victim := filepath.Join(t.TempDir(), "victim")
		if err := os.Symlink(victim, tmp); err != nil {
			t.Fatal(err)
		}
		b.set(confText(3, ""), false)
		synctest.Wait()
		b.wantHost(t, confText(3, ""))
		if _, err := os.Lstat(victim); err == nil {
			t.Error("written through a link")
		}
	})
}

func TestMirrorKeepsFromCorosyncWhatItWouldRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newConfBench(t)
		good := confText(1, "")
		b.set(good, true)
		time.Sleep(2 * confSettle)
		b.wantHost(t, good)
		reloads := b.reloads.Load()
		bad := strings.Replace(confText(2, ""), "lab", "bal", 1)
		b.set(bad, true)
		time.Sleep(2 * confSettle)
		b.wantHost(t, good)
		if kept, err := os.ReadFile(b.path + ".refused"); err != nil || string(kept) != bad {
			t.Errorf("beside it lies %q (%v)", kept, err)
		}
		if b.reloads.Load() != reloads || !b.Refused.Load() || !strings.Contains(b.out.String(), "not given to corosync") || !strings.Contains(b.out.String(), string(event.ConfRefused)) {
			t.Errorf("%d reloads, refused %v, the log is\n%s", b.reloads.Load()-reloads, b.Refused.Load(), b.out)
		}
		better := confText(3, "")
		b.set(better, true)
		time.Sleep(2 * confSettle)
		b.wantHost(t, better)
		if _, err := os.Stat(b.path + ".refused"); !errors.Is(err, fs.ErrNotExist) || b.Refused.Load() {
			t.Errorf("what was refused is left: %v", err)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAMirrorWithoutGuardGivesCorosyncEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newConfBench(t)
		b.Unguarded = true
		b.set(confText(1, ""), true)
		time.Sleep(2 * confSettle)
		other := strings.Replace(confText(2, ""), "lab", "bal", 1)
		b.set(other, true)
		time.Sleep(2 * confSettle)
		b.wantHost(t, other)
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}
