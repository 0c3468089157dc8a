package packages

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

// Proxmox VE's packages can't be had here. What stands in for them has their names,
// versions, dependencies, triggers and units, and small files of its own under the names
// of those that matter. The stock daemon is this project's program with something behind
// its end, so that the two can be told apart; what that does in the background, as the
// stock unit has it, is all that is asked of it. It keeps no history, as the stock daemon.
const (
	stockUnit = `[Unit]
Description=The Proxmox VE cluster filesystem
ConditionFileIsExecutable=/usr/bin/pmxcfs
Wants=corosync.service
Wants=rrdcached.service
Before=corosync.service
Before=cron.service
After=network.target
After=sys-fs-fuse-connections.mount
After=time-sync.target
After=rrdcached.service
DefaultDependencies=no
Before=shutdown.target
Conflicts=shutdown.target

[Service]
ExecStart=/usr/bin/pmxcfs --history-size 0
KillMode=mixed
Restart=on-failure
TimeoutStopSec=10
Type=forking
PIDFile=/run/pve-cluster.pid

[Install]
WantedBy=multi-user.target
`
	stockPostinst = `#!/bin/sh
set -e
if [ "$1" = configure ]; then
	deb-systemd-helper enable pve-cluster.service > /dev/null
	systemctl --system daemon-reload
	deb-systemd-invoke restart pve-cluster.service
fi
`
	stockPrerm = `#!/bin/sh
set -e
if [ "$1" = remove ]; then deb-systemd-invoke stop pve-cluster.service; fi
`
	stockSysctl = `net.bridge.bridge-nf-call-ip6tables = 0
net.bridge.bridge-nf-call-iptables = 0
net.bridge.bridge-nf-call-arptables = 0
net.bridge.bridge-nf-filter-vlan-tagged = 0
net.ipv4.igmp_link_local_mcast_reports = 0
fs.aio-max-nr = 1048576
`
	clusterPM = `package PVE::Cluster;
use strict;
use warnings;
use PVE::INotify;
use PVE::IPCC;
use PVE::Cluster::IPCConst;
sub version {
	open(my $fh, '<', '/etc/pve/.version') or die "no /etc/pve/.version: $!\n";
	local $/;
	return <$fh>;
}
1;
`
	// What it loads has to be there, as for the real one.
	ipccPM = `package PVE::IPCC;
use strict;
use warnings;
my ($so) = glob('/usr/lib/*/perl5/*/auto/PVE/IPCC/IPCC.so');
die "Can't locate loadable object for module PVE::IPCC\n" if !$so || ! -e $so;
1;
`
	// A service of Proxmox VE's: it loads what all of them load, and uses the tree.
	service = `#!/usr/bin/perl
use strict;
use warnings;
use PVE::Cluster;
$SIG{HUP} = sub { exec($^X, $0) };
PVE::Cluster::version();
while (1) { eval { PVE::Cluster::version() }; sleep 1; }
`
	serviceUnit = `[Unit]
Description=stand-in for %[1]s
ConditionPathExists=/usr/bin/%[1]s
Wants=pve-cluster.service
After=pve-cluster.service

[Service]
ExecStart=/usr/bin/%[1]s
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure

[Install]
WantedBy=multi-user.target
`
	managerPostinst = `#!/bin/sh
set -e
services='pvedaemon pvestatd pveproxy'
case "$1" in
triggered)
	for s in $services; do systemctl reload-or-restart "$s"; done
	;;
configure)
	for s in $services; do deb-systemd-helper enable "$s.service" > /dev/null; done
	systemctl --system daemon-reload
	for s in $services; do deb-systemd-invoke reload-or-restart "$s.service"; done
	;;
esac
`
	managerPrerm = `#!/bin/sh
set -e
if [ "$1" = remove ]; then deb-systemd-invoke stop pvedaemon pvestatd pveproxy; fi
`
	// Proxmox VE's own guard against being removed by an unfortunate installation.
	hookConf = `DPkg::Pre-Install-Pkgs { "/usr/share/proxmox-ve/pve-apt-hook"; };
DPkg::Tools::Options::/usr/share/proxmox-ve/pve-apt-hook "";
DPkg::Tools::Options::/usr/share/proxmox-ve/pve-apt-hook::Version "2";
`
	hook = `#!/usr/bin/perl
use strict;
use warnings;
while (<STDIN>) {
	if (/^proxmox-ve \S+ \S* ?\S* ?> - .*\*\*REMOVE\*\*|^proxmox-ve .*\*\*REMOVE\*\*/) {
		print STDERR "you are about to remove proxmox-ve: refused\n";
		exit(1);
	}
}
exit(0);
`
)

var stockServices = []string{"pvedaemon", "pvestatd", "pveproxy"}

// standIn is one package.
type standIn struct {
	name, version, arch string
	fields              string            // of its control file, beside the usual ones
	files               map[string]string // a name that ends with * is a program
	scripts             map[string]string
}

