package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxHosts is the largest lab: the last byte of an address.
const MaxHosts = 250

const dirPrefix = "pmxlab-"

// Options says what Up builds.
type Options struct {
	Hosts      int           // 1 to MaxHosts
	Token      time.Duration // totem token timeout; 0 means 1 s
	NoCorosync bool          // don't start corosync
	Dir        string        // parent of the lab's directory; "": os.TempDir()

	// Fair has corosync run with everybody's priority instead of its real-time one. While
	// a message is under way the hosts' corosyncs hand the token round without a pause:
	// where there are fewer processors than hosts, real-time ones keep everything
	// else from running, which on hosts of their own they don't.
	Fair bool

	// Idle is how often the token goes round without a message before corosync holds it for
	// a while; 0 means corosync's own 30. After each message of a slow writer that is most of
	// what corosync does.
	Idle int
}

// Lab is a running set of hosts. Its methods may be called from any goroutine.
type Lab struct {
	dir     string
	dirLock *os.File // flock on dir: its owner lives
	sw      *Process // holds the switch's network namespace
	pidfd   int      // of sw
	alive   *os.File // write end of a pipe; switch and hosts end at its EOF
	hosts   []*Host
	conf    Conf

	net sync.Mutex // serialises changes of the switch; guards bridges
	// bridges is how many there are: br0 joins all hosts, others are sides of
	// a split.
	bridges int

	down    sync.Once
	downErr error
}

// The switch's process holds the network namespace with the bridges. When the
// owner is gone, and with it all hosts, it removes the directory; what on a
// dying host still writes there can only make that take another try.
const switchScript = `
ip link set lo up && ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up && echo ready || exit 1
exec >/dev/null 2>&1
while read -r _; do :; done
cd /
for _ in {1..200}; do rm -rf --one-file-system -- "$1" && exit; sleep 0.05; done
`

// The first process of a host: makes its file system, then reaps orphans until
// the owner is gone. $1: the host's directory, $2: its name. It drops its copies
// of the machine's FUSE mounts first: they would outlive an unmount there, and
// their daemons wait for the last copy to go.
const hostScript = `
set -e
mount --make-rprivate /
mounts=$(</proc/mounts)
while read -r _ dir type _; do
  case $type in fuse|fuse.*) umount -l -i -c "$(printf %b "$dir")" || :;; esac
done <<< "$mounts"
mount -t proc proc /proc
hostname "$2"
cd "$1"
mkdir -p mem log pve-cluster corosync rrdcached
mount -t tmpfs -o mode=0755 tmpfs mem
mkdir -p mem/etc mem/etc.work mem/lib mem/lib.work
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/mem/etc,workdir=$1/mem/etc.work" /etc
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$1/mem/lib,workdir=$1/mem/lib.work" /var/lib
mkdir -p /etc/pve /etc/corosync
for d in pve-cluster corosync rrdcached; do
  mkdir -p "/var/lib/$d"
  mount --bind "$1/$d" "/var/lib/$d"
done
for d in /var/lib/pve-cluster /etc/pve; do chmod 0750 "$d"; done
mount --bind log /var/log
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
echo "$2" > /etc/hostname
rm -f /etc/corosync/corosync.conf
cd /
echo ready
while read -r _; do :; done
`

