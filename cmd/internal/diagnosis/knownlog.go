package diagnosis

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"pmxcfs/internal/event"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/status"
	"pmxcfs/status/inspect"
)

// A text of a log can hold anything, and no list of patterns finds every secret in it. So
// a report takes from logs only what is known to hold none: events of this daemon with
// fields of known shapes, and messages of known programs that fit a template.

// template is a message in which "{x}" stands for a value of shape x.
type template struct {
	re     *regexp.Regexp
	parts  []string // of the text, between the values
	shapes []string // of the values
}

// shapes are what values may look like. None has room for a word that isn't known.
var shapes = map[string]string{
	"n":       `[0-9]{1,10}`,
	"ns":      `[0-9]{1,10}(?: [0-9]{1,10})*`,
	"float":   `[0-9]{1,10}(?:\.[0-9]{1,6})?`,
	"hex":     `[0-9a-f]{1,8}`,
	"hexes":   `[0-9a-f]{1,8}(?: [0-9a-f]{1,8})*`,
	"member":  `[0-9]{1,10}/[0-9]{1,10}`,
	"members": `[0-9]{1,10}/[0-9]{1,10}(?:, [0-9]{1,10}/[0-9]{1,10})*`,
	"epoch":   `[0-9]{1,10}/[0-9]{1,10}/[0-9A-Fa-f]{8}`,
	"version": `[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}`,
	"node":    `[A-Za-z0-9-]{1,63}`, // of the cluster: see known
	"path":    `/[^'"\s]{0,200}`,    // of the daemon's own: see known
	"address": `[0-9A-Fa-f:.]{2,45}`,
	"any":     `(?s:.*)`, // left out
}

// wholeShapes match values of each shape.
var wholeShapes = sync.OnceValue(func() map[string]*regexp.Regexp {
	m := make(map[string]*regexp.Regexp, len(shapes))
	for name, shape := range shapes {
		m[name] = regexp.MustCompile(`\A(?:` + shape + `)\z`)
	}
	return m
})

var placeholder = lazy(`\{[a-z]+\}`)

func parseTemplate(text string) template {
	t := template{}
	pattern := `\A`
	at := 0
	for _, span := range placeholder().FindAllStringIndex(text, -1) {
		shape := text[span[0]+1 : span[1]-1]
		part := text[at:span[0]]
		pattern += regexp.QuoteMeta(part) + "(" + shapes[shape] + ")"
		t.parts, t.shapes = append(t.parts, part), append(t.shapes, shape)
		at = span[1]
	}
	t.parts = append(t.parts, text[at:])
	t.re = regexp.MustCompile(pattern + regexp.QuoteMeta(text[at:]) + `\z`)
	return t
}

func parseTemplates(text string) []template {
	var list []template
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, parseTemplate(line))
		}
	}
	return list
}

