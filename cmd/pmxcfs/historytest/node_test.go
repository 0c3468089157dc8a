package historytest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/memdb/sqlite"
)

const (
	// patience is how long to wait for what should be there soon: long enough
	// for a busy machine.
	patience = 40 * time.Second
	// stopTime is how long a daemon may take to end.
	stopTime = 10 * time.Second
	// heldTime is how long a killed daemon has to end by itself.
	heldTime = 2 * time.Second
)

// node is a host with its daemon.
type node struct {
	t     testing.TB
	host  *lab.Host
	proc  *lab.Process // nil: never started
	acked atomic.Int64 // changes that the clients know to be done
}

func (n *node) String() string { return n.host.Name() }

// path is where a path of the tree is.
func (n *node) path(p string) string { return n.host.Path("/etc/pve/" + p) }

// eventually waits until cond has nothing to object to.
func (n *node) eventually(what string, cond func() error) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: it never comes true that %s: %v", n, what, err)
		}
	}
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", n, err)
	}
}

// start starts the daemon and returns when it is up.
func (n *node) start() {
	n.t.Helper()
	p, err := n.host.Start(lab.Spec{
		Args: []string{os.Getenv(programEnv), "-f"},
		Env:  []string{"GORACE=halt_on_error=1 exitcode=66"},
	})
	n.must(err)
	old := n.proc
	n.proc = p
	want := fmt.Sprintf("%d\n", p.HostPid())
	n.eventually("the daemon is up", func() error {
		if !p.Running() {
			n.t.Fatalf("%s: the daemon ended at its start: %v", n, p.Wait())
		}
		if b, err := os.ReadFile(n.host.Path("/run/pve-cluster.pid")); err != nil || string(b) != want {
			return fmt.Errorf("pid file: %q, %v", b, err)
		}
		_, err := os.ReadFile(n.path(".version"))
		return err
	})
	if old == nil {
		return
	}
	n.eventually("the daemon before it has ended", func() error {
		if old.Running() {
			return errors.New("it is still there")
		}
		return nil
	})
}

// stop ends the daemon in good order.
func (n *node) stop() {
	n.t.Helper()
	n.must(n.proc.Stop(syscall.SIGTERM, stopTime))
	n.must(n.proc.Wait())
}

// kill ends it without.
func (n *node) kill() {
	n.t.Helper()
	n.must(n.proc.Signal(syscall.SIGKILL))
	n.ended()
}

// ended waits until a daemon that was killed has ended. The kernel may hold it for
// a client's request that it will not answer any more; the next start frees it.
func (n *node) ended() {
	n.t.Helper()
	select {
	case <-n.proc.Done():
		return
	case <-time.After(heldTime):
	}
	n.t.Logf("%s: the daemon that was killed is held by the kernel:", n)
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", n.proc.Pid()))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			n.t.Logf("%s:\n%s", f, b)
		}
	}
	// Not left to the next start: a test that failed here would have none.
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.host.Pid()))
	if err != nil {
		n.t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != "/etc/pve" {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		if err := os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0); err != nil {
			n.t.Error(err)
		}
	}
	<-n.proc.Done()
}

// clean ends the daemon, and judges what no test expects.
func (n *node) clean() {
	if n.proc != nil && n.proc.Running() {
		_ = n.proc.Signal(syscall.SIGKILL)
		n.ended()
	}
	b, err := os.ReadFile(filepath.Join(n.host.Dir(), "pmxcfs.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Error(err)
	}
	log := string(b)
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if i := strings.Index(log, bad); i >= 0 {
			n.t.Errorf("%s: the daemon's log:\n%s", n, log[max(0, i-100):min(len(log), i+4000)])
		}
	}
	if n.t.Failed() {
		n.t.Logf("%s: the daemon's log:\n%s", n, log[max(0, len(log)-20000):])
	}
}

// synced waits until the node takes changes, which it does as a synchronised
// member of a quorate cluster only.
func (n *node) synced() {
	n.t.Helper()
	n.eventually("it takes changes", func() error {
		name := n.path("probes/" + n.String())
		err := os.Mkdir(name, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Remove(name)
		}
		return err
	})
}

// tree lists what the node shows, contents included.
func (n *node) tree() (list []string) {
	n.t.Helper()
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := os.ReadDir(n.path(dir))
		n.must(err)
		for _, e := range entries {
			p := filepath.Join(dir, e.Name())
			switch {
			case e.IsDir():
				list = append(list, p+"/")
				walk(p)
			case e.Type().IsRegular() && !strings.HasPrefix(p, "."):
				b, err := os.ReadFile(n.path(p))
				n.must(err)
				list = append(list, fmt.Sprintf("%s: %q", p, b))
			}
		}
	}
	walk("")
	return list
}

// rows describes the rows of the node's database.
func (n *node) rows() (rows []string) {
	n.t.Helper()
	contents, err := sqlite.Read(filepath.Join(n.host.Dir(), "pve-cluster", "config.db"))
	n.must(err)
	if len(contents.Problems) > 0 {
		n.t.Errorf("%s: the database has problems: %v", n, contents.Problems)
	}
	for _, e := range contents.Entries {
		rows = append(rows, fmt.Sprintf("%d parent %d version %d writer %d mtime %d %v %q %d bytes digest %x",
			e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, e.Size(), e.Digest()))
	}
	return rows
}
