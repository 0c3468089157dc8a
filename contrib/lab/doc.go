// Package lab sets up a cluster of test hosts on one machine, each with a
// corosync of its own, and takes it down again without a trace.
//
// A host "node1" … "nodeN" is a network, UTS, mount and PID namespace. Its
// eth0 (10.99.0.I) is a veth into a bridge; the bridge, too, lives in a
// namespace, so nothing of the machine's network is touched and labs can run
// side by side. /etc, /var/lib, /var/log, /run, /dev/shm and /proc are the
// host's own: a daemon runs there with the paths it has built in, and finds
// /etc/corosync, /etc/hosts, /etc/pve, /var/lib/pve-cluster and the like.
// /tmp, /usr and the rest are the machine's.
//
// A host's first process ends when the process that called [Up] does, however
// that ended; with it the kernel ends every other process of the host and drops
// its mounts and interfaces. What then may be left is a directory, which the
// switch's process removes; if that was killed as well, the next Up does.
//
// Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), overlayfs, and the programs
// corosync, ip and bash. systemd is not needed.
package lab