// Missing tells what this machine lacks for a lab, and of these programs; nil:
// nothing.
func Missing(programs ...string) error {
	if os.Geteuid() != 0 {
		return errors.New("lab: not root")
	}
	for _, prog := range append([]string{"corosync", "corosync-quorumtool", "ip", "bash"}, programs...) {
		if _, err := exec.LookPath(prog); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// Up builds a lab and starts corosync on its hosts; it doesn't wait for quorum.
// The caller owes a Down. Directories of labs whose owners died are removed.
func Up(opts Options) (*Lab, error) {
	if opts.Hosts < 1 || opts.Hosts > MaxHosts {
		return nil, fmt.Errorf("lab: %d hosts: not between 1 and %d", opts.Hosts, MaxHosts)
	}
	if opts.Token == 0 {
		opts.Token = time.Second
	}
	if opts.Dir == "" {
		opts.Dir = os.TempDir()
	}
	if err := Missing(); err != nil {
		return nil, err
	}
	sweep(opts.Dir)
	dir, lock, err := makeDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: dir, dirLock: lock, pidfd: -1, bridges: 1,
		conf: Conf{Cluster: "lab", Version: 1, Token: opts.Token, Fair: opts.Fair, Idle: opts.Idle}}
	for i := range opts.Hosts {
		l.conf.Nodes = append(l.conf.Nodes, i+1)
	}
	if err := l.build(opts); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

func (l *Lab) build(opts Options) error {
	owner, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer owner.Close()
	l.alive = alive

	cmd := exec.Command("bash", "-c", switchScript, "lab-switch", l.dir)
	if l.sw, err = startInit(owner, cmd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("lab: switch: %w", err)
	}
	if l.pidfd, err = unix.PidfdOpen(l.sw.Pid(), 0); err != nil {
		return err
	}
	var batch strings.Builder
	for i := 1; i <= opts.Hosts; i++ {
		h, err := l.addHost(i, owner)
		if err != nil {
			return fmt.Errorf("lab: host %d: %w", i, err)
		}
		fmt.Fprintf(&batch, "link add v%d type veth peer name eth0 netns %d\nlink set v%d master br0 up\n",
			i, h.init.Pid(), i)
	}
	if err := l.switchIP(batch.String()); err != nil {
		return err
	}
	for _, h := range l.hosts {
		batch := fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n", Address(h.id))
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(batch)
		if err := runIn(h.pidfd, hostNamespaces, cmd); err != nil {
			return err
		}
		if opts.NoCorosync {
			continue
		}
		if err := h.StartCorosync(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) addHost(i int, owner *os.File) (*Host, error) {
	h := &Host{lab: l, id: i, dir: filepath.Join(l.dir, fmt.Sprintf("n%d", i)), pidfd: -1}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("bash", "-c", hostScript, "lab-"+Name(i), h.dir, Name(i))
	var err error
	if h.init, err = startInit(owner, cmd, hostNamespaces); err != nil {
		return nil, err
	}
	l.hosts = append(l.hosts, h)
	if h.pidfd, err = unix.PidfdOpen(h.init.Pid(), 0); err != nil {
		return nil, err
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	for _, n := range l.conf.Nodes {
		fmt.Fprintf(&hosts, "%s %s\n", Address(n), Name(n))
	}
	if err := os.WriteFile(h.Path("/etc/hosts"), []byte(hosts.String()), 0o644); err != nil {
		return nil, err
	}
	return h, h.WriteConf(l.conf)
}

// startInit starts cmd in new namespaces and waits until it says "ready". Its
// standard input is owner.
func startInit(owner *os.File, cmd *exec.Cmd, namespaces uintptr) (*Process, error) {
	said, say, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer said.Close()
	var complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = owner, say, &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	err = cmd.Start()
	say.Close()
	if err != nil {
		return nil, err
	}
	p := watch(cmd, "")
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "ready\n" {
		_ = p.Signal(unix.SIGKILL)
		return nil, fmt.Errorf("%w: %s", p.Wait(), &complaint)
	}
	return p, nil
}

// Hosts gives all hosts, node1 first.
func (l *Lab) Hosts() []*Host { return append([]*Host(nil), l.hosts...) }

// Host gives host i, counted from 1.
func (l *Lab) Host(i int) *Host { return l.hosts[i-1] }

// Dir is the lab's directory; it goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// Conf is the corosync.conf that the hosts began with.
func (l *Lab) Conf() Conf { return l.conf }

// Down ends every process of the lab and removes it. It may be called again.
func (l *Lab) Down() error {
	l.down.Do(func() { l.downErr = l.takeDown() })
	return l.downErr
}

func (l *Lab) takeDown() error {
	var errs []error
	// The kernel ends a whole PID namespace with its first process, which is
	// gone when all others are.
	for _, h := range l.hosts {
		_ = h.init.Signal(unix.SIGKILL)
	}
	late := time.After(downTimeout)
	for _, h := range l.hosts {
		select {
		case <-h.init.Done():
		case <-late:
			errs = append(errs, fmt.Errorf("lab: processes on %s don't end", h.Name()))
			late = time.After(0)
		}
	}
	if l.sw != nil {
		_ = l.sw.Signal(unix.SIGKILL)
		<-l.sw.Done()
	}
	for _, h := range l.hosts {
		if h.pidfd >= 0 {
			_ = unix.Close(h.pidfd)
		}
	}
	if l.pidfd >= 0 {
		_ = unix.Close(l.pidfd)
	}
	if l.alive != nil {
		_ = l.alive.Close()
	}
	errs = append(errs, os.RemoveAll(l.dir), l.dirLock.Close())
	return errors.Join(errs...)
}

// downTimeout is for processes that the kernel has trouble ending: generous.
const downTimeout = 30 * time.Second

// makeDir makes a lab's directory below parent, locked for as long as the
// returned file is open.
func makeDir(parent string) (string, *os.File, error) {
	for {
		dir, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
		if err != nil {
			return "", nil, fmt.Errorf("lab: %w", err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // a sweep was faster
		}
		if err != nil {
			return "", nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			var st unix.Stat_t
			if unix.Stat(dir, &st) == nil {
				return dir, f, os.Chmod(dir, 0o755)
			}
		}
		f.Close()
	}
}

// sweep removes the directories of labs whose owners are gone: nobody locks
// them. Best effort: what it can't remove harms nobody.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		f.Close()
	}
}

// runIn runs cmd in namespaces of the process behind pidfd; an error carries
// its output.
func runIn(pidfd, namespaces int, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := startIn(pidfd, namespaces, cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("lab: %s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// poll calls ready until it says yes or ctx ends.
func poll(ctx context.Context, every time.Duration, ready func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}
