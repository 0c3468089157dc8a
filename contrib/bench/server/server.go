package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Server is a process that serves a mount point.
type Server struct {
	Name  string
	Mount string
	cmd   *exec.Cmd
	log   tail
	ended chan struct{} // closed once the process is gone
}

// readyFile is there as soon as the mount can be used.
const readyFile = ".version"

const (
	startTimeout = time.Minute
	stopTimeout  = time.Minute
)

// Start runs a program that mounts on the directory mount, and returns when
// the mount can be used, with the time that this took from the start of the
// process. It ends with the benchmark's PID namespace, at the latest.
func Start(name, mount, program string, args ...string) (*Server, time.Duration, error) {
	s := &Server{Name: name, Mount: mount, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	// A terminal's interrupt is for the benchmark, which ends its servers itself.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		s.cmd.Wait()
		close(s.ended)
	}()
	poll := time.NewTicker(250 * time.Microsecond)
	defer poll.Stop()
	for {
		_, err := os.Stat(filepath.Join(mount, readyFile))
		took := time.Since(begin)
		switch {
		case err == nil:
			return s, took, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, 0, errors.Join(fmt.Errorf("%s: %w", name, err), s.Stop())
		case took > startTimeout:
			return nil, 0, errors.Join(fmt.Errorf("%s: not mounted after %v; its log:\n%s", name, startTimeout, s.log.String()), s.Stop())
		}
		select {
		case <-s.ended:
			return nil, 0, fmt.Errorf("%s: %v; its log:\n%s", name, s.cmd.ProcessState, s.log.String())
		case <-poll.C:
		}
	}
}

// PID returns the process's number.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop ends the process, if need be by force, and takes away its mount. An
// error says that it did not end by itself as it should.
func (s *Server) Stop() error {
	defer s.unmount()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		s.cmd.Process.Kill()
		s.unmount() // so that nothing waits for an answer any more
		<-s.ended
		return fmt.Errorf("%s: killed, for it was still there %v after SIGTERM; its log:\n%s", s.Name, stopTimeout, s.log.String())
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %v; its log:\n%s", s.Name, s.cmd.ProcessState, s.log.String())
	}
	return nil
}

// unmount takes away what a killed server has left. Nothing mounted there is
// the usual case, and fine.
func (s *Server) unmount() { syscall.Unmount(s.Mount, syscall.MNT_DETACH) }

// tail keeps the last lines that a process has printed.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 8 << 10

// Write appends p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - tailSize; n > 0 {
		t.b = bytes.Clone(t.b[n:])
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
