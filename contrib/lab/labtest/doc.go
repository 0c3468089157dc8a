// Package labtest runs the real program as the nodes of a cluster for tests: one
// daemon with its default paths on each host of a contrib/lab, beside a real
// corosync. It starts, stops and kills daemons, waits for what a user would see
// below /etc/pve, makes requests of the service from a host, and compares the
// databases that are left.
//
// A test program that uses it calls [Main] from its TestMain, which builds the
// program under test. Then
//
//	c := labtest.New(t, 3) // three nodes that have found each other
//	c.Node(1).Write("a", "text")
//	c.Everywhere("a", "text")
//
// or, with options per node, before anything has been started:
//
//	c := labtest.Hosts(t, lab.New(t, 3))
//	c.Node(2).Flags = []string{"--rrd-dir", "/run/rrd"}
//	c.Start()
//
// At the end of the test what still runs is killed, and each daemon's log must be
// free of panics and data races. Where there can be no lab the test is skipped, or
// fails if PMXCFS_REQUIRE_LAB=1 is set.
//
// Methods end the test when they fail, so they belong on the test's goroutine.
package labtest
