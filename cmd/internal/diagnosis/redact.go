package diagnosis

import (
	"bytes"
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// leftOut stands for what a report leaves out.
const leftOut = "(left out)"

// secretText are patterns of what may be secret in texts that people or programs
// have written, and what is put in its place. They rather take too much.
var secretText = []struct {
	what func() *regexp.Regexp
	by   string
}{
	{lazy(`(?s)-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|\z)`), leftOut},
	{lazy(`(?i)\bauthorization\s*[:=]\s*[^\r\n"]+`), "Authorization: " + leftOut},
	{lazy(`\bPVE[A-Za-z]*:[^\s"':]+:[0-9A-Fa-f]{6,}[^\s"']*`), leftOut},
	{lazy(`[\w.+-]+@[\w.-]+![\w.-]+=[^\s"']+`), leftOut},
	{lazy(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), leftOut},
	{lazy(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"'@]+@`), "${1}" + leftOut + "@"},
	{lazy(`\b(ssh-[a-z0-9]+|ecdsa-[a-z0-9-]+)\s+\S+`), "$1 " + leftOut},
	{lazy(`\$[0-9a-z]{1,8}\$[^\s:"']+`), leftOut},
	{lazy(`(?i)([\w-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|encryption[_-]?key|credentials?|cookie|ticket|csrf\w*|authkey|psk|sshkeys?|keyring)[\w-]*["']?\s*[:=]\s*)("[^"\n]*"?|'[^'\n]*'?|[^\s,;"']+)`), "${1}" + leftOut},
	{lazy(`(?i)\b((?:[\w-]+[_-])?(?:key|pass|pwd?|bindpw)["']?\s*[:=]\s*)("[^"\n]*"?|'[^'\n]*'?|[^\s,;"']+)`), "${1}" + leftOut},
	{lazy(`(?i)\b(passw(?:or)?d|passphrase|secret|pass|pwd?|bindpw)\s+(?:is\s+)?("[^"\n]*"?|'[^'\n]*'?|[^\s,;"']+)`), "$1 " + leftOut},
	// The word is corosync's, too: what follows it there is a short one.
	{lazy(`(?i)\b(token|key)\s+("[^"\n]*"?|'[^'\n]*'?|[^\s,;"'()]*[0-9][^\s,;"']*|[^\s,;"']{9,})`), "$1 " + leftOut},
	// What the daemon logs about locks, entries and rows, which may be below priv.
	{lazy(`\b(lock|name|row)=("(?:[^"\\]|\\.)*"|\S+)`), "$1=" + leftOut},
	{lazy(`"(?:[^"\\\n]|\\.)*\bpriv/(?:[^"\\\n]|\\.)*"?`), `"priv/` + leftOut + `"`},
	{lazy(`((?:nodes/[^\s/"']+/)?\bpriv/)[^"\n]+`), "${1}" + leftOut},
	// What is said of rows: inode 12 ("name"): its parent 7 ("name"), is no directory.
	{lazy(`\("(?:[^"\\\n]|\\.)*"?\)?`), "(" + leftOut + ")"},
	{lazy(`[A-Za-z0-9+/_-]{100,}={0,2}`), leftOut},
}

// lazy compiles a pattern at its first use: the daemon starts without them.
func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// redact leaves out of a text what may be secret.
func redact(text string) string {
	for _, s := range secretText {
		text = s.what().ReplaceAllString(text, s.by)
	}
	return text
}

// redactDocument is redact for every string of a document.
func redactDocument(document any) (any, error) {
	b, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	var d any
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	if err := decoder.Decode(&d); err != nil {
		return nil, err
	}
	return redactValue(d), nil
}

func redactValue(v any) any {
	switch v := v.(type) {
	case string:
		return redact(v)
	case []any:
		for i := range v {
			v[i] = redactValue(v[i])
		}
	case map[string]any:
		for key, value := range v {
			v[key] = redactValue(value)
		}
	}
	return v
}

// redactComparison leaves out private paths.
func redactComparison(c *inspect.Comparison) {
	hide := func(where string) string {
		if memdb.IsPrivate(memdb.CleanPath(where)) {
			return "/priv/" + leftOut
		}
		return where
	}
	for i := range c.Differences {
		d := &c.Differences[i]
		d.Path = hide(d.Path)
		for _, v := range d.Have {
			if v != nil {
				v.Path = hide(v.Path)
			}
		}
	}
}

// shownFiles are the files of the tree whose content a report has, cut down to what
// is known to be no secret.
var shownFiles = []string{
	"corosync.conf", "storage.cfg", "datacenter.cfg", "replication.cfg",
	"ha/groups.cfg", "ha/resources.cfg", "ha/rules.cfg",
}

// shownKeys are the keys in them whose values are shown.
var shownKeys = strings.Fields(`
	version cluster_name config_version transport consensus join
	ip_version link_mode linknumber bindnetaddr mcastaddr mcastport secauth crypto_cipher crypto_hash
	knet_transport knet_link_priority interface rrp_mode nodeid name quorum_votes ring0_addr ring1_addr
	ring2_addr ring3_addr ring4_addr ring5_addr ring6_addr ring7_addr provider expected_votes two_node
	wait_for_all last_man_standing auto_tie_breaker allow_downscale model votes host algorithm tls
	to_syslog to_logfile to_stderr debug timestamp syslog_facility

	path content server export pool vgname thinpool base saferemove nodes shared disable enable is_mountpoint
	mkdir prune-backups maxfiles preallocation sparse blocksize mountpoint krbd monhost datastore share
	port portal target fs-name subdir zfs-base-path create-subdirs content-dirs

	keyboard language console max_workers migration migration_unsecure ha bwlimit mac_prefix crs next-id

	guest jobnum schedule rate source remove_job type state group max_restart max_relocate restricted
	nofailback resources affinity strict
`)

// shownSections are the types that begin a section, as in "nfs: backup".
var shownSections = strings.Fields(`dir nfs cifs lvm lvmthin zfspool zfs iscsi iscsidirect rbd cephfs glusterfs btrfs pbs esxi
	local vm ct group node-affinity resource-affinity`)

var (
	// head is the head of a section: "nfs: backup".
	sectionHead = lazy(`^([a-z-]+): [A-Za-z0-9._:-]{1,100}$`)
	// braces open and close a section of corosync.conf.
	braces = lazy(`^\s*([a-z_]{1,30}\s*\{|\})\s*$`)
	// counted is a line of corosync.conf whose key sounds secret, and whose value is a number.
	counted = lazy(`^\s*(token|token_retransmit|token_coefficient|token_warning): ?[0-9]{1,9}$`)
	// setting is a line of a key and a value.
	setting = lazy(`^(\s*)([A-Za-z0-9_-]+)(:\s*|\s+)(.*)$`)
	// plain is a value that can be shown.
	plain = lazy(`^[A-Za-z0-9_.,:;/=+*\[\] -]{0,200}$`)
)

// redactConfig cuts the configuration file of a name down to what is known to be no
// secret: heads of sections, and the values of known keys. Each other line is said to
// be left out.
func redactConfig(name string, text []byte) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if line != "" && !harmless(name, line) {
			line = leftOut
		}
		out.WriteString(line + "\n")
	}
	return out.Bytes()
}

func harmless(name, line string) bool {
	if path.Base(name) == "corosync.conf" && counted().MatchString(line) {
		return true
	}
	if redact(line) != line {
		return false
	}
	if m := sectionHead().FindStringSubmatch(line); m != nil && slices.Contains(shownSections, m[1]) {
		return true
	}
	m := setting().FindStringSubmatch(line)
	return braces().MatchString(line) || m != nil && slices.Contains(shownKeys, m[2]) && plain().MatchString(m[4])
}
