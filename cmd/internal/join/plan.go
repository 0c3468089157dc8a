package join

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

const (
	clockWarn = 5 * time.Second
	clockStop = 60 * time.Second
	// corosyncPort is link 0's; link N has the one N further on.
	corosyncPort = 5405
	// echoTime is how long the answer to a ping is waited for, and probeRefusal how long a
	// refusal by a host that answers pings. probeTime is longer than the kernel looks for a
	// neighbour.
	echoTime     = time.Second
	probeRefusal = 300 * time.Millisecond
	probeTime    = 3500 * time.Millisecond
	// echoHeader is the length of a ping's own header.
	echoHeader = 8
)

// checkHost finds what on this host speaks against a join.
func checkHost(h *host.Host, r *plan.Report, request Request) {
	if dir, err := os.Getwd(); err == nil && (dir == h.Path(host.Mount) || strings.HasPrefix(dir, h.Path(host.Mount)+"/")) {
		r.Stop("in-mount", "change to another directory first", "the current directory, %s, is in the mount, which goes away during the join", dir)
	}
	if h.Exists(host.AuthKey) {
		r.Refuse("authkey", "if it is left from a cluster that is gone, remove it", "%s is there already", host.AuthKey)
	}
	if h.Exists(host.ClusterConf) {
		r.Refuse("cluster-exists", "a node can be in one cluster only", "this host is in a cluster already: %s exists", host.ClusterConf)
	} else {
		cluster.CheckLeftovers(h, r)
	}
	guests, err := h.Guests()
	if err != nil {
		r.Warn("guests", "", "the guest list can't be read: %v", err)
	}
	if len(guests) > 0 {
		ids := slices.Sorted(maps.Keys(guests))
		if len(ids) > 5 {
			ids = append(ids[:5], "…")
		}
		r.Refuse("guests", "move or remove them, since their ids may be taken in the cluster; with force their configurations go to the backup", "this host has %d guests (%s)", len(guests), strings.Join(ids, ", "))
	}
	if text, err := h.ReadFile(host.Mount + "/ha/resources.cfg"); err == nil && strings.TrimSpace(string(text)) != "" {
		r.Refuse("ha", "remove them: pvesh get /cluster/ha/resources", "this host has HA resources")
	}
	address, err := h.Address()
	if err != nil {
		r.Stop("no-address", "give it one in /etc/hosts", "%v", err)
	} else if has, err := h.HasAddress(address); err == nil && !has {
		r.Refuse("link-address", "mend /etc/hosts", "no interface of this host that is up has its own address, %s", address)
	}
	for _, n := range slices.Sorted(maps.Keys(request.Links)) {
		cluster.CheckLocalLink(h, r, n, request.Links[n].Address)
	}
}

// checkFacts judges what a peer tells. now is when it told.
func checkFacts(h *host.Host, r *plan.Report, f *Facts, request Request, now time.Time) {
	if !f.Time.IsZero() {
		difference := f.Time.Sub(now).Abs()
		// HTTP's and date's times are whole seconds.
		switch {
		case difference > clockStop:
			r.Refuse("clock", "set them right: timedatectl, chronyc", "the clocks of both hosts are %s apart", difference.Round(time.Second))
		case difference > clockWarn:
			r.Warn("clock", "set them right", "the clocks of both hosts are %s apart", difference.Round(time.Second))
		}
	}
	if !f.Quorate {
		r.Add(plan.Problem{Kind: "peer-no-quorum", Text: "the cluster has no quorum", Remedy: "start its missing nodes first", Code: plan.NotQuorate, Hard: true})
	}
	if f.Device && !request.Device {
		r.Refuse(conf.KindQDevice, "--with-qdevice sets it up again afterwards; over an API, take it away first (pvecm qdevice remove)", "the cluster has an external vote, whose algorithm depends on the number of nodes")
	}
	if len(f.Members) == 0 {
		return
	}
	if !f.own && len(f.Members) == 1 {
		r.Warn("peer-quorum", "if it does: pvecm expected 1, and pvecm delnode "+request.Name+" there", "the cluster has one node, which is without quorum if this join doesn't succeed")
	}
	links := f.links()
	for _, m := range f.Members {
		switch {
		case m.Name == request.Name && request.Force:
		case m.Name == request.Name && sameMember(m, request) && !m.Online:
		case m.Name == request.Name && f.own:
			// The peer knows whether it is the same node once more.
		case m.Name == request.Name:
			r.Refuse("node-exists", "with --force it is entered anew, if it is the same node", "the cluster has a node %s already", m.Name)
		case strings.EqualFold(m.Name, request.Name):
			r.Stop("node-exists", "rename this host", "the name %s differs from that of node %s in upper and lower case only", request.Name, m.Name)
		case m.ID == request.ID && request.ID != 0:
			r.Stop("id-taken", "leave out --nodeid", "node id %d belongs to node %s", request.ID, m.Name)
		}
		for _, n := range slices.Sorted(maps.Keys(m.Addresses)) {
			if m.Name == request.Name {
				continue
			}
			for _, own := range request.addresses() {
				if own == m.Addresses[n] {
					r.Stop("duplicate-address", "", "address %s belongs to node %s already", own, m.Name)
				}
			}
		}
	}
	switch {
	case len(request.Links) == 0 && len(links) > 1:
		r.Stop("one-address-many-links", "give --link0 and so on", "the cluster has links %s, and needs an address of this host for each", text(links))
	case len(request.Links) > 0:
		for _, n := range links {
			if _, given := request.Links[n]; !given {
				r.Stop("link-missing", "", "the cluster has link %d: give --link%d", n, n)
			}
		}
		for _, n := range slices.Sorted(maps.Keys(request.Links)) {
			if !slices.Contains(links, n) {
				r.Stop("link-unknown", "", "the cluster has no link %d: leave out --link%d", n, n)
			}
		}
	}
	if text, err := h.ReadFile(host.Mount + "/storage.cfg"); err == nil && f.own {
		for _, s := range storages(string(text)) {
			if !slices.Contains(f.Storages, s) && s != "local" {
				r.Warn("storage", "note its definition down", "storage %s is defined on this host only: its definition goes to the backup", s)
			}
		}
	}
}

