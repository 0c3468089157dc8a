package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process that the lab started. Its methods may be called from
// any goroutine.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has been waited for
	err  error         // then: how it ended
}

// watch takes over a started command: it will be waited for, whoever asks.
func watch(cmd *exec.Cmd, log string) *Process {
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p
}

// Pid is the process id as this process sees it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// HostPid is the process id as it is on its host: what corosync shows for a
// member of a group, and getpid(2) returns there. 0 means it has ended.
func (p *Process) HostPid() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			n, _ := strconv.Atoi(f[len(f)-1])
			return n
		}
	}
	return 0
}

// LogFile is where output goes that Spec sends nowhere else; "" if none does.
func (p *Process) LogFile() string { return p.log }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running tells whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end; the error is an *exec.ExitError if it was no success.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal. os.ErrProcessDone: it has ended. After SIGSTOP it waits for all threads to
// stand still: until the thread that takes the signal gets a processor, the others go on.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil || sig != unix.SIGSTOP {
		return err
	}
	for !p.standsStill() {
		select {
		case <-p.done:
			return os.ErrProcessDone
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// standsStill reports whether all threads are stopped. See proc_pid_stat(5).
func (p *Process) standsStill() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		if i := bytes.LastIndexByte(stat, ')'); i < 0 || !bytes.HasPrefix(stat[i:], []byte(") T")) {
			return false
		}
	}
	return len(stats) > 0
}

// Stop sends sig and waits for the end; after grace it kills and returns an
// error. How the process ended is Wait's to tell.
func (p *Process) Stop(sig os.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	_ = p.Signal(unix.SIGKILL)
	<-p.done
	return fmt.Errorf("lab: %s did not end within %v of %v: killed", p.cmd.Path, grace, sig)
}
