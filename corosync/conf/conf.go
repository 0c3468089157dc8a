package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Conf is what a corosync.conf says.
type Conf struct {
	ClusterName string // totem.cluster_name
	// Version is totem.config_version; 0 if there is none.
	Version uint64
	Nodes   []Node // nodelist, in the file's order
}

// Node is a node of the nodelist.
type Node struct {
	ID        uint32 // 0: none given
	Name      string
	Addresses []string // ring0_addr and so on, in the file's order
}

// ErrVersion means that a file has no config_version, or one that is no number.
var ErrVersion = errors.New("conf: no valid config_version")

// Version gives the config_version of a corosync.conf: the number by which the
// nodes of a cluster tell which of two copies is the newer. The section it
// stands in isn't looked at, so that a file that corosync would refuse has one,
// too; of several lines the last counts, as it does for corosync. 0 is not a
// version: corosync's documentation counts from 1.
func Version(text []byte) (uint64, error) {
	found := false
	var version uint64
	for line := range strings.Lines(string(text)) {
		key, value, ok := keyValue(line)
		if !ok || key != "config_version" {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%w: %.40q", ErrVersion, value)
		}
		found, version = true, n
	}
	if !found {
		return 0, ErrVersion
	}
	return version, nil
}

// Parse reads a corosync.conf. It takes what it knows and passes over what it
// doesn't; nothing is an error, a bad number counts as none.
func Parse(text []byte) Conf {
	var c Conf
	var sections []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasSuffix(line, "{"):
			sections = append(sections, strings.TrimSpace(strings.TrimSuffix(line, "{")))
			if strings.Join(sections, ".") == "nodelist.node" {
				c.Nodes = append(c.Nodes, Node{})
			}
		case line == "}":
			sections = sections[:max(0, len(sections)-1)]
		default:
			if key, value, ok := keyValue(line); ok {
				c.set(strings.Join(sections, "."), key, value)
			}
		}
	}
	return c
}

func (c *Conf) set(section, key, value string) {
	switch section {
	case "totem":
		switch key {
		case "cluster_name":
			c.ClusterName = value
		case "config_version":
			c.Version = number(value, 64)
		}
	case "nodelist.node":
		n := &c.Nodes[len(c.Nodes)-1]
		switch {
		case key == "nodeid":
			n.ID = uint32(number(value, 32))
		case key == "name":
			n.Name = value
		case strings.HasPrefix(key, "ring") && strings.HasSuffix(key, "_addr"):
			n.Addresses = append(n.Addresses, value)
		}
	}
}

// Sample tells whether this is the example that a distribution's corosync
// package installs and not the configuration of any cluster: no config_version,
// and no node that could be reached from elsewhere. A single host that has it
// is not part of a cluster.
func (c Conf) Sample() bool {
	if c.Version != 0 {
		return false
	}
	for _, n := range c.Nodes {
		for _, a := range n.Addresses {
			if ip, err := netip.ParseAddr(a); a != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
				return false
			}
		}
	}
	return true
}

// keyValue takes a line "key: value" apart.
func keyValue(line string) (key, value string, ok bool) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return "", "", false
	}
	key, value, ok = strings.Cut(line, ":")
	return strings.TrimSpace(key), strings.TrimSpace(value), ok
}

// number reads a number of so many bits; 0: it is none.
func number(text string, bits int) uint64 {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return 0
	}
	return n
}