// standIns are Proxmox VE's packages, at a version of the source package pve-cluster.
func standIns(version string) []standIn {
	units := map[string]string{}
	for _, s := range stockServices {
		units["usr/bin/"+s+"*"] = service
		units["usr/lib/systemd/system/"+s+".service"] = fmt.Sprintf(serviceUnit, s)
	}
	units["usr/sbin/ha-manager*"] = "#!/bin/sh\necho \"$@\" >> /var/log/ha-manager\n"
	return []standIn{
		{"pve-cluster", version, "amd64", "Depends: corosync (>= 2.3.4-1), libpve-common-perl (>= 6.0-7~), perl:any, sqlite3, systemd\n", map[string]string{
			"usr/bin/create_pmxcfs_db*":                                 "#!/bin/sh\nexec /usr/bin/pmxcfs db import \"$@\"\n",
			"usr/lib/systemd/system/pve-cluster.service":                stockUnit,
			"usr/lib/sysctl.d/10-pve.conf":                              stockSysctl,
			"usr/share/man/man8/pmxcfs.8.gz":                            "the stock manual page\n",
			"usr/share/perl5/PVE/Cluster.pm":                            clusterPM,
			"usr/share/perl5/PVE/Cluster/IPCConst.pm":                   "package PVE::Cluster::IPCConst;\n1;\n",
			"usr/share/perl5/PVE/IPCC.pm":                               ipccPM,
			"usr/lib/x86_64-linux-gnu/perl5/5.40/auto/PVE/IPCC/IPCC.so": "a library\n",
			"var/lib/pve-cluster/":                                      "",
			"usr/share/doc/pve-cluster/version-" + version:              "",
		}, map[string]string{"postinst": stockPostinst, "prerm": stockPrerm}},
		{"libpve-common-perl", "9.1.13", "all", "Depends: perl:any\n", map[string]string{"usr/share/perl5/PVE/INotify.pm": "package PVE::INotify;\n1;\n"}, nil},
		{"libpve-cluster-perl", version, "all", "Depends: libpve-common-perl (>= 9.1.13), perl:any\nBreaks: pve-cluster (<= 6.0-7)\nReplaces: pve-cluster (<= 6.0-7)\n",
			map[string]string{"usr/share/perl5/PVE/Corosync.pm": "package PVE::Corosync;\n1;\n"}, nil},
		{"libpve-cluster-api-perl", version, "all", "Depends: libpve-cluster-perl (= " + version + "), libpve-access-control, libpve-common-perl (>= 8.0.6)\n", map[string]string{
			"usr/bin/pvecm*":                              "#!/usr/bin/perl\nuse PVE::Cluster;\nuse PVE::CLI::pvecm;\nprint PVE::Cluster::version();\n",
			"usr/share/man/man1/pvecm.1.gz":               "the stock manual page\n",
			"usr/share/bash-completion/completions/pvecm": "complete -C 'pvecm bashcomplete' pvecm\n",
			"usr/share/zsh/vendor-completions/_pvecm":     "#compdef _pvecm pvecm\n",
			"usr/share/perl5/PVE/CLI/pvecm.pm":            "package PVE::CLI::pvecm;\n1;\n",
			"usr/share/perl5/PVE/API2/ClusterConfig.pm":   "package PVE::API2::ClusterConfig;\n1;\n",
			"usr/share/perl5/PVE/Cluster/Setup.pm":        "package PVE::Cluster::Setup;\n1;\n",
		}, map[string]string{"triggers": "activate-noawait pve-api-updates\n"}},
		{"libpve-access-control", "9.0.4", "all", "Depends: pve-cluster (>= 6.1-4), libpve-cluster-perl\n",
			map[string]string{"usr/share/perl5/PVE/AccessControl.pm": "package PVE::AccessControl;\n1;\n"}, nil},
		{"pve-manager", "9.1.4", "all", "Depends: pve-cluster (>= 9.0.1), libpve-cluster-perl (>= 9.1.5), libpve-cluster-api-perl (>= 7.0-5), libpve-access-control, perl:any\n", units,
			map[string]string{"postinst": managerPostinst, "prerm": managerPrerm, "triggers": "interest-noawait /usr/share/perl5/PVE\ninterest-noawait pve-api-updates\n"}},
		{"proxmox-ve", "9.1.0", "all", "Depends: pve-manager\n", map[string]string{
			"etc/apt/apt.conf.d/10pveapthook":    hookConf,
			"usr/share/proxmox-ve/pve-apt-hook*": hook,
		}, nil},
	}
}

