package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/vmlab"

	"pmxcfs/internal/testutil"
)

// TestProxmoxHost puts ours in the stock daemon's place on a host with Proxmox VE, and
// takes it away again.
func TestProxmoxHost(t *testing.T) {
	vmlab.Require(t)
	t.Parallel()
	ours, plain, pvecm := built(t, vmlab.Trixie, proxmox), built(t, vmlab.Trixie, plain), built(t, vmlab.Trixie, command)
	part := parts(t)
	_, hosts := boot(t, vmlab.Trixie)
	h := hosts[0]
	r := newRepository(t, ours)
	r.publish(t, "9.1.6", h)
	h.installsProxmox(t, r, "9.1.6")
	h.mustWrite(t, "of-stock", "by the stock package\n")
	part("OursTakesThePlaceOfTheDaemonAlone", func(t *testing.T) { h.takesThePlace(t, r, ours) })
	part("DistUpgradeOfStockKeepsOurs", func(t *testing.T) { h.upgradesStock(t, r) })
	part("PvecmTakesThePlaceOfTheCommandAlone", func(t *testing.T) { h.replacesCommand(t, pvecm) })
	part("ChapterAboutMonitoring", func(t *testing.T) { follow(t, "proxmox.md", "Monitoring", h) })
	part("ChapterAboutBackupsOfStock", h.restoresStockBackup)
	part("PlainPackageIsRefused", func(t *testing.T) { h.refusesPlain(t, r, plain) })
	part("RemovingBringsStockBack", func(t *testing.T) { h.givesThePlaceBack(t, r, ours) })
	if !testing.Short() {
		part("InterruptedAtEveryStep", func(t *testing.T) { h.interrupted(t, r, ours) })
	}
}

// stockFiles lists the stand-ins' files with what they hold, and which services are
// enabled and active.
func (h host) stockFiles(t *testing.T) []string {
	t.Helper()
	return strings.Split(h.sh(t, `
for p in pve-cluster libpve-common-perl libpve-cluster-perl libpve-cluster-api-perl libpve-access-control pve-manager proxmox-ve; do
	dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' $p
	dpkg-query -L $p | grep '^/' | while read -r f; do
		true=$(dpkg-divert --truename "$f")
		if [ -f "$true" ]; then echo "$f $(stat -c '%a %U:%G' "$true") $(sha256sum < "$true")"; fi
	done
done
for s in pve-cluster pvedaemon pvestatd pveproxy; do echo "$s $(systemctl is-enabled $s) $(systemctl is-active $s)"; done
`), "\n")
}

func same(t *testing.T, what string, before, now []string) {
	t.Helper()
	for _, line := range before {
		if !slices.Contains(now, line) {
			t.Errorf("%s: gone or changed: %s", what, line)
		}
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			t.Errorf("%s: new or changed: %s", what, line)
		}
	}
}

