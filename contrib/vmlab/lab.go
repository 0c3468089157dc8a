package vmlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/lab"
)

// Options says what Up builds.
type Options struct {
	Suites   []string  // the Debian release of each host: 1 to lab.MaxHosts of them
	Packages []string  // of Debian, that each host has from the beginning beside the few that all have
	Cache    string    // directory of the cache; "": CacheEnv's, or DefaultCache
	Log      io.Writer // what takes long is told here, line by line; nil: nowhere
}

// Lab is a set of hosts. Its methods may be called from any goroutine.
type Lab struct {
	net   *lab.Lab
	cache *cache
	bases []*os.File // shared locks on the roots below the hosts' disks
	alive *os.File   // write end of a pipe; the janitor works at its EOF
	jan   *exec.Cmd
	hosts []*Host

	down    sync.Once
	downErr error
}

// Missing tells what this machine lacks for hosts; nil: nothing.
func Missing() error {
	if err := lab.Missing(); err != nil {
		return err
	}
	for _, prog := range []string{"systemd-nspawn", "nsenter", "mmdebstrap"} {
		if _, err := exec.LookPath(prog); err != nil {
			return fmt.Errorf("vmlab: %w", err)
		}
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	return nil
}

// The janitor removes the cgroups of the lab named $1 when its owner is gone, and
// at its start those of labs whose owner and janitor are. Directories of cgroups
// are nobody's: they stay when all processes in them have ended.
const janitorScript = `
mount --make-rprivate / && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
cd /sys/fs/cgroup
remove() { for _ in {1..200}; do [ -d "$1" ] || return 0; find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05; done; return 1; }
for d in pmxlab-*; do
  pid=${d#pmxlab-}; pid=${pid%%-*}
  if [ -d "$d" ] && ! [ -d "/proc/$pid" ] && grep -q '^populated 0' "$d/cgroup.events"; then remove "$d"; fi
done
mkdir "$1" && echo ready || exit 1
exec >/dev/null
while read -r _; do :; done
remove "$1"
`

// Up makes the hosts and their network; Host.Boot starts them. The first time,
// and after a month, it makes the root as well, which takes half a minute and the
// machine's network. The caller owes a Down.
func Up(ctx context.Context, opts Options) (*Lab, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	c, err := openCache(opts.Cache, opts.Log)
	if err != nil {
		return nil, err
	}
	l := &Lab{cache: c}
	roots := map[string]string{}
	for _, suite := range opts.Suites {
		if roots[suite] != "" {
			continue
		}
		root, lock, err := c.root(ctx, suite, append(slices.Clone(packages), opts.Packages...))
		if err != nil {
			return nil, errors.Join(err, l.Down())
		}
		roots[suite] = root
		l.bases = append(l.bases, lock)
	}
	if l.net, err = lab.Up(lab.Options{Hosts: len(opts.Suites), NoCorosync: true}); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	if err := l.startJanitor(); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	for i, n := range l.net.Hosts() {
		h := &Host{lab: l, under: n, suite: opts.Suites[i]}
		if err := h.makeDisk(ctx, roots[h.suite]); err != nil {
			return nil, errors.Join(err, l.Down())
		}
		l.hosts = append(l.hosts, h)
	}
	return l, nil
}

// cgroup is the path of the lab's cgroup below the hierarchy's top.
func (l *Lab) cgroup() string { return filepath.Base(l.net.Dir()) }

func (l *Lab) startJanitor() error {
	owner, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer owner.Close()
	said, say, err := os.Pipe()
	if err != nil {
		return errors.Join(err, alive.Close())
	}
	defer said.Close()
	l.alive = alive
	cmd := exec.Command("bash", "-c", janitorScript, "vmlab-janitor", l.cgroup())
	cmd.Stdin, cmd.Stdout = owner, say
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Setsid: true}
	err = cmd.Start()
	say.Close()
	if err != nil {
		return fmt.Errorf("vmlab: janitor: %w", err)
	}
	l.jan = cmd
	if line := make([]byte, 6); read(said, line) != "ready\n" {
		return errors.New("vmlab: this machine gives no cgroup2 to work in")
	}
	return nil
}

func read(r io.Reader, buf []byte) string {
	n, _ := io.ReadFull(r, buf)
	return string(buf[:n])
}

// Hosts gives all hosts, node1 first.
func (l *Lab) Hosts() []*Host { return append([]*Host(nil), l.hosts...) }

// Host gives host i, counted from 1.
func (l *Lab) Host(i int) *Host { return l.hosts[i-1] }

// Cut unplugs the network cable of host i.
func (l *Lab) Cut(i int) error { return l.net.Cut(i) }

// Split divides the network: hosts reach those of their own side only, and those in no
// list are one more side.
func (l *Lab) Split(sides ...[]int) error { return l.net.Split(sides...) }

// Heal plugs all cables in again.
func (l *Lab) Heal() error { return l.net.Heal() }

// Boot starts all hosts and waits until they are up.
func (l *Lab) Boot(ctx context.Context) error {
	errs := make([]error, len(l.hosts))
	var all sync.WaitGroup
	for i, h := range l.hosts {
		all.Go(func() { errs[i] = h.Boot(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Down kills all hosts and removes them. It may be called again.
func (l *Lab) Down() error {
	l.down.Do(func() { l.downErr = l.takeDown() })
	return l.downErr
}

func (l *Lab) takeDown() error {
	var errs []error
	for _, h := range l.hosts {
		h.retire()
	}
	if l.net != nil {
		errs = append(errs, l.net.Down()) // every process of a host ends with this
	}
	for _, h := range l.hosts {
		h.wait()
	}
	if l.alive != nil {
		errs = append(errs, l.alive.Close())
	}
	if l.jan != nil {
		if err := l.jan.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("vmlab: cgroup %s stays: %w", l.cgroup(), err))
		}
	}
	for _, f := range l.bases {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// poll calls ready until it says yes or ctx ends.
func poll(ctx context.Context, ready func() (bool, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
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