// templates are the messages of known programs, by syslog identifier.
var templates = sync.OnceValue(func() map[string][]template {
	return map[string][]template{
		"pmxcfs": parseTemplates(`
		node has quorum
		node lost quorum
		members: {members}
		starting data syncronisation
		received sync request (epoch {epoch})
		received all states
		leader is {member}
		synced members: {members}
		start sending inode updates
		sent all ({n}) updates
		waiting for updates from leader
		update complete - trying to commit (got {n} inode updates)
		all data is up to date
		update cluster info (cluster name  {any}, version = {n})
		wrote new corosync config '{path}' (version = {n})
		{n} messages could not be logged: the journal did not take them
	`),
		"corosync": parseTemplates(`
		[TOTEM ] A new membership ({hex}.{hex}) was formed. Members
		[TOTEM ] A new membership ({hex}.{hex}) was formed. Members joined: {ns}
		[TOTEM ] A new membership ({hex}.{hex}) was formed. Members left: {ns}
		[TOTEM ] A new membership ({hex}.{hex}) was formed. Members joined: {ns} left: {ns}
		[TOTEM ] Failed to receive the leave message. failed: {ns}
		[TOTEM ] Token has not been received in {n} ms
		[TOTEM ] A processor failed, forming new configuration: token timed out ({n}ms), waiting {n}ms for consensus.
		[TOTEM ] Retransmit List: {hexes}
		[TOTEM ] Process pause detected for {n} ms, flushing membership messages.
		[QUORUM] This node is within the primary component and will provide service.
		[QUORUM] This node is within the non-primary component and will NOT provide any services.
		[QUORUM] Sync members[{n}]: {ns}
		[QUORUM] Sync joined[{n}]: {ns}
		[QUORUM] Sync left[{n}]: {ns}
		[QUORUM] Members[{n}]: {ns}
		[KNET  ] link: host: {n} link: {n} is down
		[KNET  ] link: host: {n} link: {n} is up
		[KNET  ] link: Resetting MTU for link {n} because host {n} joined
		[KNET  ] rx: host: {n} link: {n} is up
		[KNET  ] host: host: {n} (passive) best link: {n} (pri: {n})
		[KNET  ] host: host: {n} has no active links
		[KNET  ] pmtud: PMTUD link change for host: {n} link: {n} from {n} to {n}
		[KNET  ] pmtud: Global data MTU changed to: {n}
		[MAIN  ] Completed service synchronization, ready to provide service.
		[MAIN  ] Corosync main process was not scheduled (@{n}) for {float} ms (threshold is {float} ms). Consider token timeout increase.
		[MAIN  ] Corosync Cluster Engine {version} starting up
		[MAIN  ] Corosync Cluster Engine exiting normally
		[MAIN  ] Node was shut down by a signal
		[CFG   ] Config reload requested by node {n}
		[CFG   ] Node {n} was shut down by sysadmin
	`),
		"systemd": parseTemplates(`
		Starting pve-cluster.service - The Proxmox VE cluster filesystem...
		Started pve-cluster.service - The Proxmox VE cluster filesystem.
		Stopping pve-cluster.service - The Proxmox VE cluster filesystem...
		Stopped pve-cluster.service - The Proxmox VE cluster filesystem.
		Failed to start pve-cluster.service - The Proxmox VE cluster filesystem.
		pve-cluster.service: Deactivated successfully.
		pve-cluster.service: Main process exited, code=exited, status={n}/FAILURE
		pve-cluster.service: Main process exited, code=killed, status={n}/KILL
		pve-cluster.service: Main process exited, code=killed, status={n}/TERM
		pve-cluster.service: Main process exited, code=killed, status={n}/ABRT
		pve-cluster.service: Main process exited, code=dumped, status={n}/SEGV
		pve-cluster.service: Main process exited, code=dumped, status={n}/ABRT
		pve-cluster.service: Failed with result 'exit-code'.
		pve-cluster.service: Failed with result 'signal'.
		pve-cluster.service: Failed with result 'core-dump'.
		pve-cluster.service: Failed with result 'timeout'.
		pve-cluster.service: Failed with result 'watchdog'.
		pve-cluster.service: Failed with result 'oom-kill'.
		pve-cluster.service: Failed with result 'start-limit-hit'.
		pve-cluster.service: Watchdog timeout (limit {n}s)!
		pve-cluster.service: Scheduled restart job, restart counter is at {n}.
		pve-cluster.service: Start request repeated too quickly.
		pve-cluster.service: State 'stop-sigterm' timed out. Killing.
	`),
		// The cluster log's, of any program of Proxmox's.
		"cluster log": parseTemplates(`
		starting task {any}
		end task {any}: OK
		end task {any}: {any}
		successful auth for user {any}
		authentication failure; {any}
		authentication verification error {any}
		cluster filesystem {any}
		update VM {n}: {any}
		start VM {n}: {any}
		stop VM {n}: {any}
		shutdown VM {n}: {any}
		migrate VM {n}: {any}
		create VM {n}: {any}
		destroy VM {n}: {any}
		start CT {n}: {any}
		stop CT {n}: {any}
		starting service {any}
		stopping service {any}
	`),
	}
})

