// Package tunnel is the far end of what other nodes call over ssh to migrate guests:
// "pvecm mtunnel". Its output is part of a protocol.
package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/datacenter"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
)

const (
	portsFile  = "/var/tmp/pve-reserved-ports"
	portsLock  = "/var/lock/pve-ports.lck"
	firstPort  = 60000
	lastPort   = 60049
	reserved   = 5 * time.Second  // how long a port that was chosen stays listed
	acceptWait = 30 * time.Second // for the one connection
	killAfter  = 30 * time.Second // between asking a command to end and ending it
)

// Options are those of a call.
type Options struct {
	Address bool   // print the address for migrations, and end
	Network string // "ADDRESS/BITS"; empty means datacenter.cfg's
	Run     bool   // run a command with a connection as its input and output
	Command []string

	accept time.Duration // 0 means acceptWait
}

// Serve answers a call. Without quorum every form says just that.
func Serve(ctx context.Context, h *host.Host, o Options) error {
	var network netip.Prefix
	if o.Network != "" {
		var err error
		if network, err = datacenter.ParseNetwork(o.Network); err != nil {
			return plan.Errorf(plan.Parameters, "migration_network: %w", err)
		}
	}
	switch {
	case o.Run && o.Address:
		return plan.Errorf(plan.Parameters, "--run-command and --get_migration_ip exclude each other")
	case o.Run && len(o.Command) == 0:
		return plan.Errorf(plan.Parameters, "--run-command needs a command behind \"--\"")
	case !o.Run && len(o.Command) > 0:
		return plan.Errorf(plan.Parameters, "a command needs --run-command")
	}
	if !h.Quorate() {
		h.Sayf("no quorum")
		return nil
	}
	if !o.Address && !o.Run {
		h.Sayf("tunnel online")
		return untilQuit(h.Stdin)
	}
	if !network.IsValid() {
		text, err := h.ReadFile(host.Mount + "/datacenter.cfg")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if m := datacenter.Parse(text).Migration; m != nil {
			network = m.Network
		}
	}
	if o.Address {
		if !network.IsValid() {
			h.Sayf("no ip")
			return nil
		}
		a, err := Address(h, network)
		if err == nil {
			h.Sayf("ip: '%s'", a)
		}
		return err
	}
	address, err := h.Address()
	if o.Network != "" {
		address, err = Address(h, network)
	}
	if err != nil {
		return err
	}
	return run(ctx, h, address, o)
}

// untilQuit reads until a line is "quit", or the end.
func untilQuit(in io.Reader) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case string(line) == "quit\n" || string(line) == "quit":
			return nil
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull): // a long line is none that matters; skip it
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
		case err != nil:
			return err
		}
	}
}

// Address returns this host's one address in a network, on an interface that is up.
func Address(h *host.Host, network netip.Prefix) (netip.Addr, error) {
	list, err := h.Addresses()
	if err != nil {
		return netip.Addr{}, err
	}
	var found []netip.Addr
	for _, i := range list {
		if a := i.Prefix.Addr(); i.Up && network.Masked().Contains(a) && !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return netip.Addr{}, plan.Fail(plan.Failed, "no-address", "give an interface one, or choose another network", "this host has no address in %s that is up", network)
	}
	return netip.Addr{}, plan.Fail(plan.Failed, "several-addresses", "choose a network that has only one of them", "this host has several addresses in %s: %v", network, found)
}

// run listens, tells where, and runs a command with the first connection.
func run(ctx context.Context, h *host.Host, address netip.Addr, o Options) error {
	l, err := listen(ctx, h, address)
	if err != nil {
		return err
	}
	defer l.Close()
	wait := acceptWait
	if o.accept > 0 {
		wait = o.accept
	}
	if err := l.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	h.Sayf("%s\n%d", address, l.Addr().(*net.TCPAddr).Port)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.AcceptTCP()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return plan.Fail(plan.Timeout, "timeout", "is there a firewall between the nodes?", "nobody connected to %s within %v", l.Addr(), wait)
	}
	l.Close() // for one only
	file, err := conn.File()
	conn.Close()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, o.Command[0], o.Command[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, file, h.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	if err := cmd.Run(); err != nil {
		return plan.Errorf(plan.Failed, "%s: %w", strings.Join(o.Command, " "), err)
	}
	return nil
}

// listen listens on a port of the range that no program has chosen in the last seconds.
// Other programs of Proxmox choose theirs by the same file and lock.
func listen(ctx context.Context, h *host.Host, address netip.Addr) (l *net.TCPListener, err error) {
	err = h.Flock(ctx, portsLock, func() error {
		text, err := h.ReadFile(portsFile)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		now := h.Time()
		ports := freshPorts(text, now)
		for port := firstPort; port <= lastPort; port++ {
			if _, taken := ports[port]; taken {
				continue
			}
			got, lerr := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, uint16(port))))
			if lerr != nil {
				if errors.Is(lerr, syscall.EADDRINUSE) {
					continue
				}
				return lerr
			}
			ports[port] = now.Unix()
			var b strings.Builder
			for _, p := range slices.Sorted(maps.Keys(ports)) {
				fmt.Fprintf(&b, "%d %d\n", p, ports[p])
			}
			if err := h.WriteFile(portsFile, []byte(b.String()), 0o644); err != nil {
				got.Close()
				return err
			}
			l = got
			return nil
		}
		return plan.Errorf(plan.Failed, "no port from %d to %d of %s is free", firstPort, lastPort, address)
	})
	return l, err
}

// freshPorts reads the list of ports that were chosen lately ("PORT SECONDS" a line).
func freshPorts(text []byte, now time.Time) map[int]int64 {
	ports := map[int]int64{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		port, err := strconv.Atoi(f[0])
		at, err2 := strconv.ParseInt(f[1], 10, 64)
		if err != nil || err2 != nil || port < 1 || port > 65535 {
			continue
		}
		if age := now.Sub(time.Unix(at, 0)); age <= reserved && age >= -reserved {
			ports[port] = at
		}
	}
	return ports
}
