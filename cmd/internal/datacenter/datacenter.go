// Package datacenter reads datacenter.cfg, of which the cluster manager uses the network for
// migrations and the range of new guests' ids.
package datacenter

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Config is the content of a datacenter.cfg. A value that breaks its format is reported in
// Warnings and has no effect, but printing keeps it.
type Config struct {
	Description string // the comment lines, each with its newline
	Migration   *Migration
	Replication *Migration
	NextID      NextID
	Warnings    []string

	values map[string]string // of valid lines, by key
	kept   []string          // lines that were not understood
}

// Migration says how guests move between nodes.
type Migration struct {
	Secure  bool
	Network netip.Prefix // not valid means none; host bits may be set
}

// NextID is the range from which new guests' ids are proposed.
type NextID struct {
	Lower int // the first one
	Upper int // behind the last one
}

// The range without a setting.
const (
	DefaultLower = 100
	DefaultUpper = 1000000
)

// known are the keys of datacenter.cfg; those with a function are checked here, and their
// value may change by it.
var known = map[string]func(c *Config, value string) (string, error){
	"migration":          func(c *Config, v string) (string, error) { return setMigration(&c.Migration, v) },
	"replication":        func(c *Config, v string) (string, error) { return setMigration(&c.Replication, v) },
	"next-id":            setNextID,
	"migration_unsecure": setUnsecure,
	"mac_prefix":         setMACPrefix,
	"console": func(_ *Config, v string) (string, error) {
		if v == "applet" { // which browsers can't show any more
			v = "html5"
		}
		return v, nil
	},
	"bwlimit": nil, "consent-text": nil, "crs": nil, "description": nil, "email_from": nil, "fencing": nil, "ha": nil,
	"http_proxy": nil, "keyboard": nil, "language": nil, "location": nil, "max_workers": nil, "notify": nil,
	"registered-tags": nil, "tag-style": nil, "u2f": nil, "user-tag-access": nil, "webauthn": nil,
}

var (
	line      = regexp.MustCompile(`^\s*([A-Za-z][A-Za-z0-9_-]*)\s*:\s*(\S.*?)?\s*$`)
	macPrefix = regexp.MustCompile(`^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){1,4}:?$`)
)

// defaultMACPrefix is not printed.
const defaultMACPrefix = "BC:24:11"

// Parse reads a datacenter.cfg. An absent file is an empty one.
func Parse(text []byte) *Config {
	c := &Config{NextID: NextID{DefaultLower, DefaultUpper}, values: map[string]string{}}
	for l := range strings.Lines(string(text)) {
		l = strings.TrimRight(l, "\r\n")
		if comment, ok := strings.CutPrefix(l, "#"); ok {
			c.Description += comment + "\n"
			continue
		}
		if strings.TrimSpace(l) == "" {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			c.reject(l, "it is not of the form \"key: value\"")
			continue
		}
		key, value := m[1], m[2]
		set, ok := known[key]
		switch {
		case !ok:
			c.reject(l, "the key is unknown")
			continue
		case value == "":
			c.reject(l, "the value is missing")
			continue
		}
		if set != nil {
			v, err := set(c, value)
			if err != nil {
				c.reject(l, err.Error())
				continue
			}
			value = v
		}
		c.values[key] = value
	}
	if old, ok := c.values["migration_unsecure"]; ok {
		if c.Migration == nil {
			c.Migration = &Migration{Secure: old == "0"}
			c.values["migration"] = c.Migration.String()
		} else {
			c.Warnings = append(c.Warnings, "migration_unsecure has no effect beside migration")
		}
	}
	return c
}

func (c *Config) reject(l, why string) {
	c.kept = append(c.kept, l)
	c.Warnings = append(c.Warnings, fmt.Sprintf("line %q has no effect: %s", l, why))
}

