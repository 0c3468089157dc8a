package conf

import (
	"net/netip"
	"strconv"
	"strings"
)

// maxLink is the highest link number.
const maxLink = 7

// Lookup resolves a name; no address: it doesn't resolve.
type Lookup func(name string) []netip.Addr

// Check finds what Proxmox VE's tools refuse, and what they warn of.
func (f *File) Check(lookup Lookup) (errors, warnings []Finding) {
	nodes := f.Nodes()
	if len(nodes) == 0 {
		errors = append(errors, Finding{Kind: KindNoNodes})
	}
	if !f.Has("totem") {
		errors = append(errors, Finding{Kind: KindNoTotem})
	}
	if len(errors) > 0 {
		return errors, nil
	}
	return f.checkLinks(nodes), f.warnings(nodes, lookup)
}

func (f *File) checkLinks(nodes []*Section) (errors []Finding) {
	interfaces := map[string]bool{}
	for _, i := range f.Interfaces() {
		interfaces[interfaceKey(i)] = true
	}
	for n := range maxLink + 1 {
		link := strconv.Itoa(n)
		used := false
		for _, node := range nodes {
			if key, _ := LinkAddress(node, n); key != "" {
				used = true
			}
		}
		for _, node := range nodes {
			key, _ := LinkAddress(node, n)
			finding := Finding{Node: nodeKey(node), Link: link}
			switch {
			case key != "" && len(interfaces) > 0 && !interfaces[link]:
				finding.Kind, finding.Key = KindLinkWithoutInterface, key
			case key == "" && interfaces[link]:
				finding.Kind = KindInterfaceWithoutLink
			case key == "" && len(interfaces) == 0 && used:
				finding.Kind = KindLinkMissing
			default:
				continue
			}
			errors = append(errors, finding)
		}
	}
	return errors
}

func (f *File) warnings(nodes []*Section, lookup Lookup) (list []Finding) {
	totem := f.Section("totem")
	if cipher := totem.Get("crypto_cipher"); totem.Get("secauth") != "on" && (cipher == "" || cipher == "none") {
		list = append(list, Finding{Kind: KindNoAuth})
	}
	for _, node := range nodes {
		for _, key := range addressKeys(node) {
			value := node.Get(key)
			if _, err := netip.ParseAddr(value); err == nil {
				continue
			}
			finding := Finding{Kind: KindUnresolvable, Node: nodeKey(node), Key: key, Value: value}
			if a := f.Resolve(value, lookup); a.IsValid() {
				finding.Kind, finding.Address = KindNameNotAddress, a.String()
			}
			list = append(list, finding)
		}
	}
	return list
}

// Problems finds what no change may add to a configuration, by the text alone:
// defects, links that don't fit together, and what corosync itself doesn't see.
func (f *File) Problems() []Finding {
	list := f.Defects()
	nodes := f.Nodes()
	if len(nodes) == 0 {
		list = append(list, Finding{Kind: KindNoNodes})
	}
	if !f.Has("totem") {
		return append(list, Finding{Kind: KindNoTotem})
	}
	list = append(list, f.checkLinks(nodes)...)
	if _, err := f.ConfigVersion(); err != nil {
		list = append(list, Finding{Kind: KindBadVersion, Value: f.Section("totem").Get("config_version")})
	}
	if f.Section("quorum").Get("provider") == "" {
		list = append(list, Finding{Kind: KindNoProvider})
	}
	ids, addresses, names := map[string]string{}, map[string]string{}, map[string]string{}
	families := map[int]bool{} // whether a link has IPv6 addresses
	for _, node := range nodes {
		name := nodeKey(node)
		if node.Get("name") == "" {
			list = append(list, Finding{Kind: KindNoName, Value: node.Get("ring0_addr"), Line: node.line})
		}
		lower := strings.ToLower(name)
		if other, taken := names[lower]; taken {
			list = append(list, Finding{Kind: KindSimilarName, Node: other, Other: name, Line: node.line})
		}
		names[lower] = name
		id := node.Get("nodeid")
		if n := number(id, 32); n == 0 {
			list = append(list, Finding{Kind: KindBadID, Node: name, Value: id, Line: node.line})
		} else if other, taken := ids[id]; taken {
			list = append(list, Finding{Kind: KindDoubledID, Node: other, Other: name, Value: id, Line: node.line})
		}
		ids[id] = name
		for n := range maxLink + 1 {
			_, value := LinkAddress(node, n)
			if value == "" {
				continue
			}
			a, err := netip.ParseAddr(value)
			same := value
			if err == nil {
				same = a.Unmap().String()
			}
			if other, taken := addresses[same]; taken {
				list = append(list, Finding{Kind: KindDoubledAddress, Node: other, Other: name, Value: value, Line: node.line})
			}
			addresses[same] = name
			if err != nil {
				continue
			}
			six := a.Is6() && !a.Is4In6()
			if was, seen := families[n]; seen && was != six {
				list = append(list, Finding{Kind: KindMixedFamilies, Node: name, Link: strconv.Itoa(n), Value: value, Line: node.line})
			} else {
				families[n] = six
			}
		}
	}
	return list
}

// LinkAddress returns a node's address on a link, and the key it stands under;
// empty means it has none.
func LinkAddress(node *Section, link int) (key, address string) {
	n := strconv.Itoa(link)
	for _, key := range []string{"ring" + n + "_addr", "link" + n + "_addr"} {
		if address, ok := node.Lookup(key); ok {
			return key, address
		}
	}
	return "", ""
}

// Links are the numbers of the links that a node has an address on.
func Links(node *Section) (list []int) {
	for n := range maxLink + 1 {
		if key, _ := LinkAddress(node, n); key != "" {
			list = append(list, n)
		}
	}
	return list
}

// addressKeys are the keys of a node that hold addresses, sorted.
func addressKeys(node *Section) (list []string) {
	for _, key := range node.Keys() {
		middle, found := strings.CutSuffix(key, "_addr")
		if !found {
			continue
		}
		n, found := strings.CutPrefix(middle, "ring")
		if !found {
			n, found = strings.CutPrefix(middle, "link")
		}
		if found && n != "" && strings.Trim(n, "0123456789") == "" {
			list = append(list, key)
		}
	}
	return list
}

// Resolve resolves an address as corosync does: an IP stands for itself; of a
// name's addresses the first of each family count, and totem.ip_version chooses.
// The zero Addr: there is none.
func (f *File) Resolve(value string, lookup Lookup) netip.Addr {
	if a, err := netip.ParseAddr(value); err == nil {
		return a
	}
	var four, six netip.Addr
	for _, a := range lookup(value) {
		if a = a.Unmap(); a.Is4() && !four.IsValid() {
			four = a
		} else if a.Is6() && !six.IsValid() {
			six = a
		}
	}
	version := f.Section("totem").Get("ip_version")
	switch {
	case version == "ipv4", version == "ipv4-6" && four.IsValid():
		return four
	case version == "ipv6", version != "ipv4-6" && six.IsValid():
		return six
	case four.IsValid():
		return four
	}
	return six
}

// Address is an address of a node as corosync sees it.
type Address struct {
	Node, Key string
	IP        netip.Addr
}

// Addresses are the addresses of all nodes that resolve: nodes by name, keys by
// name.
func (f *File) Addresses(lookup Lookup) (list []Address) {
	for _, node := range f.Nodes() {
		for _, key := range addressKeys(node) {
			if a := f.Resolve(node.Get(key), lookup); a.IsValid() {
				list = append(list, Address{Node: nodeKey(node), Key: key, IP: a})
			}
		}
	}
	return list
}
