package cluster

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
)

// manager is a service manager that hears what a node's daemon tells.
type manager struct {
	mu     sync.Mutex
	fed    int
	status string
}

// managed has a node's daemons started by a manager with a watchdog.
func managed(n *node, watchdog time.Duration) *manager {
	n.T.Helper()
	const socket = "/run/notify"
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.Host.Path(socket), Net: "unixgram"})
	n.Must(err)
	m, done := &manager{}, make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 8192); ; {
			k, err := conn.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			for line := range strings.SplitSeq(string(b[:k]), "\n") {
				if line == "WATCHDOG=1" {
					m.fed++
				} else if text, ok := strings.CutPrefix(line, "STATUS="); ok {
					m.status = text
				}
			}
			m.mu.Unlock()
		}
	}()
	n.T.Cleanup(func() { conn.Close(); <-done })
	n.Env = append(n.Env, "NOTIFY_SOCKET="+socket, fmt.Sprint("WATCHDOG_USEC=", watchdog.Microseconds()))
	return m
}

// Receive returns how often the watchdog was fed, and the last status.
func (m *manager) heard() (fed int, status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fed, m.status
}

// TestCorosyncsTroubleIsNoReasonToRestart looks at watchdog and status line while
// corosync works, is frozen, and is gone.
func TestCorosyncsTroubleIsNoReasonToRestart(t *testing.T) {
	t.Parallel()
	c := labtest.Hosts(t, lab.New(t, 2))
	const watchdog = 4 * time.Second
	n := c.Node(1)
	m := managed(n, watchdog)
	c.Start()
	wantStatus := func(texts ...string) {
		t.Helper()
		n.Eventually(fmt.Sprintf("the status has %q", texts), func() error {
			_, status := m.heard()
			for _, text := range texts {
				if !strings.Contains(status, text) {
					return fmt.Errorf("%q", status)
				}
			}
			return nil
		})
	}
	wantFed := func(when string) {
		t.Helper()
		before, _ := m.heard()
		n.Eventually("the watchdog is fed for two of its intervals "+when, func() error {
			if fed, _ := m.heard(); fed < before+8 {
				return fmt.Errorf("%d times", fed-before)
			}
			return nil
		})
	}
	wantStatus("; quorate; members: node1, node2; synced; version ")
	wantFed("as usual")

	corosync := n.Host.Corosync()
	n.Must(corosync.Signal(syscall.SIGSTOP))
	waiting := make(chan error, 1)
	go func() { waiting <- os.Mkdir(n.Path("never"), 0o755) }()
	wantFed("while corosync is frozen and a change waits")
	if err := <-waiting; err == nil {
		t.Error("the change counts as made")
	}
	wantFed("while corosync is frozen")
	n.Must(corosync.Signal(syscall.SIGCONT))
	c.WantTogether(c.Nodes...)

	n.Must(n.Host.StopCorosync())
	wantStatus("; there is no connection to corosync")
	wantFed("without corosync")
	n.Must(n.Host.StartCorosync())
	c.WantTogether(c.Nodes...)
	wantStatus("; quorate; members: node1, node2; synced; version ")
	if log := n.Log(); strings.Contains(log, "does not answer") {
		t.Error("something counted as stuck")
	}
	n.Stop()
}
