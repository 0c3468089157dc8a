package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/logging"
	"pmxcfs/fuse"
	"pmxcfs/internal/event"
)

// A daemon that is killed while it tells the kernel to forget something may be
// unable to end: the kernel waits for a lock whose holder waits for an answer of
// the daemon. It would stay a member of its groups then, and the whole cluster
// would wait for it. So a second process, the guard, looks on: when the daemon has
// been killed and does not end, it ends the mount, which frees everybody: that
// daemon's mount, of which it has been told, never what the next one has put there.
//
// It also uses the mount for the daemon, which wants to know whether that
// answers (mountprobe.go).

// mountEndedText is what the log says then.
const mountEndedText = "ended the file system of a killed daemon that could not end"

// GuardEnv makes this program a guard. It holds the daemon's process id, the node's
// name and the mount point.
const GuardEnv = "PMXCFS_GUARD"

const (
	guardSignal  = syscall.SIGUSR1        // what the guard gets when the daemon is killed
	guardGrace   = 300 * time.Millisecond // a killed daemon's to end by itself
	guardCheck   = 5 * time.Second        // between looks without a signal
	guardRestart = time.Second            // between two guards, should one be killed
)

// guard is a running guard, as the daemon sees it.
type guard struct {
	mountPoint string
	node       string
	log        *slog.Logger
	quit       chan struct{}
	done       chan struct{}

	mu         sync.Mutex // guards what follows
	line       *probeLine // to the present guard; nil: there is none
	connection uint32     // of the mount; 0: it has not been made
}

// startGuard starts a guard of this process's mount, which may be made later, and
// another one should that end. The first Ping returns when the guard looks on: before
// that, what tells it of the daemon's end would end the guard itself.
func startGuard(mountPoint, node string, log *slog.Logger) (*guard, error) {
	g := &guard{mountPoint: mountPoint, node: node, log: log, quit: make(chan struct{}), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(g.done)
		// A guard is told when the thread that started it ends: this one, which
		// does nothing else.
		runtime.LockOSThread()
		cmd, ended, err := g.launch()
		started <- err
		for err == nil {
			select {
			case <-g.quit:
				_ = cmd.Process.Kill()
				<-ended
				return
			case <-ended:
				g.log.Warn("the guard of the mount has ended; another one is started", "state", cmd.ProcessState.String())
			}
			for wait := guardRestart; ; wait *= 2 {
				select {
				case <-g.quit:
					return
				case <-time.After(min(wait, time.Minute)):
				}
				if cmd, ended, err = g.launch(); err == nil {
					break
				}
			}
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return g, nil
}

// launch starts a guard process. What it returns is closed when that has ended.
func (g *guard) launch() (*exec.Cmd, <-chan struct{}, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"pmxcfs: guard of " + g.mountPoint}
	cmd.Env = append(os.Environ(), GuardEnv+"="+strconv.Itoa(os.Getpid())+" "+g.node+" "+g.mountPoint)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: guardSignal, Setsid: true}
	line, theirs, err := newProbeLine()
	if err != nil {
		return nil, nil, fmt.Errorf("starting a guard of the mount: %w", err)
	}
	cmd.Stdin, cmd.Stdout = theirs, theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		line.close()
		return nil, nil, fmt.Errorf("starting a guard of the mount: %w", err)
	}
	g.mu.Lock()
	g.line = line
	if g.connection != 0 {
		line.watch(g.connection)
	}
	g.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the state says it all
		g.mu.Lock()
		g.line = nil
		g.mu.Unlock()
		line.close()
	}()
	return cmd, ended, nil
}

// watch tells the guard which connection is the daemon's: before anything is served
// through it, and so before anything can wait for the daemon in it.
func (g *guard) watch(connection uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connection = connection
	if g.line != nil {
		g.line.watch(connection)
	}
}

// Ping uses the mount, through the guard. It returns nil when the mount has
// answered, or when there is no guard to ask.
func (g *guard) Ping(ctx context.Context) error {
	g.mu.Lock()
	line := g.line
	g.mu.Unlock()
	if line == nil {
		return nil
	}
	return line.ask(ctx)
}

// stop ends the guard: the mount is gone.
func (g *guard) stop() {
	close(g.quit)
	<-g.done
}

// GuardMain is a guard's main.
func GuardMain(task string, in io.Reader, out, stderr io.Writer) int {
	nameProcess(guardName)
	number, rest, _ := strings.Cut(task, " ")
	node, mountPoint, _ := strings.Cut(rest, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		fmt.Fprintf(stderr, "pmxcfs: %s: %q is no process id\n", GuardEnv, number)
		return exit.Failure
	}
	killed := make(chan os.Signal, 1)
	signal.Notify(killed, guardSignal)
	// Signals for the whole control group are the daemon's to follow.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGABRT, syscall.SIGPIPE)
	var connection atomic.Uint32
	go answerProbes(mountPoint, &connection, in, out) // which the mount's end ends at the latest
	for os.Getppid() == pid {
		select {
		case <-killed:
		case <-time.After(guardCheck):
		}
		time.Sleep(guardGrace)
		mount := connection.Load()
		if mount == 0 || os.Getppid() != pid { // a daemon that has ended leaves its children to others
			continue
		}
		ended, err := fuse.EndDying(mount, pid)
		if !ended && err == nil {
			continue
		}
		if log := logging.Journal(node); log != nil {
			attrs := []any{"pid", pid, "path", mountPoint, event.MountEnded.Attr()}
			if err != nil {
				attrs = append(attrs, "error", err)
			}
			log.Warn(mountEndedText, attrs...)
		}
		return exit.OK
	}
	return exit.OK
}