// logTags are the programs that write to the cluster log.
var logTags = strings.Fields(`cluster pmxcfs pvedaemon pveproxy pvestatd pvescheduler pve-ha-lrm pve-ha-crm pvesh
	qm qmeventd qmrestore pct vzdump pvesr spiceproxy pveupdate pve-firewall pvefw-logger`)

// eventFields are the shapes of the fields of events, and of the texts that are fields. A
// shape that begins with "=" lists words.
var eventFields = map[string]string{
	"version": "n", "leader_version": "n", "updates": "n", "pid": "n", "vmid": "n", "suppressed": "n", "errno": "n",
	"age_usec": "n", "failing_usec": "n", "took_usec": "n", "leader": "member", "by": "member", "synced": "members", "epoch": "epoch",
	"node": "node", "address": "address", "path": "path", "program": "version",
	"group":  "=" + dcdb.GroupName + "\n" + status.GroupName,
	"mode":   "=local\ncluster",
	"signal": "=terminated\ninterrupt",
	"domain": "=main\ndatabase\ndcdb\nstatus\nipcs\nquorum\nconfdb\nfuse\nweb\ninspect",
	"part":   "=the store\nthe mount\nthe status group\nthe service for Proxmox's tools",
	"error":  "error",
}

// known is what a report may name.
type known struct {
	nodes, paths []string
}

func (k *known) fits(shape, value string) bool {
	if words, ok := strings.CutPrefix(shape, "="); ok {
		return slices.Contains(strings.Split(words, "\n"), value)
	}
	switch shape {
	case "node":
		return slices.Contains(k.nodes, value)
	case "path":
		return slices.Contains(k.paths, value)
	case "address":
		_, err := netip.ParseAddr(value)
		return err == nil
	case "any":
		return false
	}
	return wholeShapes()[shape].MatchString(value)
}

// value is a value, if it has its shape; of an error what is known of it.
func (k *known) value(shape, value string) string {
	switch {
	case shape == "error":
		return knownError(value)
	case k.fits(shape, value):
		return value
	}
	return leftOut
}

// message returns a message of a program in the form of its template: with the values
// that are known to be harmless.
func (k *known) message(identifier, text string) (string, bool) {
	for i := range templates()[identifier] {
		t := &templates()[identifier][i]
		if !strings.HasPrefix(text, t.parts[0]) {
			continue
		}
		m := t.re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		var b strings.Builder
		for i, shape := range t.shapes {
			b.WriteString(t.parts[i] + k.value(shape, m[i+1]))
		}
		return b.String() + t.parts[len(t.shapes)], true
	}
	return "", false
}

// errorTexts are the parts of errors that are shown: the system's and the libraries'.
var errorTexts = func() map[string]bool {
	known := map[string]bool{}
	for n := range 140 {
		known[syscall.Errno(n).Error()] = true
	}
	for line := range strings.Lines(`
		database or disk is full
		database is locked
		attempt to write a readonly database
		disk I/O error
		database disk image is malformed
		file is not a database
		unable to open database file
		corosync
		connection lost
		library error
		library error (is corosync running?)
		try again
		timeout
		not quorate
		context deadline exceeded
		context canceled
		i/o timeout
		connection refused
	`) {
		known[strings.TrimSpace(line)] = true
	}
	delete(known, "")
	return known
}()

// knownError returns an error's text with the parts between colons that are known.
func knownError(text string) string {
	var list []string
	for part := range strings.SplitSeq(text, ": ") {
		if !errorTexts[part] {
			part = leftOut
		}
		if len(list) == 0 || part != leftOut || list[len(list)-1] != leftOut {
			list = append(list, part)
		}
	}
	return strings.Join(list, ": ")
}

