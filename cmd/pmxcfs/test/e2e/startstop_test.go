package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pid returns what the pid file says.
func (n *instance) pid() int {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.root, "run/pve-cluster.pid"))
	must(n.t, err)
	text, ok := strings.CutSuffix(string(b), "\n")
	pid, err := strconv.Atoi(text)
	if !ok || err != nil {
		n.t.Fatalf("the pid file holds %q", b)
	}
	return pid
}

// alive reports whether a process is there, and not just a corpse.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func wantMode(t *testing.T, path string, mode fs.FileMode, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != mode {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != gid {
		t.Errorf("%s belongs to %d:%d, want 0:%d", path, st.Uid, st.Gid, gid)
	}
}

func (n *instance) mounted() bool {
	n.t.Helper()
	list, err := mounts()
	must(n.t, err)
	return slices.Contains(list, n.mount)
}

func (n *instance) restartFlag() string {
	return filepath.Join(n.root, "run/pve-cluster/cfs-restart-flag")
}

const www = 33 // www-data

func TestBackgroundDaemonIsUsableWhenItsParentReturns(t *testing.T) {
	n := newInstance(t)
	code, stdout, stderr := n.runToEnd(n.args()...)
	if code != 0 || stdout != "" {
		t.Fatalf("exit code %d, output %q, %q", code, stdout, stderr)
	}
	n.write("file", "content") // at once
	pid := n.pid()
	t.Cleanup(func() {
		if alive(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if !alive(pid) {
		t.Fatalf("there is no process %d", pid)
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	must(t, err)
	if f := strings.Fields(string(stat)); f[3] != "1" || f[5] != f[0] {
		t.Errorf("parent %s, session %s: it has not left its parent's", f[3], f[5])
	}
	for fd := range 3 {
		if to, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(fd)); err != nil || to != "/dev/null" {
			t.Errorf("descriptor %d leads to %s, %v", fd, to, err)
		}
	}
	if cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("its directory is %q, %v", cwd, err)
	}
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	n.eventually("the daemon ends", func() bool { return !alive(pid) })
	if n.mounted() {
		t.Error("it left its mount")
	}
	if _, err := os.Stat(filepath.Join(n.root, "run/pve-cluster.pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it left its pid file: %v", err)
	}
}

func TestBackgroundStartThatFailsSaysWhyAndFails(t *testing.T) {
	n := newInstance(t)
	must(t, os.WriteFile(n.db, []byte(strings.Repeat("not a database\n", 1000)), 0o600))
	code, _, stderr := n.runToEnd(n.args()...)
	if code != 1 || !strings.Contains(stderr, "config.db") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if n.mounted() {
		t.Error("it mounted nevertheless")
	}
}

func TestFilesThatTheDaemonMakesAreAsSpecified(t *testing.T) {
	n := newInstance(t)
	must(t, os.RemoveAll(filepath.Join(n.root, "var")))
	n.start()
	for path, mode := range map[string]fs.FileMode{
		"var/lib/pve-cluster":                  fs.ModeDir | 0o750,
		"var/lib/pve-cluster/config.db":        0o600,
		"var/lib/pve-cluster/config.db-wal":    0o600,
		"var/lib/pve-cluster/config.db-shm":    0o600,
		"var/lib/pve-cluster/.pmxcfs.lockfile": 0o600,
		"run/pve-cluster.pid":                  0o644,
	} {
		wantMode(t, filepath.Join(n.root, path), mode, 0)
	}
	wantMode(t, filepath.Join(n.root, "run/pve-cluster"), fs.ModeDir|0o750, www)
	wantMode(t, n.mount, fs.ModeDir|0o755, www)
	if pid := n.pid(); pid != n.cmd.Process.Pid {
		t.Errorf("the pid file says %d, it is %d", pid, n.cmd.Process.Pid)
	}
	n.stop()
	wantMode(t, n.mount, fs.ModeDir|0o750, 0) // the mount point itself
	wantMode(t, n.restartFlag(), 0o440, www)
	list, err := os.ReadDir(filepath.Dir(n.db))
	must(t, err)
	if len(list) != 3 { // the database, its history, and the lock file
		t.Errorf("it left %v", list)
	}
	n.start()
	if _, err := os.Stat(n.restartFlag()); !errors.Is(err, fs.ErrNotExist) {
		n.eventually("the restart flag is gone", func() bool {
			_, err := os.Stat(n.restartFlag())
			return errors.Is(err, fs.ErrNotExist)
		})
	}
	n.stop()
}

func TestSignalsStopTheDaemonInGoodOrder(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			n := newInstance(t)
			n.start()
			n.write("file", "content")
			n.signal(s)
			if code := n.wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if n.mounted() {
				t.Error("the mount is left")
			}
			if _, err := os.Stat(n.restartFlag()); err != nil {
				t.Errorf("no restart flag: %v", err)
			}
			if _, err := os.Stat(n.db + "-wal"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the write-ahead log is left: %v", err)
			}
			if got := treeOf(t, n.db)["file"]; got != "content" {
				t.Errorf("the file holds %q", got)
			}
		})
	}
}

