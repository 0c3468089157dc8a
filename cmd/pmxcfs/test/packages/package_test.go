package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pmxcfs/contrib/vmlab"
)

// pkg is the package under test.
const pkg = "pve-cluster"

// release is one build of the package.
type release struct {
	deb     string // its file
	version string
	depends string
}

// TestPackage has the parts on hosts that they share. Each leaves its host as the
// next one expects it.
func TestPackage(t *testing.T) {
	vmlab.Require(t)
	current := built(t)
	old := older(t, current)
	t.Logf("%s, and as an older one %s", current.version, old.version)
	l := vmlab.New(t, vmlab.Trixie, vmlab.Trixie, vmlab.Trixie)
	part := func(name string, f func(t *testing.T)) {
		t.Helper()
		// What follows builds on it.
		if !t.Run(name, f) {
			t.FailNow()
		}
	}

	h := host{l.Host(1)}
	h.apt(t, "satisfy", current.depends)
	clean := h.snapshot(t)
	part("FreshInstallIsASingleNode", func(t *testing.T) { h.installsFresh(t, current) })
	t.Run("UnitIsSound", h.unitIsSound)
	part("SettingOfTheKernelIsTheAdministrators", func(t *testing.T) { h.setsKernel(t, current) })
	part("StopStartRestart", h.stopsAndStarts)
	part("KilledDaemonIsBack", h.comesBackAfterKill)
	part("KilledServiceLeavesNoDeadMount", h.leavesNoDeadMount)
	part("StoppedDaemonIsReplaced", h.comesBackAfterStandingStill)
	t.Run("JournalHasFieldsAndCatalog", h.journals)
	part("RebootBringsItUpBeforeCorosync", h.reboots)
	part("DowngradeAndUpgradeUnderLoad", func(t *testing.T) { h.changesReleases(t, old, current) })
	part("RemoveAndReinstall", func(t *testing.T) { h.removes(t, current) })
	part("PurgeLeavesNothing", func(t *testing.T) { h.purges(t, current, clean) })
	part("RRDFilesArePurgedBesideRRDCached", func(t *testing.T) { h.purgesSamples(t, current) })
	part("StockPackageAndBack", func(t *testing.T) { h.changesFromStock(t, current) })

	c := cluster{l, []host{h, {l.Host(2)}, {l.Host(3)}}}
	part("ThreeHostsBecomeACluster", func(t *testing.T) { c.forms(t, old) })
	part("RollingUpgradeUnderLoad", func(t *testing.T) { c.upgrades(t, current) })
	part("CutHostIsReadOnlyAndCatchesUp", c.partitions)
	part("RebootedAndCrashedHostsCatchUp", c.loses)

}

// built finds the package that `make deb` made.
func built(t *testing.T) release {
	t.Helper()
	debs, err := filepath.Glob("../../../../dist/" + pkg + "_*.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("dist/ holds %d packages, not the one of `make deb`: %v (%v)", len(debs), debs, err)
	}
	return inspect(t, debs[0])
}

// olderEnv names a package to take for the older release.
const olderEnv = "PMXCFS_TEST_OLDER_DEB"

// older builds the same files under a version that is lower than newer's, unless
// there is an older release to try.
func older(t *testing.T, newer release) release {
	t.Helper()
	if deb := os.Getenv(olderEnv); deb != "" {
		return lower(t, deb, newer)
	}
	dir := t.TempDir()
	out, err := exec.Command("../../../../debian/make-deb", "-v", newer.version+"~older", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("building an older version: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, pkg+"_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("building an older version gave %v (%v)", debs, err)
	}
	return lower(t, debs[0], newer)
}

// lower inspects a package that has to be older than newer.
func lower(t *testing.T, deb string, newer release) release {
	t.Helper()
	r := inspect(t, deb)
	if err := exec.Command("dpkg", "--compare-versions", r.version, "lt", newer.version).Run(); err != nil {
		t.Fatalf("%s is not lower than %s: %v", r.version, newer.version, err)
	}
	return r
}

func inspect(t *testing.T, deb string) release {
	t.Helper()
	field := func(name string) string {
		cmd := exec.Command("dpkg-deb", "--field", deb, name)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", deb, err)
		}
		return strings.TrimSpace(string(out))
	}
	if name := field("Package"); name != pkg {
		t.Fatalf("%s is a package %s", deb, name)
	}
	return release{deb: deb, version: field("Version"), depends: field("Depends")}
}