// journal cuts what "journalctl -o json" writes down to what is known, a line for each
// entry that has something, and says how many have nothing.
func (k *known) journal(out []byte) []byte {
	var b bytes.Buffer
	omitted := 0
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, maxPart)
	for lines.Scan() {
		var raw map[string]any
		if json.Unmarshal(lines.Bytes(), &raw) != nil {
			omitted++
			continue
		}
		entry := map[string]string{}
		for key, value := range raw {
			if s, ok := value.(string); ok { // others are repeated, or no text
				entry[key] = s
			}
		}
		text, ok := k.entry(entry)
		if !ok {
			omitted++
			continue
		}
		b.WriteString(text + "\n")
	}
	if err := lines.Err(); err != nil {
		b.WriteString("(the rest was not read: " + err.Error() + ")\n")
	}
	fmt.Fprintf(&b, "(%s left out: --with-logs shows them)\n", plural(omitted, "line", "lines"))
	return b.Bytes()
}

// entry is a journal's entry as a line.
func (k *known) entry(e map[string]string) (string, bool) {
	identifier := e["SYSLOG_IDENTIFIER"]
	message := e["MESSAGE"]
	domain := ""
	if identifier == "pmxcfs" {
		if rest, ok := strings.CutPrefix(message, "["); ok {
			if d, text, ok := strings.Cut(rest, "] "); ok && k.fits(eventFields["domain"], d) {
				domain, message = "["+d+"] ", text
			}
		}
	}
	text, ok := k.message(identifier, message)
	if identifier == "pmxcfs" && slices.Contains(event.All(), event.Event(e["PMXCFS_EVENT"])) {
		if ok {
			text += " "
		}
		text += "event=" + e["PMXCFS_EVENT"]
		ok = true
		for _, key := range sortedKeys(eventFields) {
			field := "PMXCFS_" + strings.ToUpper(key)
			if key == "errno" {
				field = "ERRNO"
			}
			if value, there := e[field]; there && key != "domain" && key != "node" {
				text += fmt.Sprintf(" %s=%q", key, k.value(eventFields[key], value))
			}
		}
	}
	if !ok {
		return "", false
	}
	when := "(no time)"
	if usec, err := strconv.ParseInt(e["__REALTIME_TIMESTAMP"], 10, 64); err == nil {
		when = time.UnixMicro(usec).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	pid := ""
	if k.fits("n", e["_PID"]) {
		pid = "[" + e["_PID"] + "]"
	}
	return fmt.Sprintf("%s %s%s: %s%s", when, identifier, pid, domain, text), true
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// logEntry cuts an entry of the cluster log down.
func (k *known) logEntry(e *inspect.LogEntry) {
	if !slices.Contains(logTags, e.Tag) {
		e.Tag = leftOut
	}
	if !slices.Contains(k.nodes, e.Node) {
		e.Node = leftOut
	}
	if e.User != "root@pam" { // people type passwords where a name belongs
		e.User = leftOut
	}
	text, ok := k.message("cluster log", e.Text)
	if !ok {
		text = leftOut
	}
	e.Text = text
}

// problem cuts a warning or an error of the daemon's log down. What it is about stays:
// its event and its remedy.
func (k *known) problem(p *inspect.Problem) {
	text, ok := k.message("pmxcfs", p.Text)
	if !ok {
		text = leftOut
		if head, cause, ok := cutLast(p.Text); ok && head != "" {
			text = leftOut + ": " + knownError(cause)
		}
	}
	p.Text = text
	if !k.fits(eventFields["domain"], p.Domain) {
		p.Domain = leftOut
	}
	if p.Event != "" && !slices.Contains(event.All(), event.Event(p.Event)) {
		p.Event = leftOut
	}
	if p.Remedy != event.Event(p.Event).Remedy() {
		p.Remedy = leftOut
	}
}

// cutLast parts a text at its last colon.
func cutLast(text string) (before, after string, found bool) {
	i := strings.LastIndex(text, ": ")
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+2:], true
}
