package vmlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/lab"
)

// Host is one host. Its methods may be called from any goroutine.
type Host struct {
	lab   *Lab
	under *lab.Host // the namespaces in which nspawn runs
	suite string    // its Debian release

	mu      sync.Mutex    // guards what follows
	nspawn  *lab.Process  // of the running host
	done    chan struct{} // closed when the host is off; nil: never started
	retired bool          // don't start again
}

// ErrOff is the answer of a host that isn't running.
var ErrOff = errors.New("vmlab: the host is off")

// rebooted is systemd-nspawn's exit status when the host wants to start again.
const rebooted = 133

// A host's disk: everything that it writes is in memory. $1: the directory, $2:
// the root below.
const diskScript = `
set -e
cd "$1"
mkdir -p disk root
mount -t tmpfs -o mode=0755 tmpfs disk
mkdir -p disk/upper/etc disk/work
mount -t overlay overlay -o "lowerdir=$2,upperdir=disk/upper,workdir=disk/work" root
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/nspawn
`

// nspawn makes cgroups below the one that it starts in, and leaves them. $1: the
// cgroup; the rest: the command.
const bootScript = `
cg=/sys/fs/cgroup/$1; shift
[ ! -d "$cg" ] || find "$cg" -depth -type d -exec rmdir {} +
mkdir "$cg" && echo $$ > "$cg/cgroup.procs" && exec "$@"
`

func (h *Host) makeDisk(ctx context.Context, root string) error {
	if _, err := h.under.Exec(ctx, "bash", "-c", diskScript, "disk", h.under.Dir(), root); err != nil {
		return err
	}
	// A machine id that is there keeps systemd from taking this for a first boot,
	// which resets every unit to its preset.
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n"
	for _, n := range h.lab.net.Hosts() {
		hosts += fmt.Sprintf("%s %s.lab.test %s\n", lab.Address(n.ID()), n.Name(), n.Name())
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name, text := range map[string]string{
		"hostname":    h.Name() + "\n",
		"machine-id":  strings.ReplaceAll(string(id), "-", ""),
		"hosts":       hosts,
		"resolv.conf": string(resolv),
	} {
		if err := os.WriteFile(h.under.Path(filepath.Join(h.under.Dir(), "root/etc", name)), []byte(text), 0o644); err != nil {
			return fmt.Errorf("vmlab: %w", err)
		}
	}
	return nil
}

// ID is the host's number, from 1.
func (h *Host) ID() int { return h.under.ID() }

// Name is the host name, "node1" for host 1.
func (h *Host) Name() string { return h.under.Name() }

// Suite is its Debian release, such as [Trixie].
func (h *Host) Suite() string { return h.suite }

// Address is its IPv4 address.
func (h *Host) Address() string { return lab.Address(h.ID()) }

// Console is the file with what the host wrote to its console.
func (h *Host) Console() string { return filepath.Join(h.under.Dir(), "bash.log") }

// Boot starts the host with the disk it has, and waits until systemd has
// started all that there is to start, or failed to (see FailedUnits).
func (h *Host) Boot(ctx context.Context) error {
	h.mu.Lock()
	switch {
	case h.retired:
		h.mu.Unlock()
		return ErrOff
	case h.on():
		h.mu.Unlock()
		return fmt.Errorf("vmlab: %s is running", h.Name())
	}
	err := h.start()
	if err == nil {
		h.done = make(chan struct{})
		go h.keep(h.nspawn, h.done)
	}
	h.mu.Unlock()
	if err != nil {
		return err
	}
	return h.waitUp(ctx, 0)
}

// on tells whether the host runs; the caller holds mu.
func (h *Host) on() bool {
	if h.done == nil {
		return false
	}
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

// start starts nspawn; the caller holds mu.
func (h *Host) start() error {
	c := filepath.Join(h.lab.cache.dir, h.suite)
	own := filepath.Join(h.under.Dir(), "apt.lock")
	if err := os.WriteFile(own, nil, 0o640); err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	p, err := h.under.Start(lab.Spec{Args: []string{"bash", "-c", bootScript, "boot", h.lab.cgroup() + "/" + h.Name(),
		"systemd-nspawn", "--quiet", "--boot", "--directory=" + filepath.Join(h.under.Dir(), "root"),
		"--machine=" + h.Name(), "--hostname=" + h.Name(), "--network-namespace-path=/proc/self/ns/net",
		// There may be no systemd here to register with.
		"--register=no", "--keep-unit", "--link-journal=no", "--console=pipe", "--resolv-conf=off", "--timezone=off",
		"--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_IPC_LOCK", "--bind=/dev/fuse",
		"--bind=" + filepath.Join(c, "archives") + ":/var/cache/apt/archives",
		"--bind=" + filepath.Join(c, "lists") + ":/var/lib/apt/lists",
		// These two are shared, but not apt's locks there: it would not wait for another host's.
		"--bind=" + own + ":/var/cache/apt/archives/lock", "--bind=" + own + ":/var/lib/apt/lists/lock",
	}})
	h.nspawn = p
	return err
}

// keep starts the host again whenever it reboots, until it is off.
func (h *Host) keep(p *lab.Process, done chan struct{}) {
	defer close(done)
	for {
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != rebooted {
			return
		}
		h.mu.Lock()
		err := ErrOff
		if !h.retired {
			err = h.start()
		}
		p = h.nspawn
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// retire keeps the host from being started again; wait waits until it is off.
func (h *Host) retire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retired = true
}

func (h *Host) wait() {
	h.mu.Lock()
	done := h.done
	h.mu.Unlock()
	if done != nil {
		<-done
	}
}

// waitUp waits until another leader than old says that it has booted.
func (h *Host) waitUp(ctx context.Context, old int) error {
	err := poll(ctx, func() (bool, error) {
		if pid, err := h.leader(); err != nil || pid == old {
			return false, err
		}
		// Its exit status tells the state, too: only the text counts.
		out, err := h.Exec(ctx, "systemctl", "is-system-running", "--wait")
		state := strings.TrimSpace(string(out))
		return state == "running" || state == "degraded", fmt.Errorf("state %q: %w", state, err)
	})
	if err != nil {
		return fmt.Errorf("vmlab: %s does not come up: %w", h.Name(), err)
	}
	return nil
}

// leader finds the host's systemd: the process that nspawn started and that has
// number 1 in the innermost namespace.
func (h *Host) leader() (int, error) {
	h.mu.Lock()
	on, parent := h.on(), 0
	if on {
		parent = h.nspawn.Pid()
	}
	h.mu.Unlock()
	if !on {
		return 0, fmt.Errorf("%w: %s", ErrOff, h.Name())
	}
	names, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		fields := statusFields(text)
		ids := strings.Fields(fields["NSpid"])
		if fields["PPid"] == strconv.Itoa(parent) && fields["Name"] == "systemd" && len(ids) > 2 && ids[len(ids)-1] == "1" {
			return strconv.Atoi(fields["Pid"])
		}
	}
	return 0, fmt.Errorf("vmlab: %s has no systemd yet", h.Name())
}

// statusFields reads a /proc/PID/status.
func statusFields(text []byte) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

// Path gives a path on this machine for an absolute path on the running host. An
// absolute symbolic link below it leads to the machine's own files.
func (h *Host) Path(path string) (string, error) {
	pid, err := h.leader()
	return filepath.Join(fmt.Sprintf("/proc/%d/root", pid), path), err
}

// Command prepares a program to run on the host, as root, with a clean
// environment. The end of ctx kills it and its children.
func (h *Host) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	return h.command(ctx, []string{"--net"}, argv)
}

// command is Command with the namespaces to enter beside the usual ones.
func (h *Host) command(ctx context.Context, namespaces, argv []string) (*exec.Cmd, error) {
	pid, err := h.leader()
	if err != nil {
		return nil, err
	}
	args := append([]string{"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--pid", "--cgroup"}, namespaces...)
	args = append(args, "--", "env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", "container=systemd-nspawn",
		"DEBIAN_FRONTEND=noninteractive", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" && len(namespaces) == 0 {
			args = append(args, name+"="+v)
		}
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(args, argv...)...)
	// nsenter's child survives it; its group does not.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// Exec runs a program on the host to its end and returns what it wrote, both
// outputs together; an error carries that too.
func (h *Host) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	return h.exec(ctx, []string{"--net"}, argv)
}