// CorosyncVersion finds the version in what "corosync -v" writes; empty: there is none.
func CorosyncVersion(text string) string {
	_, rest, _ := strings.Cut(text, "version '")
	version, _, found := strings.Cut(rest, "'")
	if !found {
		return ""
	}
	return version
}

// checkVersions compares what runs here with what runs on the peer.
func checkVersions(r *plan.Report, f *Facts, o Options) {
	for _, v := range []struct{ what, here, there string }{{"pvecm", o.Version, f.Version}, {"corosync", o.Corosync, f.Corosync}} {
		here, there := major(v.here), major(v.there)
		if here == "" || there == "" || here == there || v.what == "pvecm" && !f.own {
			continue
		}
		r.Warn("versions", "update the older one first", "%s is of version %s here and of version %s on %s: nodes of one cluster should have the same", v.what, v.here, v.there, o.Peer)
	}
}

// major is a version's first number; empty: it has none.
func major(version string) string {
	number, _, _ := strings.Cut(version, ".")
	if _, err := strconv.ParseUint(number, 10, 32); err != nil {
		return ""
	}
	return number
}

// addresses are those a node asks for.
func (r Request) addresses() (list []string) {
	for _, n := range slices.Sorted(maps.Keys(r.Links)) {
		list = append(list, r.Links[n].Address)
	}
	if len(list) == 0 && r.Fallback != "" {
		list = append(list, r.Fallback)
	}
	return list
}

// sameMember tells whether a request is that of a node that is entered already.
func sameMember(m Member, r Request) bool {
	if r.ID != 0 && r.ID != m.ID {
		return false
	}
	has := slices.Sorted(maps.Values(m.Addresses))
	wants := slices.Sorted(slices.Values(r.addresses()))
	return slices.Equal(has, wants)
}

// links are the numbers of the cluster's links.
func (f *Facts) links() []int {
	set := map[int]bool{}
	for _, m := range f.Members {
		for n := range m.Addresses {
			set[n] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func text(list []int) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ", ")
}

// checkWays tries to reach every member on every link, at once.
func checkWays(ctx context.Context, h *host.Host, r *plan.Report, f *Facts, request Request) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	var found []plan.Problem
	for _, m := range f.Members {
		if m.Name == request.Name || f.own && !m.Online {
			continue
		}
		for n, address := range m.Addresses {
			own := request.Fallback
			if l, given := request.Links[n]; given {
				own = l.Address
			}
			wait.Go(func() {
				p := probeMember(ctx, h, m.Name, n, own, address, len(f.Members) == 1)
				if p != nil {
					mu.Lock()
					found = append(found, *p)
					mu.Unlock()
				}
			})
		}
	}
	wait.Wait()
	slices.SortFunc(found, func(a, b plan.Problem) int { return strings.Compare(a.Text, b.Text) })
	for _, p := range found {
		r.Add(p)
	}
}

