package vmlab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CacheEnv names a directory for the cache; DefaultCache is where it is else.
const (
	CacheEnv     = "PMXCFS_VMLAB_CACHE"
	DefaultCache = "/var/cache/pmxcfs-vmlab"
)

// SourcesEnv names an apt sources file to use instead of the machine's own. It names
// one of the releases; for the others its lines are taken with their name in place of
// that one's.
const SourcesEnv = "PMXCFS_VMLAB_SOURCES"

// The Debian releases that hosts can be of.
const (
	Trixie   = "trixie"   // Debian 13
	Bookworm = "bookworm" // Debian 12
)

var releases = []string{Trixie, Bookworm}

// packages are what a host has from the beginning: a booting system, a network,
// and nothing that the package under test depends on.
var packages = []string{"systemd", "systemd-sysv", "dbus", "ca-certificates", "iproute2", "iputils-ping", "procps"}

// Dependencies are what this project's packages depend on, with what joins and external votes
// need. Hosts have them from the beginning, in one root, for tests that are not about their
// installation.
var Dependencies = []string{"corosync", "e2fsprogs", "librrd8", "openssh-server", "openssh-client", "corosync-qdevice", "corosync-qnetd"}

// finish makes of a fresh root ($1) one for hosts: mirrors that the machine
// trusts, a journal that is kept over boots, and nothing that downloads by itself.
const finish = `
set -e
if [ -n "$(ls /usr/local/share/ca-certificates 2>/dev/null)" ]; then
  cp -r /usr/local/share/ca-certificates "$1/usr/local/share/"
  chroot "$1" update-ca-certificates >/dev/null
fi
[ -e "$1/usr/bin/systemctl" ] || exit 0
mkdir -p "$1/var/log/journal"
chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
`

// maxAge is how old a root may get: by then it lacks many updates.
const maxAge = 30 * 24 * time.Hour

// mountDir is where each [RootRun] mounts its copy of a root, in a mount name space of its own.
const mountDir = "mount"

// cache is a directory with, per key, a root file system and its lock, and with,
// per release, the package lists and packages that installing has fetched.
// Processes share it by flock(2).
type cache struct {
	dir string
	log io.Writer
}

func openCache(dir string, log io.Writer) (*cache, error) {
	if dir == "" {
		dir = os.Getenv(CacheEnv)
	}
	if dir == "" {
		dir = DefaultCache
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = io.Discard
	}
	for _, suite := range releases {
		for _, d := range []string{"lists", "archives"} {
			if err := os.MkdirAll(filepath.Join(dir, suite, d), 0o755); err != nil {
				return nil, fmt.Errorf("vmlab: %w", err)
			}
			f, err := os.OpenFile(filepath.Join(dir, suite, d, "lock"), os.O_CREATE, 0o640) // for a host's own on top
			if err != nil {
				return nil, fmt.Errorf("vmlab: %w", err)
			}
			f.Close()
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, mountDir), 0o755); err != nil {
		return nil, fmt.Errorf("vmlab: %w", err)
	}
	return &cache{dir: dir, log: log}, nil
}

// recipe says what a root file system is made of.
type recipe struct {
	suite    string   // one of the releases
	packages []string // beside those without which there is no apt
	sources  string   // the content of an apt sources file
	deb822   bool     // it is in the newer format
	conf     []string // apt's settings
}

// key tells recipes apart.
func (r recipe) key() string {
	return fmt.Sprintf("%.6x", sha256.Sum256([]byte(fmt.Sprint(r, finish))))
}

// root returns the directory of a sound root file system of a release with these
// packages, made if need be, and a lock that keeps it from being replaced until it is
// closed.
func (c *cache) root(ctx context.Context, suite string, packages []string) (string, *os.File, error) {
	if !slices.Contains(releases, suite) {
		return "", nil, fmt.Errorf("vmlab: hosts of %q can't be had, only of %v", suite, releases)
	}
	r := recipe{suite: suite, packages: packages}
	var err error
	if r.sources, r.deb822, err = debianSources(suite); err != nil {
		return "", nil, err
	}
	if r.conf, err = aptConf(ctx); err != nil {
		return "", nil, err
	}
	dir := filepath.Join(c.dir, "root-"+suite+"-"+r.key())
	lock, err := flock(ctx, dir+".lock", unix.LOCK_SH)
	if err != nil {
		return "", nil, err
	}
	now := time.Now()
	_ = os.Chtimes(dir+".lock", now, now) // in use: see prune
	why := flaw(ctx, dir)
	if why == "" {
		return dir, lock, nil
	}
	lock.Close()
	// Alone: nobody uses it, nobody else makes it.
	if lock, err = flock(ctx, dir+".lock", unix.LOCK_EX); err != nil {
		return "", nil, err
	}
	if flaw(ctx, dir) != "" { // else somebody was faster
		fmt.Fprintf(c.log, "making a root of Debian %s in %s (%s)\n", suite, dir, why)
		if err := makeRoot(ctx, dir, r); err != nil {
			lock.Close()
			return "", nil, err
		}
		c.prune()
	}
	// The one lock becomes the other; whoever comes between finds it sound.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		lock.Close()
		return "", nil, err
	}
	return dir, lock, nil
}

