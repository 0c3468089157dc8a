package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HostEnv is set to the host's name in the environment of what runs on a host.
const HostEnv = "PMXCFS_LAB_HOST"

// Host is one host of a lab. Its methods may be called from any goroutine.
type Host struct {
	lab   *Lab
	id    int
	dir   string
	init  *Process
	pidfd int // of init

	mu       sync.Mutex // guards corosync
	corosync *Process   // nil means not started
}

// Spec is a program to start on a host.
type Spec struct {
	Args           []string
	Env            []string // added to this process's environment
	Stdin          io.Reader
	Stdout, Stderr io.Writer // both nil: appended to a log file in Dir
}

// ID is the host's number, from 1, which is also its corosync node id.
func (h *Host) ID() int { return h.id }

// Name is the host name, "node1" for host 1.
func (h *Host) Name() string { return Name(h.id) }

// Pid is the first process of the host, as this process sees it: its namespaces
// are the host's (nsenter(1)).
func (h *Host) Pid() int { return h.init.Pid() }

// Dir is the host's directory on the machine: log/ is its /var/log;
// pve-cluster/, corosync/ and rrdcached/ are those of its /var/lib.
func (h *Host) Dir() string { return h.dir }

// Path gives a path on this machine for an absolute path on the host, to open
// files from outside. An absolute symbolic link below it leads to the machine's
// own files: name the target instead.
func (h *Host) Path(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", h.init.Pid()), path)
}

// Start starts a program on the host. It goes on until it ends, is stopped, or
// the lab goes down.
func (h *Host) Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Args[0], spec.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = spec.Stdin, spec.Stdout, spec.Stderr
	log := ""
	if spec.Stdout == nil && spec.Stderr == nil {
		log = filepath.Join(h.dir, filepath.Base(spec.Args[0])+".log")
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if err := h.start(cmd, spec.Env); err != nil {
		return nil, err
	}
	return watch(cmd, log), nil
}

func (h *Host) start(cmd *exec.Cmd, env []string) error {
	cmd.Env = append(append(os.Environ(), HostEnv+"="+h.Name()), env...)
	// A session of its own: a ^C on the terminal is for the lab's owner alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Once it has ended, don't wait for ever for an heir of its output.
	cmd.WaitDelay = time.Second
	if err := startIn(h.pidfd, hostNamespaces, cmd); err != nil {
		return fmt.Errorf("lab: %s: %s: %w", h.Name(), cmd.Args[0], err)
	}
	return nil
}

// Exec runs a program on the host to its end and returns what it wrote, both
// outputs together; an error carries that too. The end of ctx kills it.
func (h *Host) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := h.start(cmd, nil)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("lab: %s: %s: %w: %s", h.Name(), strings.Join(argv, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), err
}

// Crash kills every process on the host at once, corosync among them, as a
// power cut would; what was written to files stays, also if it was not synced,
// and so do mounts. The host itself goes on.
func (h *Host) Crash() error {
	// From inside: -1 is everybody but the first process and kill itself.
	if _, err := h.Exec(context.Background(), "bash", "-c", "kill -KILL -1"); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.corosync != nil {
		<-h.corosync.Done()
		h.corosync = nil
	}
	return nil
}

// WriteConf puts a corosync.conf on the host. corosync reads it at its start
// or when told to.
func (h *Host) WriteConf(c Conf) error {
	return os.WriteFile(h.Path("/etc/corosync/corosync.conf"), []byte(c.String()), 0o644)
}

// StartCorosync starts corosync; nothing happens if it runs.
func (h *Host) StartCorosync() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.corosync != nil && h.corosync.Running() {
		return nil
	}
	p, err := h.Start(Spec{Args: []string{"corosync", "-f"}})
	if err != nil {
		return err
	}
	h.corosync = p
	return nil
}

// StopCorosync ends corosync in order: it tells the other nodes that it goes.
func (h *Host) StopCorosync() error { return h.endCorosync(unix.SIGTERM) }

// KillCorosync ends corosync at once; other nodes notice by the token timeout.
func (h *Host) KillCorosync() error { return h.endCorosync(unix.SIGKILL) }

func (h *Host) endCorosync(sig os.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.corosync == nil {
		return nil
	}
	err := h.corosync.Stop(sig, 20*time.Second)
	h.corosync = nil
	return err
}

// Corosync is the running corosync; nil means none.
func (h *Host) Corosync() *Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.corosync == nil || !h.corosync.Running() {
		return nil
	}
	return h.corosync
}
