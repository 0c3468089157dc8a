package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
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
// It waits in C (guard.c).
//
// It also uses the mount for the daemon, which wants to know whether that
// answers (mountprobe.go).

// mountEndedText is what the log says then.
const mountEndedText = "ended the file system of a killed daemon that could not end"

// GuardEnv makes this program a guard, before Go begins. What it holds guard.c says.
// GuardEndsEnv, beside it, makes it GuardMain, and holds the connection to end.
const (
	GuardEnv     = "PMXCFS_GUARD"
	GuardEndsEnv = "PMXCFS_GUARD_ENDS"
)

const (
	guardSignal  = syscall.SIGUSR1        // what the guard gets when the daemon is killed
	guardGrace   = 300 * time.Millisecond // a killed daemon's to end by itself
	guardCheck   = time.Minute            // between looks without a signal, which never gets lost
	guardStart   = 5 * time.Second        // for the first to look on
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
	line       *probeLine // to the present guard; nil means there is none
	connection uint32     // of the mount; 0 means it has not been made
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
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d %s %s", GuardEnv, os.Getpid(),
		guardCheck/time.Second, guardGrace/time.Millisecond, g.node, g.mountPoint))
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

// GuardMain is what the guard's C part (guard.c) starts when a daemon seems unable to end: it
// judges, ends the connection, and says so. Its exit status tells whether it did.
func GuardMain(task, connection string, stderr io.Writer) int {
	nameProcess(guardName)
	var node, mountPoint string
	var pid int
	words := strings.SplitN(task, " ", 5)
	number, err := strconv.ParseUint(connection, 10, 32)
	if err == nil && len(words) == 5 {
		pid, err = strconv.Atoi(words[0])
		node, mountPoint = words[3], words[4]
	}
	if err != nil || pid == 0 {
		fmt.Fprintf(stderr, "pmxcfs: %s=%q, %s=%q: no task\n", GuardEnv, task, GuardEndsEnv, connection)
		return exit.Failure
	}
	ended, err := fuse.EndDying(uint32(number), pid)
	if !ended && err == nil {
		return exit.Failure
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
