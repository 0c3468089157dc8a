package conf

import (
	"errors"
	"fmt"
	"maps"
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
	ID        uint32 // 0 means none given
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

// SyntaxError tells where a file stops being a corosync.conf.
type SyntaxError struct {
	Line int // from 1
	Text string
	Kind string // for Read, which of its kinds; empty for Parse
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Parse reads a corosync.conf. Unknown keys and sections are passed over, and a bad
// number counts as none. The error is a *SyntaxError: corosync refuses to start with
// such a file. The Conf then holds what precedes the mistake, which is no reason to
// believe that the file says nothing else.
func Parse(text []byte) (Conf, error) {
	var c Conf
	err := scan(text, func(section string) {
		if section == "nodelist.node" {
			c.Nodes = append(c.Nodes, Node{})
		}
	}, c.set)
	return c, err
}

// scan goes through a file by corosync's rules: a line opens a section, closes one, or
// is a key and its value. It calls begin for each section and set for each value, with
// the names of the sections around it joined by dots.
func scan(text []byte, begin func(section string), set func(section, key, value string)) error {
	var open []string
	n := 0
	bad := func(text string) error { return &SyntaxError{Line: n, Text: text} }
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		switch name, rest, opens := strings.Cut(line, "{"); {
		case line == "" || line[0] == '#':
		case opens && rest != "":
			return bad("text after an opening brace")
		case opens && strings.TrimSpace(name) == "":
			return bad("a section without a name")
		case opens:
			open = append(open, strings.TrimSpace(name))
			begin(strings.Join(open, "."))
		case strings.Contains(line, ":"):
			key, value, _ := keyValue(line)
			set(strings.Join(open, "."), key, value)
		case line != "}":
			return bad(fmt.Sprintf("neither a section nor a key with a value: %.40q", line))
		case len(open) == 0:
			return bad("a closing brace without a section")
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return bad(fmt.Sprintf("the section %q is not closed", strings.Join(open, ".")))
	}
	return nil
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

// Example tells whether a file is the example that Debian's corosync package installs,
// which is the configuration of no cluster. A file is that only if it has all that
// makes the example up and nothing else that counts: comments and the settings of
// logging, which differ between releases, are not looked at. A file that can't be
// parsed, that is empty or in which something is missing is no example.
func Example(text []byte) bool {
	settings := map[string]string{}
	more := false
	err := scan(text, func(section string) {
		top, _, _ := strings.Cut(section, ".")
		if top == "logging" {
			return
		}
		_, twice := settings[section+" {"]
		more = more || twice
		settings[section+" {"] = ""
	}, func(section, key, value string) {
		top, _, _ := strings.Cut(section, ".")
		if top == "logging" {
			return
		}
		_, twice := settings[section+"."+key]
		more = more || twice
		settings[section+"."+key] = value
	})
	return err == nil && !more && maps.Equal(settings, debianExample)
}

// debianExample is the example's content, but for logging.
var debianExample = map[string]string{
	"totem {":                  "",
	"totem.version":            "2",
	"totem.cluster_name":       "debian",
	"totem.crypto_cipher":      "none",
	"totem.crypto_hash":        "none",
	"quorum {":                 "",
	"quorum.provider":          "corosync_votequorum",
	"nodelist {":               "",
	"nodelist.node {":          "",
	"nodelist.node.name":       "node1",
	"nodelist.node.nodeid":     "1",
	"nodelist.node.ring0_addr": "127.0.0.1",
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

// number reads a number of so many bits; 0 means it is none.
func number(text string, bits int) uint64 {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return 0
	}
	return n
}