func (h *Host) exec(ctx context.Context, namespaces, argv []string) ([]byte, error) {
	cmd, err := h.command(ctx, namespaces, argv)
	if err != nil {
		return nil, err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("vmlab: %s: %s: %w: %s", h.Name(), strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return out, err
}

// WriteFile puts a file on the running host.
func (h *Host) WriteFile(path string, content []byte, mode fs.FileMode) error {
	outside, err := h.Path(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(outside), 0o755); err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	if err := os.WriteFile(outside, content, mode); err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	return os.Chmod(outside, mode)
}

// FailedUnits are the names of the units that systemd has in state failed.
func (h *Host) FailedUnits(ctx context.Context) ([]string, error) {
	out, err := h.Exec(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
	var units []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 0 {
			units = append(units, f[0])
		}
	}
	return units, err
}

// Reboot has the host shut down in good order and boot again, and waits for it.
func (h *Host) Reboot(ctx context.Context) error {
	old, err := h.leader()
	if err != nil {
		return err
	}
	if err := unix.Kill(old, sigReboot); err != nil {
		return fmt.Errorf("vmlab: %s: %w", h.Name(), err)
	}
	return h.waitUp(ctx, old)
}

// What systemd does on SIGRTMIN+4 and +5 (systemd(1)); the C library's first
// real-time signal is 34.
const (
	sigPoweroff = unix.Signal(34 + 4)
	sigReboot   = unix.Signal(34 + 5)
)

// Shutdown turns the host off in good order. Its disk stays.
func (h *Host) Shutdown(ctx context.Context) error { return h.end(ctx, sigPoweroff) }

// Crash kills every process of the host at once. Its disk stays, and so does what
// was written but not synced, other than after a power cut.
func (h *Host) Crash(ctx context.Context) error { return h.end(ctx, unix.SIGKILL) }

func (h *Host) end(ctx context.Context, sig unix.Signal) error {
	pid, err := h.leader()
	if err != nil {
		return err
	}
	h.mu.Lock()
	done := h.done
	h.mu.Unlock()
	if err := unix.Kill(pid, sig); err != nil {
		return fmt.Errorf("vmlab: %s: %w", h.Name(), err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("vmlab: %s does not end: %w", h.Name(), ctx.Err())
	}
}