func (h host) takesThePlace(t *testing.T, r *repository, ours release) {
	before := h.stockFiles(t)
	pids := map[string]string{}
	for _, s := range stockServices {
		pids[s] = h.property(t, s, "MainPID")
	}
	h.install(t, ours)
	h.runs(t, r.ourSum(), "notify", "of-stock", "by the stock package\n")
	same(t, "with ours", before, h.stockFiles(t))
	for _, s := range stockServices {
		if now := h.property(t, s, "MainPID"); now != pids[s] {
			t.Errorf("%s was restarted", s)
		}
	}
	if out := h.sh(t, "dpkg --verify; dpkg --audit"); out != "" {
		t.Errorf("dpkg objects:\n%s", out)
	}
	if got := h.run(t, "create_pmxcfs_db", "--help"); !strings.Contains(got, "create_pmxcfs_db") {
		t.Errorf("create_pmxcfs_db says %q", got)
	}
	h.sh(t, "test -e /usr/share/man/man8/pmxcfs.8.gz.distrib && zcat /usr/share/man/man8/pmxcfs.8.gz | grep -q DAEMON_OPTS || zcat /usr/share/man/man8/pmxcfs.8.gz | grep -qi pmxcfs")
	if out := h.run(t, "systemd-analyze", "verify", "--recursive-errors=no", "--man=no", unit); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	if got := h.property(t, unit, "PIDFile"); got != "" {
		t.Errorf("PIDFile is %q", got)
	}
	if got := h.property(t, unit, "WatchdogUSec"); got != "30s" {
		t.Errorf("WatchdogSec is %s", got)
	}
	out, _ := h.Exec(within(t, settles), "pmxcfs", "doctor")
	if !regexp.MustCompile(`(?m)^(ok|note) +proxmox `).Match(out) || regexp.MustCompile(`(?m)^(error|warning) +proxmox `).Match(out) {
		t.Errorf("doctor says:\n%s", out)
	}
	h.mustWrite(t, "first", "hello\n")
	h.restarted(t, soon, func() { h.run(t, "systemctl", "kill", "--kill-whom=all", "--signal=KILL", unit) })
	h.mustWrite(t, "of-ours", "by ours\n")
	if err := h.Reboot(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	h.runs(t, r.ourSum(), "notify", "of-ours", "by ours\n")
}

// upgradesStock has newer stock packages come while ours is there.
func (h host) upgradesStock(t *testing.T, r *repository) {
	for _, version := range []string{"9.1.7", "9.2.0"} {
		r.publish(t, version, h)
		h.apt(t, "dist-upgrade")
		if got := h.run(t, "dpkg-query", "-W", "-f", "${Version}", "pve-cluster"); got != version {
			t.Fatalf("after the upgrade, stock is %s", got)
		}
		h.runs(t, r.ourSum(), "notify", "of-ours", "by ours\n")
		if got := h.sh(t, "sha256sum < /usr/bin/pmxcfs.distrib | cut -d' ' -f1"); got != r.stockSum(version) {
			t.Errorf("the diverted program is not that of %s", version)
		}
		if out := h.sh(t, "dpkg --verify; dpkg --audit"); out != "" {
			t.Errorf("dpkg objects:\n%s", out)
		}
	}
	// Nothing of ours stands in the way of what else apt would do.
	if would := h.run(t, "apt-get", "--simulate", "dist-upgrade"); strings.Contains(would, "Remv") {
		t.Errorf("apt would remove something:\n%s", would)
	}
	if would := h.run(t, "apt-get", "--simulate", "autoremove"); regexp.MustCompile(`Remv (corosync|pve|libpve|pmxcfs)`).MatchString(would) {
		t.Errorf("apt would remove something:\n%s", would)
	}
}

// restoresStockBackup has a backup as the stock tools make one.
func (h host) restoresStockBackup(t *testing.T) {
	h.sh(t, "mkdir -p /var/lib/pve-cluster/backup && sqlite3 /var/lib/pve-cluster/config.db .dump | gzip > /var/lib/pve-cluster/backup/config-1700000000.sql.gz")
	h.mustWrite(t, "after-the-backup", "x")
	follow(t, "disaster.md", "From a backup of the stock package", h, h)
	h.serves(t, soon, "of-ours", "by ours\n")
	if _, err := h.read("after-the-backup"); err == nil {
		t.Error("what was written after the backup is there")
	}
}

// refusesPlain tries the package for hosts without Proxmox VE.
func (h host) refusesPlain(t *testing.T, r *repository, plain release) {
	before := h.stockFiles(t)
	if out, err := h.Install(within(t, settles), []string{plain.deb}); err == nil {
		t.Errorf("it was installed:\n%s", out)
	} else {
		t.Logf("apt says: %v", err)
	}
	if out, err := h.Exec(within(t, settles), "dpkg", "-i", "/var/cache/vmlab/"+filepath.Base(plain.deb)); err == nil {
		t.Errorf("dpkg has installed it:\n%s", out)
	}
	same(t, "after the refusal", before, h.stockFiles(t))
	h.runs(t, r.ourSum(), "notify", "of-ours", "by ours\n")
}

func (h host) givesThePlaceBack(t *testing.T, r *repository, ours release) {
	before := h.stockFiles(t)
	h.remembers(t, "of-ours", "create")
	h.apt(t, "remove", proxmox)
	h.runs(t, r.stockSum("9.2.0"), "forking", "of-ours", "by ours\n")
	h.isStock(t)
	same(t, "with stock again", before, h.stockFiles(t))
	h.mustWrite(t, "of-stock-again", "by the stock package\n")
	h.install(t, ours)
	h.runs(t, r.ourSum(), "notify", "of-ours", "by ours\n")
	h.remembers(t, "of-ours", "create")
	h.remembers(t, "of-stock-again", "found") // what ours was not there to see
	h.apt(t, "purge", proxmox)
	h.runs(t, r.stockSum("9.2.0"), "forking", "of-ours", "by ours\n")
	h.isStock(t)
	if left := h.sh(t, "find /var/lib/pve-cluster -name 'history*'"); left != "" {
		t.Errorf("left of the history: %s", left)
	}
	h.sh(t, "test ! -e /etc/default/pve-cluster")
	if h.run(t, "stat", "-c", "%a", "/var/lib/pve-cluster/config.db") != "600" {
		t.Error("the database's mode has changed")
	}
}

// isStock checks that nothing of ours is left.
func (h host) isStock(t *testing.T) {
	t.Helper()
	if got := h.sh(t, "dpkg-divert --list '*pmxcfs*'; find / -xdev -name '*pmxcfs*.distrib*' -not -path '/proc/*'"); got != "" {
		t.Errorf("left of the diversions:\n%s", got)
	}
	if got := h.property(t, unit, "DropInPaths"); got != "" {
		t.Errorf("left of the drop-in: %s", got)
	}
	if out := h.sh(t, "dpkg --verify; dpkg --audit"); out != "" {
		t.Errorf("dpkg objects:\n%s", out)
	}
	attributes := h.sh(t, "d=$(mktemp -d) && unshare --mount --propagation private sh -c 'mount --bind /etc '$d' && lsattr -d '$d'/pve'")
	if flags := strings.Fields(attributes)[0]; strings.Contains(flags, "i") {
		t.Errorf("the directory below the mount is immutable: %s", attributes)
	}
}

// step is a line of a maintainer script that does something.
var step = regexp.MustCompile(`(?m)^(\t+)((?:rm|cp|mv|dpkg-divert|systemctl|deb-systemd-invoke|mutable|unshare|if \[ -e) )`)

// breakable gives the package with maintainer scripts that kill dpkg and themselves
// before the step whose number is in /root/step.
func breakable(t *testing.T, r release) release {
	t.Helper()
	dir := lab.TempDir(t)
	tree := filepath.Join(dir, "tree")
	machine(t, dir, "dpkg-deb", "--raw-extract", must(filepath.Abs(r.deb))(t), tree)
	const prologue = `
step() {
	n=$(($(cat /root/steps 2> /dev/null || echo 0) + 1))
	echo $n > /root/steps
	if [ "$n" = "$(cat /root/step 2> /dev/null)" ]; then kill -KILL $PPID $$; fi
}
`
	for _, script := range []string{"preinst", "postinst", "postrm"} {
		name := filepath.Join(tree, "DEBIAN", script)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		broken := strings.Replace(string(text), "set -e\n", "set -e\n"+prologue, 1)
		broken = step.ReplaceAllString(broken, "${1}step\n${1}${2}")
		if err := os.WriteFile(name, []byte(broken), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, "breakable.deb")
	machine(t, dir, "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb)
	return inspect(t, deb)
}

// interrupted kills dpkg and the maintainer script before each of their steps, when ours
// is installed and when it is removed: one of the two daemons works afterwards, also
// after a restart, and dpkg comes to an end when it is told again.
func (h host) interrupted(t *testing.T, r *repository, ours release) {
	b := breakable(t, ours)
	content, err := os.ReadFile(b.deb)
	if err != nil {
		t.Fatal(err)
	}
	const there = "/root/breakable.deb"
	if err := h.WriteFile(there, content, 0o644); err != nil {
		t.Fatal(err)
	}
	const dpkg = "dpkg --force-unsafe-io "
	count := func(action string) int {
		h.sh(t, "rm -f /root/step /root/steps; "+dpkg+action+" > /dev/null 2>&1; cat /root/steps")
		n, err := strconv.Atoi(h.run(t, "cat", "/root/steps"))
		if err != nil || n < 3 {
			t.Fatalf("%s has %d steps (%v)", action, n, err)
		}
		return n
	}
	works := func(what string) {
		t.Helper()
		for _, start := range []string{"start", "restart"} {
			h.run(t, "systemctl", start, unit)
			h.serves(t, soon, "of-ours", "by ours\n")
		}
		if sum := h.daemonSum(t); sum != r.ourSum() && sum != r.stockSum("9.2.0") {
			t.Errorf("%s: neither daemon runs", what)
		}
	}
	install, remove := "-i "+there, "--remove "+proxmox
	for range 1 {
		installs, removes := count(install), count(remove)
		t.Logf("%d steps when it is installed, %d when it is removed", installs, removes)
		for n := 1; n <= installs; n++ {
			h.sh(t, fmt.Sprintf("echo %d > /root/step; rm -f /root/steps; ! %s > /dev/null 2>&1", n, dpkg+install))
			works(fmt.Sprintf("interrupted installation, step %d", n))
			h.sh(t, "rm -f /root/step; "+dpkg+install+" > /dev/null 2>&1")
			if sum := h.daemonSum(t); sum != r.ourSum() {
				t.Errorf("installed again after step %d, ours does not run", n)
			}
			if n <= removes {
				h.sh(t, fmt.Sprintf("echo %d > /root/step; rm -f /root/steps; ! %s > /dev/null 2>&1", n, dpkg+remove))
				// Whatever runs goes on; a start comes when dpkg has ended its work.
				h.serves(t, soon, "of-ours", "by ours\n")
			}
			// What a killed dpkg had still to do for other packages, it asks to be told.
			h.sh(t, "rm -f /root/step; "+dpkg+remove+" > /dev/null 2>&1; "+dpkg+"--configure --pending > /dev/null 2>&1")
			h.runs(t, r.stockSum("9.2.0"), "forking", "of-ours", "by ours\n")
			h.isStock(t)
		}
	}
}

// TestProxmoxCluster changes the nodes of a cluster over, one by one, while one of them
// writes.
func TestProxmoxCluster(t *testing.T) {
	long(t)
	t.Parallel()
	ours := built(t, vmlab.Trixie, proxmox)
	part := parts(t)
	var c cluster
	c.lab, c.hosts = boot(t, vmlab.Trixie, vmlab.Trixie, vmlab.Trixie)
	l := c.lab
	r := newRepository(t, ours)
	r.publish(t, "9.1.6", c.hosts...)
	part("StockCluster", func(t *testing.T) {
		for _, h := range c.hosts {
			h.installsProxmox(t, r, "9.1.6")
		}
		c.hosts[0].mustWrite(t, "first", "of the cluster\n")
		if err := l.Cluster(within(t, 2*settles), l.Hosts()...); err != nil {
			t.Fatal(err)
		}
		for _, h := range c.hosts {
			testutil.EventuallyWithin(t, settles, func() error { return h.holds("first", "of the cluster\n") })
		}
	})
	part("NodeByNodeUnderLoad", func(t *testing.T) {
		w := c.hosts[1].load(t)
		w.more(t, 100)
		content, err := os.ReadFile(ours.deb)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range c.hosts {
			if i == 0 { // as the documentation says
				if err := h.WriteFile("/root/"+filepath.Base(ours.deb), content, 0o644); err != nil {
					t.Fatal(err)
				}
				follow(t, "proxmox.md", "Replace the stock daemon on one node", h)
			} else {
				h.install(t, ours)
			}
			h.runs(t, r.ourSum(), "notify", "first", "of the cluster\n")
			w.more(t, 50)
		}
		n := w.stop(t)
		c.agree(t, c.hosts...)
		for _, h := range c.hosts {
			h.complete(t, n)
		}
	})
	part("BackUnderLoad", func(t *testing.T) {
		w := c.hosts[0].load(t)
		w.more(t, 50)
		h := c.hosts[2]
		follow(t, "proxmox.md", "Back to the stock daemon", h)
		h.runs(t, r.stockSum("9.1.6"), "forking", "first", "of the cluster\n")
		w.more(t, 50)
		n := w.stop(t)
		testutil.EventuallyWithin(t, settles, func() error { return h.holds("load/"+strconv.Itoa(n), content(n)) })
		h.complete(t, n)
	})
}
