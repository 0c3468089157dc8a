package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
)

// patience is how long a test waits for what should be there soon: long enough
// for a busy machine.
const patience = testutil.Patience

// program is the program, without the race detector: with it a daemon or a command takes five
// times as long to come up, and most tests start many.
func program() string { return filepath.Join(os.Getenv(baseEnv), "pmxcfs") }

// instance is a node: a directory that stands for its root file system, and
// the daemon that may be running in it.
type instance struct {
	t       testing.TB
	program string
	root    string
	mount   string
	db      string

	env  []string
	cmd  *exec.Cmd
	log  string        // path of what the daemon wrote to stderr, all runs
	done chan struct{} // closed when the present run's process has ended
	late chan struct{} // the same of a killed run that the next start has to free
}

// newInstance makes a node without a daemon. When the test ends, whatever runs
// or is mounted there goes.
func newInstance(t testing.TB) *instance {
	t.Helper()
	needLab(t)
	root := t.TempDir()
	n := &instance{
		t:       t,
		program: program(),
		root:    root,
		mount:   filepath.Join(root, "etc/pve"),
		db:      filepath.Join(root, "var/lib/pve-cluster/config.db"),
		log:     filepath.Join(root, "stderr.log"),
		env:     append(os.Environ(), "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"),
	}
	if err := os.MkdirAll(filepath.Dir(n.db), 0o750); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.clean)
	return n
}

// newRaced is newInstance for tests in which much happens at once: the daemon has the race
// detector if the tests have it.
func newRaced(t testing.TB) *instance {
	t.Helper()
	n := newInstance(t)
	if raceDetector {
		n.program = filepath.Join(os.Getenv(baseEnv), "race", "pmxcfs")
	}
	return n
}

// clean ends everything, and judges what no test expects.
func (n *instance) clean() {
	if n.running() {
		n.signal(syscall.SIGKILL)
		select {
		case <-n.done:
		case <-time.After(patience):
			n.t.Error("the daemon survives SIGKILL: it waits for itself")
			n.abort()
			<-n.done
		}
	}
	unmountAll(n.t, n.root)
	log := n.logText()
	if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") || strings.Contains(log, "fatal error:") {
		n.t.Error("the daemon crashed or raced")
	}
	if n.t.Failed() {
		if len(log) > 6000 {
			log = log[:1000] + "\n[…]\n" + log[len(log)-5000:]
		}
		n.t.Logf("the daemon's log:\n%s", log)
	}
}

// abort ends the FUSE connections of mounts below the node's root, which frees
// whoever waits for an answer.
func (n *instance) abort() {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.t.Error(err)
	}
	for line := range strings.Lines(string(info)) { // proc_pid_mountinfo(5)
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], n.root) {
			_, minor, _ := strings.Cut(f[2], ":")
			_ = os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
		}
	}
}

// unmountAll takes away all mounts at or below a directory.
func unmountAll(t testing.TB, dir string) {
	for range 100 {
		list, err := mounts()
		if err != nil {
			t.Error(err)
			return
		}
		list = slices.DeleteFunc(list, func(m string) bool { return m != dir && !strings.HasPrefix(m, dir+"/") })
		if len(list) == 0 {
			return
		}
		if err := syscall.Unmount(list[len(list)-1], syscall.MNT_DETACH); err != nil {
			t.Error("unmounting", list[len(list)-1], err)
		}
	}
	t.Errorf("%s: mounts without end", dir)
}

// path returns where a path of the tree is.
func (n *instance) path(p string) string { return filepath.Join(n.mount, p) }

// args are those that every run of the daemon has.
func (n *instance) args(extra ...string) []string {
	return append([]string{"--root", n.root, "--local", "--node-name", "node1", "--node-address", "192.0.2.1"}, extra...)
}

// command returns a run of the program with exactly these arguments, its stderr
// going to the log.
func (n *instance) command(args ...string) *exec.Cmd {
	n.t.Helper()
	cmd := exec.Command(n.program, args...)
	cmd.Env = n.env
	f, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { f.Close() })
	cmd.Stderr = f
	return cmd
}