// flaw tells why a root can't be used; "": it can. A root is renamed into place
// when it is complete, so what is looked for is what happened since.
func flaw(ctx context.Context, dir string) string {
	st, err := os.Stat(filepath.Join(dir, "var/lib/dpkg/status"))
	if err != nil {
		return "there is none"
	}
	if time.Since(st.ModTime()) > maxAge {
		return "the old one is of " + st.ModTime().Format(time.DateOnly)
	}
	for _, check := range []string{"--verify", "--audit"} {
		// Both report by what they print.
		if out, err := exec.CommandContext(ctx, "chroot", dir, "dpkg", check).CombinedOutput(); err != nil || len(out) > 0 {
			return fmt.Sprintf("the old one is damaged: %v: %.200s", err, out)
		}
	}
	return ""
}

// makeRoot makes a root beside its place, with all that is written on the way in one
// directory: what a killed one leaves goes when the next one is made, and is never taken for
// a root.
func makeRoot(ctx context.Context, dir string, r recipe) error {
	work := dir + ".new"
	for _, d := range []string{dir, work} {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("vmlab: %w", err)
		}
	}
	root, tmp, sources := filepath.Join(work, "root"), filepath.Join(work, "tmp"), filepath.Join(work, "debian.list")
	if r.deb822 {
		sources = filepath.Join(work, "debian.sources")
	}
	err := errors.Join(os.MkdirAll(tmp, 0o755), os.Chmod(tmp, 0o777|os.ModeSticky), os.WriteFile(sources, []byte(r.sources), 0o644))
	if err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	args := []string{"--mode=root", "--variant=apt", "--include=" + strings.Join(r.packages, ","), "--dpkgopt=force-unsafe-io"}
	for _, line := range r.conf {
		args = append(args, "--aptopt="+line)
	}
	steps := [][]string{
		append(append([]string{"mmdebstrap"}, args...), r.suite, root, sources),
		{"bash", "-c", finish, "finish", root},
	}
	for _, step := range steps {
		// It mounts things below the root: in name spaces of its own these end with it.
		cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--"}, step...)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		cmd.WaitDelay = 10 * time.Second
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := tethered(cmd); err != nil {
			return fmt.Errorf("vmlab: making a root: %s: %w: %s", step[0], err, &out)
		}
	}
	// Its age counts from now, not from its packages'.
	now := time.Now()
	if err := os.Chtimes(filepath.Join(root, "var/lib/dpkg/status"), now, now); err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	if err := os.Rename(root, dir); err != nil {
		return fmt.Errorf("vmlab: %w", err)
	}
	return os.RemoveAll(work)
}

// tethered runs a command that ends with this process, however that ends: the kernel kills
// it. It takes the thread that started a command for its parent (prctl(2),
// PR_SET_PDEATHSIG), so that thread is kept. "unshare --kill-child" hands the end on to
// everything in its PID name space.
func tethered(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	return cmd.Run()
}

// prune removes the roots of other recipes that nobody uses and that have not been
// used for maxAge. Best effort.
func (c *cache) prune() {
	locks, _ := filepath.Glob(filepath.Join(c.dir, "root-*.lock"))
	for _, name := range locks {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if st, err := f.Stat(); err == nil && time.Since(st.ModTime()) > maxAge && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			dir := strings.TrimSuffix(name, ".lock")
			_ = os.RemoveAll(dir)
			_ = os.RemoveAll(dir + ".new")
		}
		f.Close()
	}
}

// debianSources gives the machine's apt sources for Debian, as those of a release, and
// tells whether they are in the newer of the two formats.
func debianSources(suite string) (text string, deb822 bool, err error) {
	candidates := []string{os.Getenv(SourcesEnv)}
	if candidates[0] == "" {
		candidates = []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"}
	}
	for _, f := range candidates {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if text, ok := sourcesOf(string(b), suite); ok {
			return text, strings.HasSuffix(f, ".sources"), nil
		}
	}
	return "", false, fmt.Errorf("vmlab: none of %v is an apt sources file for one of Debian %v: name one in %s", candidates, releases, SourcesEnv)
}

// sourcesOf turns apt sources of one release into those of another; false: they are
// of none that is known.
func sourcesOf(text, suite string) (string, bool) {
	for _, r := range releases {
		if name := regexp.MustCompile(`\b` + r + `\b`); name.MatchString(text) {
			return name.ReplaceAllString(text, suite), true
		}
	}
	return "", false
}

// wanted are the machine's apt settings that decide whether downloads work.
var wanted = regexp.MustCompile(`^Acquire::(http|https|ftp|Check)\b.*;$|^Acquire::Check-`)

func aptConf(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("vmlab: apt-config: %w", err)
	}
	var conf []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if wanted.MatchString(lines.Text()) {
			conf = append(conf, lines.Text())
		}
	}
	return conf, nil
}

// flock opens a lock file and takes the lock, waiting for it until ctx ends.
func flock(ctx context.Context, name string, how int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vmlab: %w", err)
	}
	err = poll(ctx, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		return err == nil, err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vmlab: %s: %w", name, err), f.Close())
	}
	return f, nil
}
