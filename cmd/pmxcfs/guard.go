package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/fuse"
)

// A daemon that is killed while it tells the kernel to forget something may be
// unable to end: the kernel waits for a lock whose holder waits for an answer of
// the daemon. It would stay a member of its groups then, and the whole cluster
// would wait for it. So a second process, the guard, looks on: when the daemon has
// been killed and does not end, it ends the mount, which frees everybody.

// guardEnv makes this program a guard. It holds the daemon's process id and the
// mount point.
const guardEnv = "PMXCFS_GUARD"

const (
	guardSignal = syscall.SIGUSR1        // what the guard gets when the daemon is killed
	guardGrace  = 300 * time.Millisecond // a killed daemon's to end by itself
	guardCheck  = 5 * time.Second        // between looks without a signal
)

// guard is a running guard, as the daemon sees it.
type guard struct {
	quit chan struct{}
	done chan struct{}
}

// startGuard starts a guard of this process's mount.
func startGuard(mountPoint string) (*guard, error) {
	g := &guard{quit: make(chan struct{}), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(g.done)
		// The guard is told when the thread that started it ends: this one, which
		// does nothing else.
		runtime.LockOSThread()
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{"pmxcfs: guard of " + mountPoint}
		cmd.Env = append(os.Environ(), guardEnv+"="+strconv.Itoa(os.Getpid())+" "+mountPoint)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: guardSignal, Setsid: true}
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		<-g.quit
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting a guard of the mount: %w", err)
	}
	return g, nil
}

// stop ends the guard: the mount is gone.
func (g *guard) stop() {
	close(g.quit)
	<-g.done
}

// guardMain is a guard's main.
func guardMain(task string, stderr io.Writer) int {
	number, mountPoint, _ := strings.Cut(task, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		fmt.Fprintf(stderr, "pmxcfs: %s: %q is no process id\n", guardEnv, number)
		return exitFailure
	}
	killed := make(chan os.Signal, 1)
	signal.Notify(killed, guardSignal)
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for os.Getppid() == pid {
		select {
		case <-killed:
		case <-time.After(guardCheck):
		}
		time.Sleep(guardGrace)
		ended, err := fuse.EndDying(mountPoint, pid)
		if !ended && err == nil {
			continue
		}
		if j := dialJournal(); j != nil {
			text := fmt.Sprintf("ended the file system of a killed daemon that could not end path=%s pid=%d", mountPoint, pid)
			if err != nil {
				text += ": " + err.Error()
			}
			j.write(&record{time: time.Now(), level: 4, domain: "main", text: text})
		}
		return exitOK
	}
	return exitOK
}