// launch starts the daemon in the foreground and doesn't wait for anything.
func (n *instance) launch(extra ...string) {
	n.t.Helper()
	n.launchArgs(n.args(append([]string{"--foreground"}, extra...)...)...)
}

func (n *instance) launchArgs(args ...string) {
	n.t.Helper()
	if n.running() {
		n.t.Fatal("the daemon is running already")
	}
	n.cmd = n.command(args...)
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() {
		_ = cmd.Wait() // the exit code is looked at by whoever waits
		cmd.Stderr.(*os.File).Close()
		close(done)
	}()
}

// start starts the daemon in the foreground and returns when it is up.
func (n *instance) start(extra ...string) {
	n.t.Helper()
	n.launch(extra...)
	n.waitUp()
	if n.late != nil {
		select {
		case <-n.late:
			n.late = nil
		case <-time.After(patience):
			n.t.Fatal("a killed daemon is still there beside the next one")
		}
	}
}

// waitUp returns when the mount and the pid file are this run's.
func (n *instance) waitUp() {
	n.t.Helper()
	pid := strconv.Itoa(n.cmd.Process.Pid) + "\n"
	testutil.EventuallyWithin(n.t, patience, func() error {
		select {
		case <-n.done:
			n.t.Fatalf("the daemon ended at its start, exit code %d", n.cmd.ProcessState.ExitCode())
		default:
		}
		if b, err := os.ReadFile(filepath.Join(n.root, "run/pve-cluster.pid")); err != nil || string(b) != pid {
			return fmt.Errorf("the daemon does not get ready: pid file %q, %v", b, err)
		}
		_, err := os.ReadFile(n.path(".version"))
		return err
	})
}

func (n *instance) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// wait waits for the daemon's end and returns its exit code; -1 for a signal.
func (n *instance) wait() int {
	n.t.Helper()
	select {
	case <-n.done:
		return n.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		n.t.Fatal("the daemon does not end")
		return 0
	}
}

func (n *instance) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Fatal(err)
	}
}

// stop ends the daemon in good order.
func (n *instance) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if code := n.wait(); code != 0 {
		n.t.Fatalf("the daemon ends with exit code %d after SIGTERM", code)
	}
}

// kill ends it without.
func (n *instance) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	select {
	case <-n.done:
	case <-time.After(2 * time.Second):
		n.t.Log("the killed daemon waits for itself: the next start has to end it")
		n.late, n.done = n.done, nil
	}
}

// logText returns what the daemon has written to stderr so far.
func (n *instance) logText() string {
	b, err := os.ReadFile(n.log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Error(err)
	}
	return string(b)
}

// wantLog waits until the log holds a text.
func (n *instance) wantLog(text string) {
	n.t.Helper()
	n.eventually("the log says "+strconv.Quote(text), func() bool { return strings.Contains(n.logText(), text) })
}

// eventually waits for a condition.
func (n *instance) eventually(what string, holds func() bool) {
	n.t.Helper()
	testutil.WaitFor(n.t, what, holds)
}

// runToEnd runs the program with exactly these arguments and returns its exit
// code and output. It must end by itself.
func (n *instance) runToEnd(args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	cmd := exec.Command(n.program, args...)
	cmd.Env = n.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	timer := time.AfterFunc(patience+10*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *instance) write(p, content string) {
	n.t.Helper()
	must(n.t, os.WriteFile(n.path(p), []byte(content), 0o640))
}

func (n *instance) mkdir(p string) {
	n.t.Helper()
	must(n.t, os.MkdirAll(n.path(p), 0o755))
}

func (n *instance) read(p string) string {
	n.t.Helper()
	b, err := os.ReadFile(n.path(p))
	must(n.t, err)
	return string(b)
}

func (n *instance) wantContent(p, content string) {
	n.t.Helper()
	if got := n.read(p); got != content {
		n.t.Fatalf("%s holds %s, want %s", p, brief(got), brief(content))
	}
}

// brief shows a content in a few words.
func brief(s string) string {
	if len(s) > 60 {
		return strconv.Quote(s[:60]) + "… (" + strconv.Itoa(len(s)) + " bytes)"
	}
	return strconv.Quote(s)
}
