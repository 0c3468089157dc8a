package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
)

// manager is a service manager: it hears what a node's daemon tells.
type manager struct {
	mu   sync.Mutex
	said []string // assignments, in their order
}

// managed has a node's daemons started by a manager, which wants to hear of them
// within the time given; 0: it has no watchdog.
func managed(n *instance, watchdog time.Duration) *manager {
	n.t.Helper()
	m := &manager{}
	socket := filepath.Join(n.root, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(n.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 8192); ; {
			k, err := conn.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.said = append(m.said, strings.Split(string(b[:k]), "\n")...)
			m.mu.Unlock()
		}
	}()
	n.t.Cleanup(func() { conn.Close(); <-done })
	n.env = append(n.env, "NOTIFY_SOCKET="+socket)
	if watchdog > 0 {
		n.env = append(n.env, fmt.Sprint("WATCHDOG_USEC=", watchdog.Microseconds()))
	}
	return m
}

// Receive returns what was said so far.
func (m *manager) heard() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.said)
}

// count returns how many assignments begin so.
func (m *manager) count(prefix string) int {
	k := 0
	for _, s := range m.heard() {
		if strings.HasPrefix(s, prefix) {
			k++
		}
	}
	return k
}

// status returns the last status.
func (m *manager) status() string {
	said := m.heard()
	for _, s := range slices.Backward(said) {
		if text, ok := strings.CutPrefix(s, "STATUS="); ok {
			return text
		}
	}
	return ""
}

func TestManagerHearsHowTheDaemonIs(t *testing.T) {
	n := newRaced(t)
	m := managed(n, 0)
	n.start()
	n.eventually("it is ready", func() bool { return m.count("READY=1") == 1 })
	said := m.heard()
	ready := slices.Index(said, "READY=1")
	if i := slices.Index(said, "STATUS=loading the database"); i < 0 || i > ready {
		t.Errorf("before READY it said %q", said[:ready])
	}
	if m.count("EXTEND_TIMEOUT_USEC=") == 0 {
		t.Error("it did not ask for time to load")
	}
	n.eventually("the status tells mode and version", func() bool { return strings.HasPrefix(m.status(), "local mode; version ") })
	before := m.status()
	n.write("file", "content")
	n.eventually("the status changes with the tree", func() bool { return m.status() != before })
	if m.count("WATCHDOG=") > 0 {
		t.Error("it feeds a watchdog that is none")
	}
	n.stop()
	n.eventually("it is stopping", func() bool { return m.count("STOPPING=1") == 1 })
	if m.status() != "stopping" {
		t.Errorf("in the end the status is %q", m.status())
	}
}

func TestManagerHearsWhyTheDaemonCannotStart(t *testing.T) {
	n := newInstance(t)
	m := managed(n, 0)
	must(t, os.WriteFile(n.db, []byte(strings.Repeat("not a database\n", 1000)), 0o600))
	if code, _, _ := n.runToEnd(n.args("--foreground")...); code != 1 {
		t.Errorf("exit code %d", code)
	}
	n.eventually("the status says why", func() bool { return strings.Contains(m.status(), "config.db") })
	if m.count("READY") > 0 {
		t.Error("it said that it was ready")
	}
}

func TestStatusIsToldOnceASecondAtMost(t *testing.T) {
	n := newRaced(t)
	m := managed(n, 0)
	n.start()
	begin := time.Now()
	for i := 0; time.Since(begin) < 3*time.Second; i++ {
		n.write("file", strconv.Itoa(i))
	}
	k, took := m.count("STATUS="), time.Since(begin)
	if k > 5+int(took.Seconds()) { // four of them at the start
		t.Errorf("%d status messages in %v", k, took)
	}
	n.stop()
}

func TestWatchdogIsFed(t *testing.T) {
	t.Parallel()
	n := newInstance(t)
	m := managed(n, 2*time.Second)
	n.start()
	n.eventually("it is fed", func() bool { return m.count("WATCHDOG=1") >= 4 })
	n.stop()
}

func TestWatchdogIsFedWhileTheDiskHangs(t *testing.T) {
	n, f := onFaultFS(t)
	m := managed(n, 2*time.Second)
	n.startOn(f)
	resume := make(chan struct{})
	f.fail(func(call, name string) syscall.Errno {
		if call == "write" {
			<-resume
		}
		return 0
	})
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(n.path("d"), 0o755) }()
	n.eventually("the status says what it waits for", func() bool { return strings.HasSuffix(m.status(), "; waiting for the database's disk") })
	fed := m.count("WATCHDOG=1")
	n.eventually("the watchdog is fed", func() bool { return m.count("WATCHDOG=1") >= fed+6 })
	n.wantLog("the store is held up by the database's disk")
	close(resume)
	must(t, <-made)
	n.wantLog("the store is not held up any more")
	f.fail(nil)
	n.stop()
}

// guardOf returns the process id of the daemon's guard.
func (n *instance) guardOf() int {
	n.t.Helper()
	return guardOf(n, n.cmd.Process.Pid)
}

// guardOf returns the process id of the guard of that daemon.
func guardOf(n *instance, daemon int) int {
	n.t.Helper()
	var pid int
	n.eventually("there is a guard", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", daemon))
		if err == nil && len(b) == 0 { // its thread's, which need not be the first
			lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
			for _, list := range lists {
				if b, err = os.ReadFile(list); len(b) > 0 {
					break
				}
			}
		}
		if err != nil || len(b) == 0 {
			return false
		}
		pid, err = strconv.Atoi(strings.Fields(string(b))[0])
		return err == nil
	})
	return pid
}

