package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/vmlab"
	"pmxcfs/internal/testutil"
)

const (
	unit  = "pve-cluster.service"
	mount = "/etc/pve"
	// soon is what a daemon that was killed has to be back: systemd waits a second,
	// the rest is for a machine on which much else runs.
	soon = time.Minute
)

// host is a host with the package's commands.
type host struct{ *vmlab.Host }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// run runs a command on the host, which has to succeed, and returns what it wrote.
func (h host) run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := h.Exec(within(t, settles), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// sh is run for a shell's command line.
func (h host) sh(t *testing.T, line string) string {
	t.Helper()
	return h.run(t, "sh", "-c", line)
}

// fails runs a command that has to fail, and returns what it wrote.
func (h host) fails(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := h.Exec(within(t, settles), argv...)
	if err == nil {
		t.Fatalf("%s: %v succeeded: %s", h.Name(), argv, out)
	}
	return string(out)
}

// install installs a build with apt-get, with more of its options if given.
func (h host) install(t *testing.T, r release, args ...string) {
	t.Helper()
	out, err := h.Install(within(t, 4*settles), []string{r.deb}, args...)
	if err != nil {
		t.Fatalf("installing %s: %v", r.version, err)
	}
	if got := h.run(t, "dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", r.pkg); got != r.version+" installed" {
		t.Fatalf("after installing %s: %s\n%s", r.version, got, out)
	}
}

// apt runs another apt-get command.
func (h host) apt(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.Apt(within(t, 4*settles), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// property is a property of the unit, as systemctl show gives it.
func (h host) property(t *testing.T, unit, name string) string {
	t.Helper()
	return h.run(t, "systemctl", "show", "-P", name, unit)
}

// number is a property that is a number.
func (h host) number(t *testing.T, unit, name string) int {
	t.Helper()
	text := h.property(t, unit, name)
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s of %s: %q", name, unit, text)
	}
	return n
}

// mounts counts the mounts at /etc/pve.
func (h host) mounts(t *testing.T) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(h.run(t, "cat", "/proc/1/mounts")) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == mount {
			n++
		}
	}
	return n
}

// read reads a file of the tree, from outside the host.
func (h host) read(name string) (string, error) {
	path, err := h.Path(mount + "/" + name)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// write writes a file of the tree, and fails as write(2) or close(2) does.
func (h host) write(name, text string) error {
	path, err := h.Path(mount + "/" + name)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// mustWrite is write that has to succeed.
func (h host) mustWrite(t *testing.T, name, text string) {
	t.Helper()
	if err := h.write(name, text); err != nil {
		t.Fatalf("%s: %v", h.Name(), err)
	}
}

// holds tells why a file of the tree doesn't hold the text; nil: it does.
func (h host) holds(name, text string) error {
	got, err := h.read(name)
	if err == nil && got != text {
		err = fmt.Errorf("%s: %s holds %q, not %q", h.Name(), name, got, text)
	}
	return err
}

// serves waits until the unit is up and the one mount is there and holds what it
// should.
func (h host) serves(t *testing.T, d time.Duration, name, text string) {
	t.Helper()
	testutil.EventuallyWithin(t, d, func() error {
		if state, err := h.Exec(within(t, d), "systemctl", "is-active", unit); err != nil {
			return fmt.Errorf("%s is %s", unit, state)
		}
		return h.holds(name, text)
	})
	if n := h.mounts(t); n != 1 {
		t.Fatalf("%d mounts at %s", n, mount)
	}
}

// gone checks that neither daemon nor mount is left, and that nothing was written
// below the mount point meanwhile.
func (h host) gone(t *testing.T) {
	t.Helper()
	if n := h.mounts(t); n != 0 {
		t.Errorf("%d mounts are left at %s", n, mount)
	}
	if out, err := h.Exec(within(t, settles), "pgrep", "-a", "pmxcfs"); err == nil {
		t.Errorf("processes are left: %s", out)
	}
	path, err := h.Path(mount)
	if err != nil {
		t.Fatal(err)
	}
	switch entries, err := os.ReadDir(path); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		t.Error(err)
	case len(entries) > 0:
		t.Errorf("below the mount point lie %v", entries)
	}
}

// well checks that no unit of the host has failed.
func (h host) well(t *testing.T) {
	t.Helper()
	units, err := h.FailedUnits(within(t, settles))
	if err != nil || len(units) > 0 {
		t.Errorf("%s: failed units: %v (%v)", h.Name(), units, err)
	}
}

// readOnly tells whether an error is the answer of a node without quorum.
func readOnly(err error) bool { return errors.Is(err, syscall.EACCES) }
