package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Link is an address on one of a cluster's links.
type Link struct {
	Address  string
	Priority string // 0 to 255; empty means none given
}

// String writes a link as an option's value.
func (l Link) String() string {
	if l.Priority == "" {
		return l.Address
	}
	return l.Address + ",priority=" + l.Priority
}

// ParseLink reads [address=]ADDRESS[,priority=0…255].
func ParseLink(text string) (Link, error) {
	var l Link
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		key, value, found := strings.Cut(part, "=")
		if !found {
			key, value = "address", part
		}
		if seen[key] {
			return Link{}, fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		switch key {
		case "address":
			if err := ValidAddress(value); err != nil {
				return Link{}, err
			}
			l.Address = value
		case "priority":
			if n, err := strconv.ParseInt(value, 10, 32); err != nil || n < 0 || n > 255 {
				return Link{}, fmt.Errorf("priority is no number from 0 to 255: %q", value)
			}
			l.Priority = value
		default:
			return Link{}, fmt.Errorf("%q is unknown: a link is [address=]ADDRESS[,priority=0…255]", key)
		}
	}
	if l.Address == "" {
		return Link{}, errors.New("the address is missing")
	}
	return l, nil
}

// label tells whether s is letters, digits and inner hyphens.
func label(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// ValidNode says what is wrong with a node's name.
func ValidNode(name string) error {
	if !label(name) || len(name) > 63 {
		return fmt.Errorf("%q is no node's name: it is 1 to 63 letters, digits and inner hyphens", name)
	}
	return nil
}

// ValidCluster says what is wrong with a cluster's name.
func ValidCluster(name string) error {
	if !label(name) || len(name) > 15 {
		return fmt.Errorf("%q is no cluster's name: it is 1 to 15 letters, digits and inner hyphens", name)
	}
	return nil
}

// ValidIP says what is wrong with an IP address.
func ValidIP(text string) error {
	if a, err := netip.ParseAddr(text); err != nil || a.Zone() != "" {
		return fmt.Errorf("%q is no IP address", text)
	}
	return nil
}

// ValidAddress says what is wrong with an IP address or DNS name.
func ValidAddress(text string) error {
	if ValidIP(text) == nil {
		return nil
	}
	for part := range strings.SplitSeq(text, ".") {
		if !label(part) {
			return fmt.Errorf("%q is neither an IP address nor a DNS name", text)
		}
	}
	return nil
}

// ValidCIDR reads a network, whose host bits may be set.
func ValidCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Bits() < 8 || p.Addr().Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no network: it is ADDRESS/BITS with 8 bits or more", text)
	}
	return p, nil
}

// ValidFingerprint says what is wrong with the SHA-256 of a certificate.
func ValidFingerprint(text string) error {
	pairs := strings.Split(text, ":")
	ok := len(pairs) == 32
	for _, p := range pairs {
		ok = ok && len(p) == 2 && strings.Trim(p, "0123456789abcdefABCDEF") == ""
	}
	if !ok {
		return fmt.Errorf("%q is no SHA-256 fingerprint: it is 32 pairs of hexadecimal digits with colons between", text)
	}
	return nil
}