// Print returns the file's text: the description, an empty line, the keys in order, and
// then what was not understood.
func (c *Config) Print() ([]byte, error) {
	if c.NextID.Lower > c.NextID.Upper {
		return nil, fmt.Errorf("next-id: lower (%d) is above upper (%d)", c.NextID.Lower, c.NextID.Upper)
	}
	var b strings.Builder
	for l := range strings.Lines(c.Description) {
		b.WriteString("#" + l)
	}
	b.WriteByte('\n')
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if value := c.values[key]; key != "mac_prefix" || !strings.EqualFold(value, defaultMACPrefix) {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	for _, l := range c.kept {
		b.WriteString(l + "\n")
	}
	return []byte(b.String()), nil
}

// properties reads a list "key=value,…". A part without a key is that of the default key, if
// there is one.
func properties(text, standard string) (map[string]string, error) {
	p := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			if standard == "" {
				return nil, fmt.Errorf("%q has no key", part)
			}
			key, value = standard, part
		}
		if _, twice := p[key]; twice {
			return nil, fmt.Errorf("%s is there twice", key)
		}
		p[key] = value
	}
	return p, nil
}

func setMigration(into **Migration, text string) (string, error) {
	p, err := properties(text, "type")
	if err != nil {
		return "", err
	}
	m := &Migration{}
	for key, value := range p {
		switch key {
		case "type":
			if value != "secure" && value != "insecure" {
				return "", fmt.Errorf("the type is secure or insecure, not %q", value)
			}
			m.Secure = value == "secure"
		case "network":
			if m.Network, err = ParseNetwork(value); err != nil {
				return "", err
			}
		default:
			return "", fmt.Errorf("unknown key %q", key)
		}
	}
	if p["type"] == "" {
		return "", fmt.Errorf("the type (secure or insecure) is missing")
	}
	*into = m
	return m.String(), nil
}

// String returns the property's text.
func (m *Migration) String() string {
	text := "insecure"
	if m.Secure {
		text = "secure"
	}
	if m.Network.IsValid() {
		text += ",network=" + m.Network.String()
	}
	return text
}

// ParseNetwork reads a network as "ADDRESS/BITS": 8 to 32 bits of IPv4, 8 to 128 of IPv6. Host
// bits may be set.
func ParseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Bits() < 8 || p.Addr().Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no network such as 10.0.0.0/24 (of 8 bits at least)", text)
	}
	return p, nil
}

func setUnsecure(_ *Config, text string) (string, error) {
	switch strings.ToLower(text) {
	case "1", "on", "yes", "true":
		return "1", nil
	case "0", "off", "no", "false":
		return "0", nil
	}
	return "", fmt.Errorf("%q is neither 0 nor 1", text)
}

func setMACPrefix(_ *Config, text string) (string, error) {
	if !macPrefix.MatchString(text) {
		return "", fmt.Errorf("%q is no beginning of a single host's MAC address", text)
	}
	return text, nil
}

func setNextID(c *Config, text string) (string, error) {
	p, err := properties(text, "")
	if err != nil {
		return "", err
	}
	r := NextID{DefaultLower, DefaultUpper}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(p)) {
		n, err := strconv.Atoi(p[key])
		if err != nil || n < 0 {
			return "", fmt.Errorf("%s: %q is no number", key, p[key])
		}
		switch key {
		case "lower":
			r.Lower = n
		case "upper":
			r.Upper = n
		default:
			return "", fmt.Errorf("unknown key %q", key)
		}
		out = append(out, key+"="+p[key])
	}
	c.NextID = r
	return strings.Join(out, ","), nil
}

// Free returns the lowest id of the range that no guest has.
func (r NextID) Free(used func(id int) bool) (int, error) {
	if r.Lower >= r.Upper {
		return 0, fmt.Errorf("the range from %d to %d (exclusive) holds no id", r.Lower, r.Upper)
	}
	for id := max(r.Lower, DefaultLower); id < r.Upper; id++ {
		if !used(id) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no id from %d to %d is free", r.Lower, r.Upper-1)
}