func TestSignalsThatMeanNothingAreIgnored(t *testing.T) {
	n := newInstance(t)
	n.start()
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGXFSZ} {
		n.signal(s)
	}
	n.write("file", "content")
	n.wantContent("file", "content")
	n.stop()
}

// A service that somebody's umount ended for good would stay away: the status is one
// that has the service manager start it again.
func TestUnmountingFromOutsideStopsTheDaemonInGoodOrderAndAsAFailure(t *testing.T) {
	n := newRaced(t)
	n.start()
	n.write("file", "content")
	var err error
	n.eventually("the kernel lets go of the file", func() bool { // who forks has a copy of its descriptor for a moment
		err = syscall.Unmount(n.mount, 0)
		return err != syscall.EBUSY
	})
	must(t, err)
	if code := n.wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(n.restartFlag()); err != nil {
		t.Errorf("no restart flag: %v", err)
	}
	if got := treeOf(t, n.db)["file"]; got != "content" {
		t.Errorf("the file holds %q", got)
	}
}

// The kernel's list of mounts knows the mount by its real path only.
func TestAbortedMountBehindASymbolicLinkIsKnownAsSuchAndReplaced(t *testing.T) {
	n := newInstance(t)
	must(t, os.MkdirAll(n.mount, 0o750))
	must(t, os.Symlink("etc", filepath.Join(n.root, "by-link")))
	option := []string{"--mount-point", filepath.Join(n.root, "by-link/pve")}
	n.start(option...)
	n.write("file", "content")
	n.abort()
	if code := n.wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if log := n.logText(); !strings.Contains(log, "the connection was aborted") || strings.Contains(log, "somebody has unmounted") {
		t.Error("an aborted connection is taken for an unmount")
	}
	n.start(option...)
	n.wantContent("file", "content")
	list, err := mounts()
	must(t, err)
	if list = slices.DeleteFunc(list, func(m string) bool { return m != n.mount }); len(list) != 1 {
		t.Errorf("%d mounts on the mount point", len(list))
	}
	n.kill()
	cmd := n.command(append(n.args(option...), "umount")...)
	if out, err := cmd.Output(); err != nil || n.mounted() {
		t.Errorf("umount: %s, %v; still mounted: %v", out, err, n.mounted())
	}
}

func TestStopDoesNotWaitForWhoHoldsFilesOpen(t *testing.T) {
	n := newRaced(t)
	n.start()
	n.write("file", "content")
	n.mkdir("d")
	held, err := os.OpenFile(n.path("file"), os.O_RDWR, 0)
	must(t, err)
	defer held.Close()
	dir, err := os.Open(n.path("d"))
	must(t, err)
	defer dir.Close()
	_, err = held.WriteAt([]byte("C"), 0)
	must(t, err)
	n.stop()
	if n.mounted() {
		t.Error("the mount is left")
	}
	if _, err := held.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a write to a file of a daemon that has ended succeeds")
	}
	if got := treeOf(t, n.db)["file"]; got != "Content" {
		t.Errorf("the file holds %q", got)
	}
	n.start()
	n.wantContent("file", "Content")
	n.stop()
}

func TestSecondDaemonOnTheSameDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	n := newInstance(t)
	n.start()
	begin := time.Now()
	code, _, stderr := n.runToEnd(n.args("--foreground", "--mount-point", filepath.Join(n.root, "other"))...)
	took := time.Since(begin)
	if code != 1 || !strings.Contains(stderr, "another pmxcfs is running") || !strings.Contains(stderr, ".pmxcfs.lockfile") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if took < 9*time.Second {
		t.Errorf("it gave up after %v, want 10 s", took)
	}
	n.write("file", "content") // the first one doesn't mind
	if n.pid() != n.cmd.Process.Pid {
		t.Error("the second one wrote its pid")
	}
	if _, err := os.Stat(n.restartFlag()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second one left a restart flag: %v", err)
	}
	n.stop()
}

func TestNextDaemonWaitsForTheOneThatEnds(t *testing.T) {
	n := newInstance(t)
	n.start()
	first, firstDone := n.cmd, n.done
	n.done = nil
	n.launch()
	n.eventually("the second daemon is at the lock", func() bool {
		fds, err := filepath.Glob("/proc/" + strconv.Itoa(n.cmd.Process.Pid) + "/fd/*")
		must(t, err)
		return slices.ContainsFunc(fds, func(fd string) bool {
			to, _ := os.Readlink(fd)
			return filepath.Base(to) == ".pmxcfs.lockfile"
		})
	})
	must(t, first.Process.Signal(syscall.SIGTERM))
	<-firstDone
	n.waitUp()
	n.write("file", "content")
	n.stop()
}

func TestStopInTheMiddleOfAStartEndsInGoodOrder(t *testing.T) {
	n := newRaced(t)
	for i := range 15 {
		n.launch()
		time.Sleep(time.Duration(i*3) * time.Millisecond) // a moment like any other
		n.signal(syscall.SIGTERM)
		if code := n.wait(); code != 0 && code != -1 { // -1: before it could handle signals
			t.Errorf("exit code %d", code)
		}
		if n.mounted() {
			t.Error("the mount is left")
		}
	}
	n.start()
	n.stop()
}
