// Package hosts tries pvecm on Debian hosts with systemd, corosync, sshd and the
// package installed, as administrators do: making a cluster, joining it, failing to,
// killing what is under way, power cuts, an external vote. `make test-package` runs it;
// without PMXCFS_TEST_HOSTS=1 its tests are skipped.
//
// Hosts take seconds to boot, so the tests are parts of a story on one set of them, in
// the order in which an administrator would come to them. Each part leaves the hosts as
// the next expects them.
package hosts
