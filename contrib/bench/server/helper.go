package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Helper is a process that works until its standard input ends.
type Helper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log tail
}

// StartHelper starts a program, gives it its input, and returns once it has said
// "ready" on its standard output. The caller owes a Stop.
func StartHelper(input []byte, program string, args ...string) (*Helper, error) {
	h := &Helper{cmd: exec.Command(program, args...)}
	h.cmd.Stderr = &h.log
	// No signals to threads that wait for a FUSE request.
	h.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	_, err = h.in.Write(input)
	line := ""
	if err == nil {
		line, err = h.out.ReadString('\n')
	}
	if err != nil || line != "ready\n" {
		_, serr := h.Stop()
		return nil, errors.Join(fmt.Errorf("%s: it said %q", args[0], line), err, serr)
	}
	return h, nil
}

// PID returns the process's number.
func (h *Helper) PID() int { return h.cmd.Process.Pid }

// Stop ends the process's input, waits for its end, and returns what it has written
// since it was ready.
func (h *Helper) Stop() ([]byte, error) {
	_ = h.in.Close()
	out, err := io.ReadAll(h.out)
	if err := errors.Join(err, h.cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", h.cmd.Args[1], err, h.log.String())
	}
	return out, nil
}
