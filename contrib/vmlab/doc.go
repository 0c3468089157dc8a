// Package vmlab boots small Debian hosts, of the releases 13 and 12, each with a systemd of its own as
// first process, to try a package as an administrator uses it: apt-get install,
// systemctl, journalctl, reboots.
//
// The namespaces, the network and its cables are those of contrib/lab: a host
// here is systemd-nspawn inside a host there, so that all of it ends with the
// process that called [Up], however that ended. No machine's systemd is needed
// or used. A host's disk is an overlay in memory over one Debian root that all
// share and nobody changes; it is there again after a reboot or crash, and gone
// after [Lab.Down].
//
// Those roots, the package lists and the packages are kept in a cache
// ([DefaultCache], or what [CacheEnv] names). The root is made by mmdebstrap from
// the machine's own apt sources, once per list of packages; it is checked before
// each use, and made anew when it is damaged or older than a month. Hosts can't
// reach the machine's network; only the downloading part of [Host.Install] uses
// it.
//
// Needs root, cgroup2, overlayfs, /dev/fuse, what contrib/lab needs, and
// systemd-nspawn, nsenter and mmdebstrap: `make deps-package` installs them.
// Command pmxvm (cmd/pmxvm) brings hosts up for work by hand.
package vmlab
