package labtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

const (
	// StopTime is how long a daemon may take to end, on a busy machine.
	StopTime = testutil.Patience
	// killTime is how long a killed daemon may take to end before it counts as
	// stuck.
	killTime = 2 * time.Second
)

// Node is a host with its daemon.
type Node struct {
	T    testing.TB
	Host *lab.Host
	// Flags are given to the daemon at every start, Env added to its environment.
	Flags, Env []string

	asks *requester   // nil means there is none yet
	proc *lab.Process // nil means none
	// dying are daemons that were killed and had not ended.
	dying []*lab.Process
}

// String is the node's name.
func (n *Node) String() string { return n.Host.Name() }

// Process is the daemon started last; nil means there is none, or it was killed.
func (n *Node) Process() *lab.Process { return n.proc }

// Running tells whether the daemon runs.
func (n *Node) Running() bool { return n.proc != nil && n.proc.Running() }

// Launch starts the daemon with more flags and doesn't wait for anything.
func (n *Node) Launch(flags ...string) {
	n.T.Helper()
	if n.Running() {
		n.T.Fatalf("%s: the daemon is running already", n)
	}
	args := append([]string{Program(), "-f"}, n.Flags...)
	p, err := n.Host.Start(lab.Spec{
		Args: append(args, flags...),
		Env:  append([]string{"GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"}, n.Env...),
	})
	n.Must(err)
	n.proc = p
}

// Start starts the daemon with more flags and returns when it is up, and those
// before it have ended.
func (n *Node) Start(flags ...string) {
	n.T.Helper()
	n.Launch(flags...)
	want := fmt.Sprintf("%d\n", n.proc.HostPid())
	n.Eventually("the daemon is up", func() error {
		if !n.Running() {
			n.T.Fatalf("%s: the daemon ended at its start: %v", n, n.proc.Wait())
		}
		if b, err := os.ReadFile(n.Host.Path("/run/pve-cluster.pid")); err != nil || string(b) != want {
			return fmt.Errorf("pid file: %q, %v", b, err)
		}
		_, err := os.ReadFile(n.Path(".version"))
		return err
	})
	n.Eventually("the daemon before it has ended", func() error {
		for _, p := range n.dying {
			if p.Running() {
				return errors.New("it is still there")
			}
		}
		n.dying = nil
		return nil
	})
}

// Stop ends the daemon in good order.
func (n *Node) Stop() {
	n.T.Helper()
	if err := n.proc.Stop(syscall.SIGTERM, StopTime); err != nil {
		n.T.Fatalf("%s: %v", n, err)
	}
	if err := n.proc.Wait(); err != nil {
		n.T.Fatalf("%s: the daemon ended with %v", n, err)
	}
	if mounts := n.Mounts(); len(mounts) > 0 {
		n.T.Errorf("%s: left mounted: %q", n, mounts)
	}
}

// Kill ends it without. The kernel may hold a killed daemon for a client's request
// that it will not answer any more; the daemon's guard or else the next start is to
// end that.
func (n *Node) Kill() {
	n.T.Helper()
	n.Must(n.proc.Signal(syscall.SIGKILL))
	timer := time.NewTimer(killTime)
	defer timer.Stop()
	select {
	case <-n.proc.Done():
	case <-timer.C:
		n.T.Logf("%s: the killed daemon can't end:", n)
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", n.proc.Pid()))
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil {
				n.T.Logf("%s:\n%s", f, b)
			}
		}
		n.dying = append(n.dying, n.proc)
	}
	n.proc = nil
}

// Free makes sure that no killed daemon is left, and nobody who waits for one.
func (n *Node) Free() {
	n.T.Helper()
	for _, p := range n.dying {
		if !p.Running() {
			continue
		}
		for _, dev := range n.devices() {
			_ = os.WriteFile("/sys/fs/fuse/connections/"+dev+"/abort", []byte("1"), 0)
		}
		select {
		case <-p.Done():
		case <-time.After(testutil.Patience):
			n.T.Errorf("%s: a killed daemon does not end", n)
		}
	}
	n.dying = nil
}

// clean ends the daemon, and judges what no test expects.
func (n *Node) clean() {
	if n.asks != nil {
		if err := n.asks.end(); err != nil {
			n.T.Errorf("%s: requests: %v", n, err)
		}
		n.asks = nil
	}
	if n.Running() {
		n.Kill()
	}
	n.Free()
	log := n.Log()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if i := strings.Index(log, bad); i >= 0 {
			n.T.Errorf("%s: the daemon's log:\n%s", n, log[max(0, i-100):min(len(log), i+4000)])
		}
	}
	if n.T.Failed() {
		n.T.Logf("%s: the daemon's log:\n%s", n, log[max(0, len(log)-20000):])
	}
}

// Log is all that the host's daemons have logged.
func (n *Node) Log() string {
	n.T.Helper()
	b, err := os.ReadFile(filepath.Join(n.Host.Dir(), filepath.Base(Program())+".log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.T.Error(err)
	}
	return string(b)
}

// devices lists the minor device numbers of the mounts: their FUSE connections.
func (n *Node) devices() (list []string) {
	for _, line := range n.Mounts() {
		if _, minor, ok := strings.Cut(strings.Fields(line)[2], ":"); ok {
			list = append(list, minor)
		}
	}
	return list
}

// Mounts lists what is mounted on the host's /etc/pve, as lines of proc(5)'s
// mountinfo.
func (n *Node) Mounts() (list []string) {
	n.T.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.Host.Pid()))
	n.Must(err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/etc/pve" {
			list = append(list, line)
		}
	}
	return list
}

// InRequest objects unless the kernel waits for an answer of the daemon's. Where
// the kernel doesn't tell, it has no objection.
func (n *Node) InRequest() error {
	devices := n.devices()
	if len(devices) != 1 {
		return fmt.Errorf("mounts: %q", devices)
	}
	b, err := os.ReadFile("/sys/fs/fuse/connections/" + devices[0] + "/waiting")
	if err == nil && string(b) == "0\n" {
		err = errors.New("nothing waits")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Eventually waits until cond has nothing to object to.
func (n *Node) Eventually(what string, cond func() error) {
	n.T.Helper()
	testutil.Eventually(n.T, n.String()+": "+what, cond)
}

// Must ends the test if there is an error.
func (n *Node) Must(err error) {
	n.T.Helper()
	if err != nil {
		n.T.Fatalf("%s: %v", n, err)
	}
}
