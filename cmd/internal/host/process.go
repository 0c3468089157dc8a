package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is a program to run, found in PATH, without a shell.
type Command struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil means nowhere
}

// CommandError is a program's failure.
type CommandError struct {
	Args   []string
	Status int    // -1: it didn't run, or a signal ended it
	Stderr string // the end of it, if it wasn't shown
	Err    error
}

func (e *CommandError) Error() string {
	text := strings.Join(e.Args, " ") + ": " + e.Err.Error()
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *CommandError) Unwrap() error { return e.Err }

// Do runs a program.
func (h *Host) Do(ctx context.Context, c Command) error {
	if h.Exec != nil {
		return h.Exec(ctx, c)
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	// A program that is told to end because time is up ends its own ones first.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		status := -1
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			status = exit.ExitCode()
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, ctx.Err())
		}
		return &CommandError{Args: c.Args, Status: status, Err: err}
	}
	return nil
}

// Run runs a program, whose output the user sees.
func (h *Host) Run(ctx context.Context, args ...string) error {
	return h.Do(ctx, Command{Args: args, Stdout: h.Stdout, Stderr: h.Stderr})
}

// Output runs a program and returns its output. What it writes to stderr is part of
// the error.
func (h *Host) Output(ctx context.Context, args ...string) ([]byte, error) {
	return h.Pipe(ctx, nil, args...)
}

// Pipe is Output for a program that reads something.
func (h *Host) Pipe(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	err := h.Do(ctx, Command{Args: args, Stdin: stdin, Stdout: &stdout, Stderr: &stderr})
	var failed *CommandError
	if errors.As(err, &failed) {
		text := strings.TrimSpace(stderr.String())
		if len(text) > 1000 {
			text = "…" + text[len(text)-1000:]
		}
		failed.Stderr = text
	}
	return stdout.Bytes(), err
}

// Installed returns those of some services that this host has units of.
func (h *Host) Installed(services []string) (list []string) {
	for _, name := range services {
		for _, dir := range []string{"/lib/systemd/system/", "/etc/systemd/system/", "/usr/lib/systemd/system/"} {
			if h.Exists(dir + name + ".service") {
				list = append(list, name)
				break
			}
		}
	}
	return list
}

// SSH is the command line by which root reaches another node: keys only, and the host
// key that the cluster has for it. options come before the address.
func (h *Host) SSH(node, address string, options ...string) []string {
	args := append([]string{"/usr/bin/ssh", "-e", "none"}, h.SSHOptions(node)...)
	return append(append(args, options...), "root@"+address)
}

// SSHOptions are the options for ssh and scp to another node.
func (h *Host) SSHOptions(node string) []string {
	args := []string{"-o", "BatchMode=yes", "-o", "HostKeyAlias=" + node}
	if known := Mount + "/nodes/" + node + "/ssh_known_hosts"; h.Exists(known) {
		args = append(args, "-o", "UserKnownHostsFile="+known, "-o", "GlobalKnownHostsFile=none")
	}
	return args
}
