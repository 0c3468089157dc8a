package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// NodeName returns the host's name up to the first dot, or the one that an
// option gives.
func NodeName(o Options) (string, error) {
	name := o.NodeName
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("finding out the host's name: %w", err)
		}
		name, _, _ = strings.Cut(host, ".")
	}
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return "", fmt.Errorf("%q can't be a node's name: set the host's name, or give --node-name", name)
	}
	return name, nil
}

// NodeAddress returns the first address that is not a loopback one of those
// that the node's name resolves to.
func NodeAddress(o Options, name string) (net.IP, error) {
	if o.Address != "" {
		ip := net.ParseIP(o.Address)
		if ip == nil {
			return nil, fmt.Errorf("--node-address: %q is not an IP address", o.Address)
		}
		return ip, nil
	}
	ips, err := net.LookupIP(name)
	if err != nil {
		return nil, fmt.Errorf("the node's name %q does not resolve to an address: make sure that it stands in /etc/hosts or DNS: %w", name, err)
	}
	for _, ip := range ips {
		if !ip.IsLoopback() {
			return ip, nil
		}
	}
	return nil, fmt.Errorf("the node's name %q resolves to loopback addresses only (%v): make sure that /etc/hosts or DNS has its real address", name, ips)
}

// groupID returns the number of a group.
func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("the group %q must exist: %w", name, err)
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(id), err
}

// lockWait is how long to wait for a daemon that is just ending.
const lockWait = 10 * time.Second

// takeLock takes the lock that keeps a second daemon from using the same
// database. It is held until the file is closed or the process ends. While it is
// held by another process, that calls busy now and then.
func takeLock(path string, busy func()) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock file: %w", err)
	}
	for deadline := time.Now().Add(lockWait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
		case time.Now().After(deadline):
			return nil, errors.Join(fmt.Errorf("%s is locked: another pmxcfs is running on this database", path), f.Close())
		}
		busy()
		time.Sleep(50 * time.Millisecond)
	}
}
