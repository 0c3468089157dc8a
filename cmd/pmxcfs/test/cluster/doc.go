// Package cluster tests the program as the nodes of a cluster: the real
// binary on several hosts, with its default paths, beside a real corosync on
// each. The hosts are contrib/lab's.
//
// What a test looks at is what a user would: files below /etc/pve of each host
// and their modes, errors of system calls, the host's corosync.conf, and at the
// end the databases, which must be the same row for row.
//
// Many tests have one cluster for parts that leave it as it was, so that the cost of
// starting one is paid once. The parts of the one about locks are also the syncs that
// the locks must outlive, and use the time that these need to grow old.
//
// Where there can be no lab the tests are skipped, or fail if
// PMXCFS_REQUIRE_LAB=1 is set.
package cluster
