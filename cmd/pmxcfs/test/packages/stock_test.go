package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The stock package can't be had here. What stands in for it has its version without
// an epoch, a unit as it had one (a daemon that forks, a pid file, no watchdog), the
// same program, and a library beside it that wants exactly this version.
const (
	stockVersion = "9.1.4"
	stockLibrary = "libpve-cluster-standin"
)

const stockUnit = `[Unit]
Description=stand-in for the stock daemon
Before=corosync.service

[Service]
ExecStart=/usr/bin/pmxcfs
KillMode=mixed
Restart=on-failure
TimeoutStopSec=10
Type=forking
PIDFile=/run/pve-cluster.pid

[Install]
WantedBy=multi-user.target
`

const stockPostinst = `#!/bin/sh
set -e
deb-systemd-helper enable pve-cluster.service > /dev/null
systemctl --system daemon-reload
deb-systemd-invoke restart pve-cluster.service
`

const stockPrerm = `#!/bin/sh
set -e
if [ "$1" = remove ]; then deb-systemd-invoke stop pve-cluster.service; fi
`

const stockPostrm = `#!/bin/sh
set -e
if [ "$1" = purge ]; then deb-systemd-helper purge pve-cluster.service > /dev/null; fi
`

// buildsStock makes a package repository of the two, and returns its directory.
func buildsStock(t *testing.T, r release) string {
	t.Helper()
	dir := t.TempDir()
	machine := func(argv ...string) string {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v: %s", argv, err, &stderr)
		}
		return string(out)
	}
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	deb, err := filepath.Abs(r.deb)
	if err != nil {
		t.Fatal(err)
	}
	machine("dpkg-deb", "--extract", deb, "all")
	machine("install", "-D", "all/usr/bin/pmxcfs", "stock/usr/bin/pmxcfs")
	write("stock/lib/systemd/system/"+unit, stockUnit, 0o644)
	control := func(name, depends string) string {
		return "Package: " + name + "\nVersion: " + stockVersion + "\nArchitecture: " + strings.TrimSpace(machine("dpkg", "--print-architecture")) +
			"\nMaintainer: test <test@example.com>\nDescription: stand-in\nDepends: " + depends + "\n"
	}
	write("stock/DEBIAN/control", control(pkg, r.depends), 0o644)
	write("stock/DEBIAN/postinst", stockPostinst, 0o755)
	write("stock/DEBIAN/prerm", stockPrerm, 0o755)
	write("stock/DEBIAN/postrm", stockPostrm, 0o755)
	write("library/DEBIAN/control", control(stockLibrary, pkg+" (= "+stockVersion+")"), 0o644)
	if err := os.Mkdir(filepath.Join(dir, "repository"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stock", "library"} {
		machine("dpkg-deb", "--root-owner-group", "-Znone", "--build", name, "repository")
	}
	write("repository/Packages", machine("sh", "-c", "cd repository && dpkg-scanpackages --multiversion . 2>/dev/null"), 0o644)
	return filepath.Join(dir, "repository")
}

// changesFromStock goes from the stock package to ours and back, with the stock one
// on offer all the time.
func (h host) changesFromStock(t *testing.T, r release) {
	const there = "/var/lib/stock-repository"
	const list = "/etc/apt/sources.list.d/stock.list"
	repository := buildsStock(t, r)
	files, err := os.ReadDir(repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(repository, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile(there+"/"+f.Name(), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.WriteFile(list, []byte("deb [trusted=yes] file:"+there+" ./\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.apt(t, "-o", "Dir::Etc::sourcelist="+list, "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Get::List-Cleanup=0", "update")

	is := func(version, kind string) {
		t.Helper()
		if got := h.run(t, "dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", pkg); got != version+" installed" {
			t.Errorf("installed is %s, not %s", got, version)
		}
		if got := h.property(t, unit, "Type"); got != kind {
			t.Errorf("with %s, the unit is of type %s", version, got)
		}
		if got := h.run(t, "dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", stockLibrary); got != stockVersion+" installed" {
			t.Errorf("with %s, the library is %s", version, got)
		}
		if got := h.run(t, "systemctl", "is-enabled", unit); got != "enabled" {
			t.Errorf("with %s, the unit is %s", version, got)
		}
		h.well(t)
	}
	h.apt(t, "install", stockLibrary) // which brings the other along
	h.serves(t, soon, ".debug", "0\n")
	is(stockVersion, "forking")
	h.mustWrite(t, "of-stock", "by the stock package\n")
	pid := h.property(t, unit, "MainPID")

	h.install(t, r)
	h.serves(t, soon, "of-stock", "by the stock package\n")
	is(r.version, "notify")
	if h.property(t, unit, "MainPID") == pid {
		t.Error("the stock daemon runs on")
	}
	h.mustWrite(t, "of-ours", "by ours\n")
	// The stock package is on offer.
	if policy := h.run(t, "apt-cache", "policy", pkg); !strings.Contains(policy, " "+stockVersion+" ") {
		t.Errorf("apt knows of no stock package:\n%s", policy)
	}
	changes := regexp.MustCompile(`(?m)^(Inst|Remv) (` + pkg + `|` + stockLibrary + `) .*$`)
	for _, command := range []string{"upgrade", "dist-upgrade"} {
		if would := changes.FindAllString(h.run(t, "apt-get", "--simulate", command), -1); len(would) > 0 {
			t.Errorf("apt %s would do this: %q", command, would)
		}
	}

	h.apt(t, "install", "--allow-downgrades", pkg+"="+stockVersion)
	h.serves(t, soon, "of-stock", "by the stock package\n")
	if err := h.holds("of-ours", "by ours\n"); err != nil {
		t.Error(err)
	}
	is(stockVersion, "forking")
	h.run(t, "systemctl", "stop", unit)
	h.gone(t)
	if flags := strings.Fields(h.run(t, "lsattr", "-d", mount))[0]; strings.Contains(flags, "i") {
		t.Errorf("%s stays immutable: %s", mount, flags)
	}

	// Nothing of this is for those that follow.
	h.apt(t, "purge", stockLibrary, pkg)
	h.run(t, "rm", "-rf", list, there, "/var/lib/pve-cluster", "/run/pve-cluster", mount)
}
