package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/vmlab"
)

// The packages under test.
const (
	plain   = "pve-cluster" // for hosts without Proxmox VE
	proxmox = "pmxcfs"      // for those with it
	command = "pvecm"       // for those, too
)

// boot brings up hosts, each of one of these releases, which have what our packages depend
// on: that apt brings it along is what TestInstallationByTheBook is for.
func boot(t *testing.T, suites ...string) (*vmlab.Lab, []host) {
	t.Helper()
	l := vmlab.NewWith(t, vmlab.Options{Suites: suites, Packages: vmlab.Dependencies})
	var hosts []host
	for _, h := range l.Hosts() {
		h := host{h}
		hosts = append(hosts, h)
		// They are for external votes, of which nothing here is.
		h.run(t, "systemctl", "--quiet", "disable", "--now", "corosync-qdevice", "corosync-qnetd")
		h.run(t, "systemctl", "reset-failed")
	}
	return l, hosts
}

// release is one build of a package.
type release struct {
	pkg     string
	deb     string // its file
	version string
}

// long leaves a test out of `make test-package-short`.
func long(t *testing.T) {
	t.Helper()
	vmlab.Require(t)
	if testing.Short() {
		t.Skip("part of `make test-package` only")
	}
}

// parts runs the parts of a test, each of which leaves the hosts as the next one
// expects them.
func parts(t *testing.T) (part func(name string, f func(t *testing.T))) {
	return func(name string, f func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
}

// TestPlainHost goes the whole way of one host.
func TestPlainHost(t *testing.T) {
	vmlab.Require(t)
	t.Parallel()
	current := built(t, vmlab.Trixie, plain)
	// The same version as built for the release before, which a host has after its own
	// upgrade.
	old := built(t, vmlab.Bookworm, plain)
	lower(t, old, current)
	part := parts(t)
	_, hosts := boot(t, vmlab.Trixie)
	h := hosts[0]
	clean := h.snapshot(t)
	part("FreshInstallIsASingleNode", func(t *testing.T) { h.installsFresh(t, current) })
	t.Run("UnitIsSound", h.unitIsSound)
	part("SettingOfTheKernelIsTheAdministrators", func(t *testing.T) { h.setsKernel(t, current) })
	part("StopStartRestart", h.stopsAndStarts)
	part("KilledDaemonIsBack", h.comesBackAfterKill)
	part("KilledServiceLeavesNoDeadMount", h.leavesNoDeadMount)
	part("KillallTakesTheDaemonAlone", h.separates)
	part("StoppedDaemonIsReplaced", h.comesBackAfterStandingStill)
	t.Run("JournalHasFieldsAndCatalog", h.journals)
	part("KeysAndCertificatesAreKept", h.keepsCertificates)
	part("RebootBringsItUpBeforeCorosync", h.reboots)
	part("ReleaseOfDebian12AndUpgradeUnderLoad", func(t *testing.T) { h.changesReleases(t, old, current) })
	part("RemoveAndReinstall", func(t *testing.T) { h.removes(t, current) })
	part("RootsKeysOutliveThePackage", func(t *testing.T) { h.keepsKeys(t, current) })
	part("PurgeLeavesNothing", func(t *testing.T) { h.purges(t, current, clean) })
	part("RRDFilesArePurgedBesideRRDCached", func(t *testing.T) { h.purgesSamples(t, current) })
}

// TestPlainHostOfDebian12 goes the way of one host of the release before.
func TestPlainHostOfDebian12(t *testing.T) {
	long(t)
	t.Parallel()
	current := built(t, vmlab.Bookworm, plain)
	old := repacked(t, current, current.version+"~older")
	part := parts(t)
	_, hosts := boot(t, vmlab.Bookworm)
	h := hosts[0]
	clean := h.snapshot(t)
	part("FreshInstallIsASingleNode", func(t *testing.T) { h.installsFresh(t, current) })
	t.Run("UnitIsSound", h.unitIsSound)
	part("StopStartRestart", h.stopsAndStarts)
	part("KilledDaemonIsBack", h.comesBackAfterKill)
	part("KilledServiceLeavesNoDeadMount", h.leavesNoDeadMount)
	part("RebootBringsItUpBeforeCorosync", h.reboots)
	part("DowngradeAndUpgradeUnderLoad", func(t *testing.T) { h.changesReleases(t, old, current) })
	part("RemoveAndReinstall", func(t *testing.T) { h.removes(t, current) })
	part("PurgeLeavesNothing", func(t *testing.T) { h.purges(t, current, clean) })
}

// TestClusterOfTwoReleases has one host of Debian 12 among two of 13.
func TestClusterOfTwoReleases(t *testing.T) {
	long(t)
	t.Parallel()
	suites := []string{vmlab.Trixie, vmlab.Trixie, vmlab.Bookworm}
	old, current := map[string]release{}, map[string]release{}
	for _, s := range suites {
		current[s] = built(t, s, plain)
		old[s] = repacked(t, current[s], current[s].version+"~older")
	}
	part := parts(t)
	var c cluster
	c.lab, c.hosts = boot(t, suites...)
	part("ThreeHostsBecomeACluster", func(t *testing.T) { c.forms(t, old) })
	part("RollingUpgradeUnderLoad", func(t *testing.T) { c.upgrades(t, current) })
	part("CutHostIsReadOnlyAndCatchesUp", c.partitions)
	part("RebootedAndCrashedHostsCatchUp", c.loses)
	part("Disasters", func(t *testing.T) { c.recovers(t, current) })
}

// built finds a package that `make debs` made.
func built(t *testing.T, suite, pkg string) release {
	t.Helper()
	pattern := "../../../../dist/" + suite + "/" + pkg + "_*.deb"
	debs, err := filepath.Glob(pattern)
	if err != nil || len(debs) != 1 {
		t.Fatalf("%s gives %d packages, not the one of `make debs`: %v (%v)", pattern, len(debs), debs, err)
	}
	r := inspect(t, debs[0])
	if r.pkg != pkg {
		t.Fatalf("%s is a package %s", r.deb, r.pkg)
	}
	if want := map[string]string{vmlab.Trixie: "~deb13", vmlab.Bookworm: "~deb12"}[suite]; !strings.HasSuffix(r.version, want) {
		t.Fatalf("%s has version %s, which does not end with %s", r.deb, r.version, want)
	}
	return r
}

var versionLine = regexp.MustCompile(`(?m)^Version: .*$`)

// repacked gives the same package under a lower version: as an older one.
func repacked(t *testing.T, r release, version string) release {
	t.Helper()
	dir := lab.TempDir(t)
	tree := filepath.Join(dir, "tree")
	machine(t, dir, "dpkg-deb", "--raw-extract", must(filepath.Abs(r.deb))(t), tree)
	control := filepath.Join(tree, "DEBIAN/control")
	text, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(control, versionLine.ReplaceAll(text, []byte("Version: "+version)), 0o644); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(dir, fmt.Sprintf("%s_%s.deb", r.pkg, strings.ReplaceAll(version, ":", "%")))
	machine(t, dir, "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb)
	old := inspect(t, deb)
	lower(t, old, r)
	return old
}

// machine runs a command on this machine.
func machine(t *testing.T, dir string, argv ...string) string {
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

// lower checks that one version is older than the other for dpkg.
func lower(t *testing.T, old, newer release) {
	t.Helper()
	if err := exec.Command("dpkg", "--compare-versions", old.version, "lt", newer.version).Run(); err != nil {
		t.Fatalf("%s is not lower than %s: %v", old.version, newer.version, err)
	}
}

func inspect(t *testing.T, deb string) release {
	t.Helper()
	field := func(name string) string { return strings.TrimSpace(machine(t, ".", "dpkg-deb", "--field", deb, name)) }
	return release{pkg: field("Package"), deb: deb, version: field("Version")}
}
