package packages

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pmxcfs/internal/testutil"
)

// changesReleases goes to an older release and back while files are written.
func (h host) changesReleases(t *testing.T, old, current release) {
	w := h.load(t)
	w.more(t, 100)
	for _, r := range []release{old, current} {
		pid := h.property(t, unit, "MainPID")
		h.install(t, r, "--allow-downgrades")
		h.serves(t, soon, "first", "hello\n")
		if now := h.property(t, unit, "MainPID"); now == pid {
			t.Errorf("the daemon of before runs after the change to %s", r.version)
		}
		if got := h.run(t, "pmxcfs", "--version"); !strings.Contains(got, strings.TrimPrefix(strings.TrimSuffix(r.version, "~older"), "1:")) {
			t.Errorf("pmxcfs --version says %q, the package is %s", got, r.version)
		}
		w.more(t, 100)
		h.remembers(t, "first", "create")
		h.remembers(t, dataDir+"/"+strconv.Itoa(w.acknowledged()), "create", "rename")
	}
	n := w.stop(t)
	h.complete(t, n)
	h.run(t, "systemctl", "restart", unit)
	h.complete(t, n)
	h.well(t)
}

// remembers waits until the history has a change of a file of the tree, of one of these kinds.
func (h host) remembers(t *testing.T, name string, kinds ...string) {
	t.Helper()
	testutil.EventuallyWithin(t, soon, func() error {
		out, err := h.Exec(within(t, soon), "pmxcfs", "history", "--json", name)
		if err != nil {
			return err
		}
		for _, kind := range kinds {
			if strings.Contains(string(out), `"`+kind+`"`) {
				return nil
			}
		}
		return fmt.Errorf("the history has no %v of %s:\n%s", kinds, name, out)
	})
}

func (h host) removes(t *testing.T, r release) {
	h.run(t, "systemctl", "stop", unit)
	h.fails(t, "touch", mount+"/stray") // nobody would see it later
	h.run(t, "systemctl", "start", unit)
	h.apt(t, "remove", plain)
	h.gone(t)
	if flags := strings.Fields(h.run(t, "lsattr", "-d", mount))[0]; strings.Contains(flags, "i") {
		t.Errorf("%s stays immutable: %s", mount, flags)
	}
	if got := h.fails(t, "systemctl", "cat", unit); !strings.Contains(got, "No files found") {
		t.Errorf("the unit is still there: %s", got)
	}
	if got := h.run(t, "stat", "-c", "%a", "/var/lib/pve-cluster/config.db"); got != "600" {
		t.Errorf("the database is %s", got)
	}
	h.well(t)
	h.install(t, r)
	h.serves(t, soon, "first", "hello\n")
}

func (h host) purges(t *testing.T, r release, clean []string) {
	h.apt(t, "purge", plain)
	h.gone(t)
	h.well(t)
	left := h.snapshot(t)
	for _, line := range left {
		if !slices.Contains(clean, line) {
			t.Errorf("left behind: %s", line)
		}
	}
	for _, line := range clean {
		if !slices.Contains(left, line) {
			t.Errorf("gone or changed: %s", line)
		}
	}

	// A purge of what was removed before: state goes, but nothing through a mount
	// that somebody made there since.
	h.install(t, r)
	h.apt(t, "remove", plain)
	h.sh(t, "mkdir -p "+mount+" /root/other && mount --bind /root/other "+mount+" && echo precious > "+mount+"/file")
	_, err := h.Apt(within(t, soon*3), "purge", plain)
	if got := h.run(t, "cat", "/root/other/file"); got != "precious" {
		t.Errorf("after a purge beside a mount (its error: %v), the file there holds %q", err, got)
	}
	if err == nil {
		t.Error("a purge went on beside somebody else's mount")
	}
	h.run(t, "umount", mount)
	h.apt(t, "purge", plain)
	h.run(t, "rm", "-r", "/root/other")
	h.gone(t)
	for _, line := range h.snapshot(t) {
		if !slices.Contains(clean, line) {
			t.Errorf("left behind by a purge after a removal: %s", line)
		}
	}
}

// purgesSamples has the recommended rrdcached beside the package: it is started
// first, and purging deletes the files that are ours of its directory, and no others.
func (h host) purgesSamples(t *testing.T, r release) {
	const dir = "/var/lib/rrdcached/db"
	h.apt(t, "install", "rrdcached")
	h.run(t, "systemctl", "stop", "rrdcached")
	h.install(t, r)
	h.serves(t, soon, ".debug", "0\n")
	if got := h.property(t, "rrdcached.service", "ActiveState"); got != "active" {
		t.Errorf("with the daemon started, rrdcached is %s", got)
	}
	started := h.number(t, "rrdcached.service", "ActiveEnterTimestampMonotonic")
	if begin := h.number(t, unit, "ExecMainStartTimestampMonotonic"); started > begin {
		t.Errorf("rrdcached was ready at %d µs, the daemon was started before, at %d µs", started, begin)
	}
	ours := []string{"pve2-node/node1", "pve2-storage/node1/local", "pve2-vm/100", "pve2.3-vm/100", "pve-node-9.0/node1", "pve-storage-9.0/node1/local", "pve-vm-9.0/100"}
	foreign := []string{"other/file", "pve2-node.old/file", "file"}
	for _, name := range append(append([]string(nil), ours...), foreign...) {
		if err := h.WriteFile(dir+"/"+name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.apt(t, "remove", plain)
	for _, name := range ours {
		h.run(t, "test", "-e", dir+"/"+name) // removing deletes nothing
	}
	h.apt(t, "purge", plain)
	h.gone(t)
	left := strings.Fields(h.sh(t, "cd "+dir+" && find . -mindepth 1 -printf '%P\\n' | sort"))
	if want := []string{"file", "other", "other/file", "pve2-node.old", "pve2-node.old/file"}; !slices.Equal(left, want) {
		t.Errorf("after the purge, %s has %q, not %q", dir, left, want)
	}
	h.apt(t, "purge", "rrdcached")
	h.run(t, "rm", "-rf", "/var/lib/rrdcached")
	h.well(t)
}

// snapshot lists what a package could leave on a host: files with owners, modes
// and for configuration their content, mounts, and units.
func (h host) snapshot(t *testing.T) []string {
	t.Helper()
	return strings.Split(h.sh(t, `
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /root -o -path /run \
	-o -path /var/log -o -path /var/cache/apt -o -path /var/lib/apt -o -path /var/cache/vmlab -o -path /var/lib/dpkg \
	-o -path /var/lib/systemd/catalog -o -path /var/cache/ldconfig -o -path /var/cache/debconf \
	-o -path '/var/tmp/systemd-private-*' \) -prune \
	-o -printf '%p %y %m %u:%g %l\n' | sort
find /run /dev/shm -xdev \( -name '*pve*' -o -name '*pmxcfs*' -o -name 'qb-*' \) -printf 'run: %p\n' | grep -v -e corosync -e '/run/systemd/' | sort
find /etc -xdev -type f -exec sha256sum {} + | sort
cut -d' ' -f2- /proc/1/mounts | sort -u | sed 's/^/mount: /'
systemctl list-unit-files --no-legend --no-pager | grep -v -e transient -e generated | sort | sed 's/^/unit: /'
ls /var/lib/dpkg/info | grep '^pve-' || true
journalctl --list-catalog 2>/dev/null | grep -i pmxcfs || true
`), "\n")
}
