package keys

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// keyType matches the types of ssh's public keys. ssh-dsa is a name that stock nodes look for.
var keyType = regexp.MustCompile(`^(ssh-(rsa|dss|dsa|ed25519)|ecdsa-sha2-[a-z0-9]+|sk-[a-z0-9-]+@openssh\.com)$`)

// publicKey returns type and blob of the key in a line of an authorized_keys or key file;
// empty if there is none. Options may come before it, and a comment behind it.
func publicKey(line string) string {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return ""
	}
	fields := strings.Fields(line)
	for i := range len(fields) - 1 {
		if keyType.MatchString(fields[i]) && strings.HasPrefix(fields[i+1], "AAAA") {
			return fields[i] + " " + fields[i+1]
		}
	}
	return ""
}

// textLines returns a text's lines; a last newline ends a line and begins none.
func textLines(text []byte) []string {
	s := strings.TrimSuffix(string(text), "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// joined is the reverse of textLines.
func joined(lines []string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// MergeAuthorizedKeys returns the cluster's authorized_keys with what a host's own file
// (kept as a backup) and its own public key add. Of lines with one key the first stays, and
// so does every line that holds none. Each may be nil.
func MergeAuthorizedKeys(cluster, backup, own []byte) []byte {
	seen := map[string]bool{}
	var lines []string
	for _, text := range [][]byte{cluster, backup, own} {
		for _, line := range textLines(text) {
			if key := publicKey(line); key != "" {
				if seen[key] {
					continue
				}
				seen[key] = true
			}
			lines = append(lines, line)
		}
	}
	return joined(lines)
}

// NodeKnownHosts returns a node's ssh_known_hosts: a line for each of its host keys, the RSA
// key first, since stock nodes know no other. keys are the contents of the host's
// ssh_host_*_key.pub files. It is empty if they hold no key.
func NodeKnownHosts(node string, keys ...[]byte) []byte {
	var lines []string
	for _, text := range keys {
		for _, line := range textLines(text) {
			if key := publicKey(line); key != "" {
				lines = append(lines, node+" "+key)
				break // a file holds one key
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		rsa := func(s string) int {
			if strings.HasPrefix(s, node+" ssh-rsa ") {
				return 0
			}
			return 1
		}
		return rsa(a) - rsa(b)
	})
	lines = slices.Compact(lines)
	return []byte(strings.Join(lines, "\n"))
}

// MergeKnownHosts returns the cluster's common known_hosts, which the stock tool keeps for
// nodes that still link to it, with a node's name and address. system is the host's own
// file; hostKey is the node's RSA key ("ssh-rsa AAAA…"). Comments go; of a name's RSA lines the
// first stays.
func MergeKnownHosts(cluster, system []byte, node, address, hostKey string) []byte {
	node, address = strings.ToLower(node), strings.ToLower(address)
	var lines []string
	names := map[string]bool{}
	known := map[string]bool{} // of the node's two names
	add := func(line string, rsaOnly bool) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			return
		}
		if len(f) < 3 || f[1] != "ssh-rsa" {
			if !rsaOnly {
				lines = append(lines, line)
			}
			return
		}
		same, mine := f[1]+" "+f[2] == hostKey, false
		for _, own := range []string{node, address} {
			switch {
			case isHashOf(f[0], own):
				if !same { // nobody could tell whose it is
					return
				}
				mine = !known[own]
				known[own] = true
			case strings.EqualFold(f[0], own) && same:
				mine = !known[own]
				known[own] = true
			}
		}
		if names[f[0]] && !mine {
			return
		}
		names[f[0]] = true
		lines = append(lines, line)
	}
	for _, line := range textLines(cluster) {
		add(line, false)
	}
	for _, line := range textLines(system) {
		add(line, true)
	}
	for _, own := range []string{node, address} {
		if !known[own] {
			lines = append(lines, own+" "+hostKey)
		}
	}
	return joined(lines)
}

// isHashOf tells whether a hashed entry of a known_hosts file ("|1|SALT|HMAC") stands for a
// name.
func isHashOf(entry, name string) bool {
	rest, ok := strings.CutPrefix(entry, "|1|")
	salt, sum, ok2 := strings.Cut(rest, "|")
	if !ok || !ok2 {
		return false
	}
	s, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		return false
	}
	want, err := base64.StdEncoding.DecodeString(sum)
	if err != nil {
		return false
	}
	h := hmac.New(sha1.New, s)
	h.Write([]byte(name))
	return hmac.Equal(h.Sum(nil), want)
}

// RemoveKeys returns an authorized_keys file without the lines that hold one of the keys
// in the other texts, and how many went.
func RemoveKeys(file []byte, keys ...[]byte) ([]byte, int) {
	gone := map[string]bool{}
	for _, text := range keys {
		for _, line := range textLines(text) {
			if key := publicKey(line); key != "" {
				gone[key] = true
			}
		}
	}
	var lines []string
	n := 0
	for _, line := range textLines(file) {
		if key := publicKey(line); key != "" && gone[key] {
			n++
			continue
		}
		lines = append(lines, line)
	}
	return joined(lines), n
}

// KeysOf returns the lines of an authorized_keys file whose comment is "root@NODE".
func KeysOf(file []byte, node string) []byte {
	var lines []string
	for _, line := range textLines(file) {
		key := publicKey(line)
		if key == "" {
			continue
		}
		comment := line[strings.Index(line, strings.Fields(key)[1])+len(strings.Fields(key)[1]):]
		if strings.TrimSpace(comment) == "root@"+node {
			lines = append(lines, line)
		}
	}
	return joined(lines)
}

// RootMayLogIn tells, by what "sshd -T" prints, whether root may log in with a key.
func RootMayLogIn(sshd []byte) bool {
	root, key := false, true
	for line := range bytes.Lines(sshd) {
		f := strings.Fields(strings.ToLower(string(line)))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "permitrootlogin":
			root = f[1] == "yes" || f[1] == "prohibit-password" || f[1] == "without-password"
		case "pubkeyauthentication":
			key = f[1] == "yes"
		}
	}
	return root && key
}
