package vmlab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// RootRun is a command that runs in a throw-away copy of a release's root: not booted,
// with the machine's network and its processor, and as its root user.
type RootRun struct {
	Suite    string
	Packages []string // that the root has beside the smallest system
	Cache    string   // as of [Options]
	Log      io.Writer

	Binds  []string // directories of this machine that are there, under their names
	Env    []string // all of the environment but a PATH
	Path   []string // directories in front of the usual PATH
	Dir    string   // to work in; "": /
	Args   []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// $1: the root below; $2: the directory for mounts; $3: the directory to work in; then
// directories to bind, "--", and the command. What is written goes to memory.
const rootScript = `
set -e
root=$2/root; lower=$1; work=$3; dir=$2; shift 3
mount -t tmpfs -o mode=0755 tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do
	mkdir -p "$root$1"
	mount --bind "$1" "$root$1"
	shift
done
shift
[ ! -e /etc/resolv.conf ] || cat /etc/resolv.conf > "$root/etc/resolv.conf"
exec chroot "$root" sh -c 'cd "$1"; shift; exec "$@"' sh "$work" "$@"
`

// Run runs the command to its end. The end of ctx kills it and its children, and so does the
// end of this process.
func (r *RootRun) Run(ctx context.Context) error {
	c, err := openCache(r.Cache, r.Log)
	if err != nil {
		return err
	}
	root, lock, err := c.root(ctx, r.Suite, r.Packages)
	if err != nil {
		return err
	}
	defer lock.Close()
	work := r.Dir
	if work == "" {
		work = "/"
	}
	args := []string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--",
		"bash", "-c", rootScript, "pmxroot", root, filepath.Join(c.dir, mountDir), work}
	for _, bind := range r.Binds {
		abs, err := filepath.Abs(bind)
		if err != nil {
			return err
		}
		args = append(args, abs)
	}
	path := strings.Join(append(append([]string(nil), r.Path...), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ":")
	args = append(append(args, "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "PATH="+path), r.Env...)
	cmd := exec.CommandContext(ctx, "unshare", append(args, r.Args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.Stdin, r.Stdout, r.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	return tethered(cmd)
}

// GoCache is the directory of the release's build cache for Go: what C code is compiled
// to depends on the release's compiler and headers.
func GoCache(dir, suite string) (string, error) {
	c, err := openCache(dir, nil)
	if err != nil {
		return "", err
	}
	if !slices.Contains(releases, suite) {
		return "", fmt.Errorf("vmlab: there are roots of Debian %v only, not of %q", releases, suite)
	}
	name := filepath.Join(c.dir, suite, "go-build")
	return name, os.MkdirAll(name, 0o755)
}