// TestWatchdogIsNotFedWhileTheMountGivesNoAnswer stops who uses the mount for the
// daemon: that looks like a mount that does not answer.
func TestWatchdogIsNotFedWhileTheMountGivesNoAnswer(t *testing.T) {
	t.Parallel()
	n := newInstance(t)
	m := managed(n, time.Second)
	n.start()
	n.eventually("it is fed", func() bool { return m.count("WATCHDOG=1") > 0 })
	guard := n.guardOf()
	must(t, syscall.Kill(guard, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(guard, syscall.SIGCONT) })
	n.wantLog("the mount does not answer")
	fed := m.count("WATCHDOG=1")
	n.eventually("the status says so", func() bool { return strings.HasSuffix(m.status(), "the mount does not answer") })
	time.Sleep(2 * time.Second) // as long as a manager would wait, twice
	if now := m.count("WATCHDOG=1"); now != fed {
		t.Errorf("it was fed %d times meanwhile", now-fed)
	}
	must(t, syscall.Kill(guard, syscall.SIGCONT))
	n.wantLog("the mount answers again")
	n.eventually("it is fed again", func() bool { return m.count("WATCHDOG=1") > fed })
	n.stop()
}

// TestDaemonAndGuardAreSmall holds both to the memory that an idle node may cost, once they have
// given back what the start has used.
func TestDaemonAndGuardAreSmall(t *testing.T) {
	n := newInstance(t)
	n.start()
	guard := n.guardOf()
	resident := func(pid int) (kB int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(t, err)
		_, rest, _ := strings.Cut(string(b), "\nVmRSS:")
		_, err = fmt.Sscan(rest, &kB)
		must(t, err)
		return kB
	}
	testutil.EventuallyWithin(t, patience, func() error {
		daemon, beside := resident(n.cmd.Process.Pid), resident(guard)
		if daemon+beside > 40<<10 || beside > 6<<10 {
			return fmt.Errorf("the daemon takes %d kB, its guard %d kB: want 40 MiB together at most, and 6 for the guard", daemon, beside)
		}
		t.Logf("the daemon takes %d kB, its guard %d kB", daemon, beside)
		return nil
	})
	n.stop()
}

func TestKilledGuardIsReplaced(t *testing.T) {
	n := newRaced(t)
	m := managed(n, 2*time.Second)
	n.start()
	first := n.guardOf()
	must(t, syscall.Kill(first, syscall.SIGKILL))
	n.wantLog("another one is started")
	n.eventually("there is another", func() bool {
		next := n.guardOf()
		return next != first && alive(next)
	})
	fed := m.count("WATCHDOG=1")
	n.eventually("the watchdog is fed", func() bool { return m.count("WATCHDOG=1") >= fed+4 })
	n.stop()
}

func TestAbortedMountIsAFailureAndLeavesNothing(t *testing.T) {
	n := newRaced(t)
	n.start()
	n.write("file", "content")
	n.abort()
	if code := n.wait(); code != 1 {
		t.Errorf("exit code %d, want 1: nobody asked it to stop", code)
	}
	if n.mounted() {
		t.Error("the dead mount is left")
	}
	n.start()
	n.wantContent("file", "content")
	n.stop()
}

// TestProcessesHaveNamesOfTheirOwn starts the daemon in each way that there is:
// people stop it by its name, which must not be the guard's as well.
func TestProcessesHaveNamesOfTheirOwn(t *testing.T) {
	for _, way := range []string{"foreground", "background", "another file name"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			n := newInstance(t)
			path, args := program(), n.args()
			switch way {
			case "foreground":
				args = n.args("-f")
			case "another file name":
				path = filepath.Join(t.TempDir(), "cfs")
				must(t, os.Symlink(program(), path))
			}
			cmd := exec.Command(path, args...)
			cmd.Env = n.env
			must(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			n.eventually("the daemon is up", func() bool { return n.mounted() && len(n.read(".version")) > 0 })
			n.eventually("the pid file is written", func() bool { _, err := os.Stat(filepath.Join(n.root, "run/pve-cluster.pid")); return err == nil })
			pid := n.pid()
			t.Cleanup(func() {
				if alive(pid) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			})
			guard := guardOf(n, pid)
			if got := comm(t, pid); got != "pmxcfs" {
				t.Errorf("the daemon is called %q", got)
			}
			n.eventually("the guard has its name", func() bool { return comm(t, guard) == "pmxcfs-guard" })
			// What killall pmxcfs does.
			must(t, syscall.Kill(pid, syscall.SIGTERM))
			n.eventually("the daemon ends", func() bool { return !alive(pid) })
			must(t, <-ended)
			if n.mounted() {
				t.Error("the mount is left")
			}
		})
	}
}

// comm is what the kernel calls a process.
func comm(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	must(t, err)
	return strings.TrimSpace(string(b))
}

// TestBackgroundDaemonIsTheManagersMainProcess starts a daemon in the background
// from a process that the manager listens to.
func TestBackgroundDaemonIsTheManagersMainProcess(t *testing.T) {
	n := newInstance(t)
	m := managed(n, time.Second)
	// The shell becomes the process that the watchdog is for.
	cmd := exec.Command("/bin/sh", "-c", `WATCHDOG_PID=$$ exec "$@"`, "sh", program())
	cmd.Args = append(cmd.Args, n.args()...)
	cmd.Env = n.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pid := n.pid()
	t.Cleanup(func() {
		if alive(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if said := m.heard(); !slices.Contains(said, "MAINPID="+strconv.Itoa(pid)) {
		t.Errorf("the manager of process %d heard %q", pid, said)
	}
	n.eventually("the watchdog is fed", func() bool { return m.count("WATCHDOG=1") > 2 })
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	n.eventually("the daemon ends", func() bool { return !alive(pid) })
	if _, err := os.Stat(filepath.Join(n.root, "run/pve-cluster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