// probeMember tries to reach a member's corosync; nil: nothing speaks against it.
func probeMember(ctx context.Context, h *host.Host, name string, link int, own, address string, alone bool) *plan.Problem {
	to, from := first(h.Resolve(address)), first(h.Resolve(own))
	if !to.IsValid() {
		return &plan.Problem{Kind: "unreachable-member", Warning: true, Text: fmt.Sprintf("node %s on link %d: %s does not resolve here", name, link, address)}
	}
	if from.IsValid() && from.Is4() != to.Is4() {
		return &plan.Problem{Kind: "mixed-families", Hard: true, Text: fmt.Sprintf("link %d: %s of this host and %s of node %s are IPv4 and IPv6, which one link can't have both", link, from, to, name)}
	}
	port := corosyncPort + link
	refused := plan.Problem{Kind: "unreachable-member", Remedy: fmt.Sprintf("each node must reach each other on UDP port %d", port)}
	pinged := echo(from, to, 0)
	wait := probeRefusal
	if pinged != nil {
		wait = probeTime
	}
	err := sendProbe(ctx, from, to, port, wait)
	if alone && errors.Is(err, syscall.ECONNREFUSED) {
		err = nil // corosync opens its port when there is another node
	}
	if err != nil {
		refused.Text = fmt.Sprintf("node %s can't be reached on link %d (%s): %v", name, link, to, err)
		return &refused
	}
	if pinged != nil {
		refused.Text = fmt.Sprintf("node %s does not answer a ping on link %d (%s): %v", name, link, to, pinged)
		refused.Warning = true
		return &refused
	}
	if mtu := mtuOf(from); mtu > 0 {
		if err := echo(from, to, mtu); err != nil {
			return &plan.Problem{
				Kind: "mtu", Warning: true, Remedy: "give all interfaces and switches of the link the same MTU",
				Text: fmt.Sprintf("node %s on link %d (%s): packets of %d bytes, which is this host's MTU there, don't get through as a whole: %v", name, link, to, mtu, err),
			}
		}
	}
	return nil
}

// mtuOf is the size of the largest packet that the interface with an address sends; 0: it
// can't be told.
func mtuOf(a netip.Addr) int {
	interfaces, err := net.Interfaces()
	if err != nil || !a.IsValid() {
		return 0
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, n := range addrs {
			if n, ok := n.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
				return i.MTU
			}
		}
	}
	return 0
}

func first(list []netip.Addr) netip.Addr {
	for _, a := range list {
		if !a.IsLoopback() {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// sendProbe sends a packet to a port, which corosync drops without an answer. An error
// comes if the host isn't there or rejects it.
func sendProbe(ctx context.Context, from, to netip.Addr, port int, wait time.Duration) error {
	d := net.Dialer{}
	if from.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(to, uint16(port)).String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("pvecm")); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	_, err = c.Read(make([]byte, 64))
	if timeout, ok := err.(net.Error); err == nil || ok && timeout.Timeout() {
		return nil
	}
	return err
}

// echo pings a host with a packet of a size, which no router may divide; 0: a small one.
func echo(from, to netip.Addr, size int) error {
	network, protocol, local, header := "ip4:icmp", 1, "0.0.0.0", 20
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	level, option, whole := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if to.Is6() {
		network, protocol, local, header = "ip6:ipv6-icmp", 58, "::", 40
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
		level, option, whole = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	if from.IsValid() {
		local = from.String()
	}
	listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, whole) }); e != nil {
			return e
		}
		return err
	}}
	c, err := listen.ListenPacket(context.Background(), network, local)
	if err != nil {
		return err
	}
	defer c.Close()
	data := []byte("pvecm")
	if n := size - header - echoHeader; n > len(data) {
		data = append(data, make([]byte, n-len(data))...)
	}
	id := os.Getpid() & 0xffff
	message := icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: size & 0xffff, Data: data}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	target := &net.IPAddr{IP: to.AsSlice()}
	if _, err := c.WriteTo(packet, target); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(echoTime))
	buffer := make([]byte, 1<<16)
	for {
		n, peer, err := c.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("nothing came within %s", echoTime)
		}
		m, err := icmp.ParseMessage(protocol, buffer[:n])
		if body, ok := mEcho(m, err); ok && m.Type == reply && body.ID == id && body.Seq == size&0xffff && peer.String() == target.String() {
			return nil
		}
	}
}

func mEcho(m *icmp.Message, err error) (*icmp.Echo, bool) {
	if err != nil || m == nil {
		return nil, false
	}
	e, ok := m.Body.(*icmp.Echo)
	return e, ok
}
