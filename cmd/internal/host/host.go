// Package host is this host as pvecm sees it: its files, the mount, processes, locks,
// names and addresses. Everything can be answered by a test: paths lie below Root, and
// what asks the kernel, a resolver or a program can be replaced.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pmxcfs/cmd/internal/plan"
)

// Files of the host and of the mount.
const (
	Mount        = "/etc/pve"
	ClusterConf  = Mount + "/corosync.conf"
	CorosyncDir  = "/etc/corosync"
	CorosyncConf = CorosyncDir + "/corosync.conf"
	AuthKey      = CorosyncDir + "/authkey"
	Database     = "/var/lib/pve-cluster/config.db"
)

// Host is a host. Its fields are set before its methods are called.
type Host struct {
	// Root is put before every path; empty means none.
	Root string
	Name string // the node's

	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// The following are for tests. Nil means the kernel, the resolver, the clock.
	Exec       func(ctx context.Context, c Command) error
	Interfaces func() ([]Interface, error)
	Lookup     func(name string) []netip.Addr
	Writable   func() bool // whether the mount is: quorum
	Now        func() time.Time
}

// New returns this host.
func New() (*Host, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	name, _, _ = strings.Cut(name, ".")
	return &Host{Name: name, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, nil
}

// Path is where a path of the host is.
func (h *Host) Path(path string) string {
	if h.Root == "" {
		return path
	}
	return filepath.Join(h.Root, path)
}

// Time is the time of the clock.
func (h *Host) Time() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// Sayf writes a line of progress.
func (h *Host) Sayf(format string, args ...any) { fmt.Fprintf(h.Stdout, format+"\n", args...) }

// Warnf writes a warning.
func (h *Host) Warnf(format string, args ...any) {
	fmt.Fprintf(h.Stderr, "warning: "+format+"\n", args...)
}

// Exists tells whether there is a file, without following a link.
func (h *Host) Exists(path string) bool {
	_, err := os.Lstat(h.Path(path))
	return err == nil
}

// ReadFile reads a file.
func (h *Host) ReadFile(path string) ([]byte, error) { return os.ReadFile(h.Path(path)) }

// Mounted says what is wrong if the cluster's file system isn't there.
func (h *Host) Mounted() error {
	info, err := os.Lstat(h.Path(Mount + "/local"))
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return plan.Fail(plan.Refused, "not-mounted", "start it: systemctl start pve-cluster", "the cluster file system is not mounted at %s", h.Path(Mount))
}

// Quorate tells whether the mount may be written to. In local mode it always may.
func (h *Host) Quorate() bool {
	if h.Writable != nil {
		return h.Writable()
	}
	info, err := os.Lstat(h.Path(Mount + "/local"))
	return err == nil && info.Mode().Perm()&0o200 != 0
}

// NeedQuorum is an error without quorum.
func (h *Host) NeedQuorum() error {
	if h.Quorate() {
		return nil
	}
	return plan.Fail(plan.NotQuorate, "no-quorum", "start the missing nodes; \"pvecm status\" shows which", "the cluster has no quorum")
}

// Members is the cluster as the daemon knows it.
type Members struct {
	Node    string `json:"nodename"`
	Cluster *struct {
		Name    string `json:"name"`
		Version int    `json:"version"`
		Nodes   int    `json:"nodes"`
		Quorate int    `json:"quorate"`
	} `json:"cluster"`
	Nodes map[string]Member `json:"nodelist"`
}

// Member is a node of the cluster.
type Member struct {
	ID     int    `json:"id"`
	Online int    `json:"online"`
	IP     string `json:"ip"`
}

// Members asks the daemon.
func (h *Host) Members() (m Members, err error) {
	err = h.readJSON(Mount+"/.members", &m)
	return m, err
}

// Guest is a virtual machine or container.
type Guest struct {
	Node string `json:"node"`
	Type string `json:"type"`
}

// Guests asks the daemon for the guest list, by VMID.
func (h *Host) Guests() (map[string]Guest, error) {
	var list struct {
		IDs map[string]Guest `json:"ids"`
	}
	err := h.readJSON(Mount+"/.vmlist", &list)
	return list.IDs, err
}

func (h *Host) readJSON(path string, into any) error {
	text, err := h.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", h.Path(path), err)
	}
	return nil
}

// Resolve returns a name's addresses; an address stands for itself.
func (h *Host) Resolve(name string) []netip.Addr {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}
	}
	if h.Lookup != nil {
		return h.Lookup(name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	for i := range list {
		list[i] = list[i].Unmap()
	}
	return list
}

// Address is this node's address: the member list's, else the first that its name
// resolves to and that is no loopback address.
func (h *Host) Address() (netip.Addr, error) {
	if m, err := h.Members(); err == nil {
		if a, err := netip.ParseAddr(m.Nodes[h.Name].IP); err == nil && !a.IsLoopback() {
			return a, nil
		}
	}
	for _, a := range h.Resolve(h.Name) {
		if !a.IsLoopback() {
			return a, nil
		}
	}
	return netip.Addr{}, plan.Fail(plan.Refused, "no-address", "give it one in /etc/hosts", "this host's name, %s, has no address but loopback ones", h.Name)
}

// Interface is an address of a network interface.
type Interface struct {
	Name   string
	Prefix netip.Prefix // of point-to-point links the local end
	Up     bool
}

// Addresses are the addresses of all network interfaces.
func (h *Host) Addresses() ([]Interface, error) {
	if h.Interfaces != nil {
		return h.Interfaces()
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []Interface
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			if !ok {
				continue
			}
			bits, _ := n.Mask.Size()
			list = append(list, Interface{Name: i.Name, Prefix: netip.PrefixFrom(ip.Unmap(), bits), Up: i.Flags&net.FlagUp != 0})
		}
	}
	return list, nil
}

// HasAddress tells whether an interface that is up has an address.
func (h *Host) HasAddress(a netip.Addr) (bool, error) {
	list, err := h.Addresses()
	for _, i := range list {
		if i.Up && i.Prefix.Addr() == a.Unmap() {
			return true, nil
		}
	}
	return false, err
}

// WriteFile writes a file of the host: as a whole or not at all, also if the power
// fails. Missing directories are an error.
func (h *Host) WriteFile(path string, data []byte, mode fs.FileMode) error {
	return h.write(path, data, mode, true)
}

// WriteTree writes a file in the mount, which has its own ideas of modes and is
// durable by itself.
func (h *Host) WriteTree(path string, data []byte) error { return h.write(path, data, 0o600, false) }

func (h *Host) write(path string, data []byte, mode fs.FileMode, durable bool) (err error) {
	at := h.Path(path)
	temp := fmt.Sprintf("%s.tmp.%d", at, os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Chmod(mode) // the umask has no say
	}
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temp, at); err != nil {
		return err
	}
	if durable {
		return SyncDir(filepath.Dir(at))
	}
	return nil
}

// SyncDir makes what was renamed in a directory durable. The path is not below Root.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Mkdir makes a directory and those above it, if they aren't there.
func (h *Host) Mkdir(path string, mode fs.FileMode) error {
	return os.MkdirAll(h.Path(path), mode)
}
