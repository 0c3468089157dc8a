// Package packages tries the Debian package on Debian hosts with systemd, as
// administrators have it: installing, starting, killing, upgrading under load,
// clusters, removing. `make test-package` builds the package and runs it; without
// PMXCFS_TEST_HOSTS=1 its tests are skipped.
//
// Hosts take seconds to boot and packages to install, so one set of hosts is used
// by all tests, in the order in which an administrator would come to them: one
// host from its first installation to the purge, then three as a cluster. What is
// built under a lower version stands for an older release.
package packages
