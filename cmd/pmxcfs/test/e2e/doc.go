// Package e2e tests the program as its users meet it: the real binary, started
// as a process, with a real mount and a real database file.
//
// The tests run in mount, process and host name spaces of their own, made by
// TestMain. So a test may mount what it likes, and whatever fails, even a test
// binary that is killed, the kernel takes every mount and process away with the
// name spaces. What a test leaves behind although it could have cleaned up is a
// failure nevertheless.
//
// They need root and /dev/fuse. Without those they are skipped, or fail if
// PMXCFS_REQUIRE_LAB=1 is set. Random tests print their seed; -seed runs one
// again, -long runs them for longer.
package e2e