// builds makes the package in the directory, with the program in the place of the
// stock daemon.
func (s standIn) builds(t *testing.T, dir string, program []byte) {
	t.Helper()
	tree := filepath.Join(lab.TempDir(t), s.name)
	write := func(name string, text []byte, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	var sums strings.Builder
	for name, text := range s.files {
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		name, program := strings.CutSuffix(name, "*")
		mode := os.FileMode(0o644)
		if program {
			mode = 0o755
		}
		write(name, []byte(text), mode)
	}
	if s.name == "pve-cluster" {
		write("usr/bin/pmxcfs", append(append([]byte(nil), program...), "stock "+s.version...), 0o755)
	}
	for _, line := range strings.Split(strings.TrimSpace(machine(t, tree, "find", ".", "-type", "f", "-printf", "%P\n")), "\n") {
		sums.WriteString(machine(t, tree, "md5sum", line))
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: test <test@example.com>\nDescription: stand-in\n%s", s.name, s.version, s.arch, s.fields)
	write("DEBIAN/control", []byte(control), 0o644)
	write("DEBIAN/md5sums", []byte(sums.String()), 0o644)
	for name, text := range s.scripts {
		mode := os.FileMode(0o755)
		if name == "triggers" {
			mode = 0o644
		}
		write("DEBIAN/"+name, []byte(text), mode)
	}
	machine(t, dir, "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, dir)
}

// repository is an apt repository on hosts.
type repository struct {
	dir     string // on this machine
	there   string // on hosts: a name of its own, since hosts share what apt knows of repositories
	program []byte // of the stand-in for the stock daemon
}

// newRepository makes one without packages; ours has the program for the stock daemon.
func newRepository(t *testing.T, ours release) *repository {
	t.Helper()
	r := &repository{dir: lab.TempDir(t), there: "/var/lib/stock-of-" + t.Name()}
	tree := lab.TempDir(t)
	machine(t, ".", "dpkg-deb", "--extract", ours.deb, tree)
	program, err := os.ReadFile(filepath.Join(tree, "usr/bin/pmxcfs"))
	if err != nil {
		t.Fatal(err)
	}
	r.program = program
	return r
}

// publish adds the packages of a version, and brings the repository to hosts.
func (r *repository) publish(t *testing.T, version string, hosts ...host) {
	t.Helper()
	for _, s := range standIns(version) {
		s.builds(t, r.dir, r.program)
	}
	index := machine(t, r.dir, "sh", "-c", "dpkg-scanpackages --multiversion . 2>/dev/null")
	if err := os.WriteFile(filepath.Join(r.dir, "Packages"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		r.bring(t, h)
	}
}

// bring copies the repository to a host, and has apt know what is in it.
func (r *repository) bring(t *testing.T, h host) {
	t.Helper()
	files, err := os.ReadDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(r.dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile(r.there+"/"+f.Name(), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const list = "/etc/apt/sources.list.d/stock.list"
	if err := h.WriteFile(list, []byte("deb [trusted=yes] file:"+r.there+" ./\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lock, err := h.HoldApt(within(t, 4*settles))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	// The other lists stay as they are.
	h.run(t, "apt-get", "-q", "-o", "Dir::Etc::sourcelist="+list, "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Get::List-Cleanup=0", "update")
}

// stockSum is the checksum of the stand-in for the stock daemon of a version.
func (r *repository) stockSum(version string) string {
	return fmt.Sprintf("%x", sha256.Sum256(append(append([]byte(nil), r.program...), "stock "+version...)))
}

// ourSum is that of ours.
func (r *repository) ourSum() string { return fmt.Sprintf("%x", sha256.Sum256(r.program)) }

// daemonSum is the checksum of the program that the service's main process runs.
func (h host) daemonSum(t *testing.T) string {
	t.Helper()
	return h.sh(t, "sha256sum < /proc/$(systemctl show -P MainPID "+unit+")/exe | cut -d' ' -f1")
}

// runs waits until the service is the program with this checksum, in this way, and the
// tree holds what it should; and checks that all of Proxmox VE's services are well.
func (h host) runs(t *testing.T, sum, kind, name, text string) {
	t.Helper()
	h.serves(t, soon, name, text)
	if got := h.daemonSum(t); got != sum {
		t.Errorf("%s: the daemon's program is %.12s, not %.12s", h.Name(), got, sum)
	}
	if got := h.property(t, unit, "Type"); got != kind {
		t.Errorf("%s: the unit is of type %s, not %s", h.Name(), got, kind)
	}
	h.manages(t)
}

// manages checks that all of Proxmox VE's services are well.
func (h host) manages(t *testing.T) {
	t.Helper()
	testutil.EventuallyWithin(t, soon, func() error {
		for _, s := range stockServices {
			if out, err := h.Exec(within(t, soon), "systemctl", "is-active", s); err != nil {
				return fmt.Errorf("%s is %s", s, strings.TrimSpace(string(out)))
			}
		}
		return nil
	})
	for _, s := range stockServices {
		if n := h.number(t, s+".service", "NRestarts"); n != 0 {
			t.Errorf("%s: %s was restarted %d times by systemd", h.Name(), s, n)
		}
	}
	h.run(t, "pvecm")
	h.well(t)
}

// installsProxmox makes a fresh host one with Proxmox VE.
func (h host) installsProxmox(t *testing.T, r *repository, version string) {
	t.Helper()
	h.apt(t, "satisfy", "perl:any, sqlite3")
	h.apt(t, "install", "proxmox-ve")
	h.serves(t, soon, ".debug", "0\n")
	h.manages(t)
	if got := h.daemonSum(t); got != r.stockSum(version) {
		t.Fatal("the stand-in for the stock daemon does not run")
	}
}
