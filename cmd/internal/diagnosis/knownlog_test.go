package diagnosis

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"pmxcfs/internal/event"
	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

var testKnown = &known{nodes: []string{"node1", "node2"}, paths: []string{"/etc/pve", "/etc/corosync/corosync.conf"}}

// samples are values of each shape.
var samples = map[string]string{
	"n": "17", "ns": "1 2 3", "float": "1234.5678", "hex": "1f", "hexes": "1f 20", "member": "1/123", "members": "1/123, 2/456",
	"epoch": "1/123/00000003", "version": "3.1.7", "node": "node2", "path": "/etc/corosync/corosync.conf", "address": "10.0.0.1",
	"error": "write: no space left on device",
}

// fields are the parts of an entry that somebody may have written.
type fields map[string]string

// journalSamples are entries of the journal, one of each kind that is known and some that
// are not.
func journalSamples() []fields {
	base := func(identifier, message string) fields {
		return fields{
			"SYSLOG_IDENTIFIER": identifier, "MESSAGE": message, "_PID": "77", "__REALTIME_TIMESTAMP": "1800000000000000",
			"_HOSTNAME": "node1", "PRIORITY": "4", "_CMDLINE": "/usr/bin/pmxcfs", "SYSLOG_PID": "77", "PMXCFS_NODE": "node1",
		}
	}
	var list []fields
	for identifier, known := range templates() {
		if identifier == "cluster log" {
			continue
		}
		for i := range known {
			message := known[i].example()
			if identifier == "pmxcfs" {
				message = "[dcdb] " + message
			}
			list = append(list, base(identifier, message))
		}
	}
	for _, e := range []event.Event{event.DiskFull, event.ConfWritten} {
		f := base("pmxcfs", "[main] something has happened path=/etc/pve error=\"no such file or directory\"")
		f["PMXCFS_EVENT"] = string(e)
		for key, shape := range eventFields {
			value := samples[shape]
			if words, ok := strings.CutPrefix(shape, "="); ok {
				value, _, _ = strings.Cut(words, "\n")
			}
			f["PMXCFS_"+strings.ToUpper(key)] = value
		}
		list = append(list, f)
	}
	return append(list, base("pvedaemon", "login"), base("sudo", "root : COMMAND=/bin/x"), base("pmxcfs", "no domain"), base("pmxcfs", "[x] y"))
}

// example is a message that fits.
func (t *template) example() string {
	var b strings.Builder
	for i, shape := range t.shapes {
		b.WriteString(t.parts[i] + samples[shape])
	}
	return b.String() + t.parts[len(t.shapes)]
}

// disguises write a secret in the ways in which it gets into a log.
func disguises(secret string) map[string]string {
	quoted, _ := json.Marshal(map[string]string{"data": `{"cipassword":"` + secret + `"}`})
	return map[string]string{
		"bare": secret, "an option": "-cipassword " + secret, "another": "apikey " + secret, "behind a comma": "password=x," + secret,
		"behind a semicolon": "password=x;" + secret, "behind a quote": `password="x\"` + secret, "several words": "passphrase: correct " + secret + " battery",
		"XML": "<password>" + secret + "</password>", "of a URL": "https://u:" + url.QueryEscape(secret) + "@h/", "of a query": "https://h/?pin=" + secret,
		"a webhook": "https://hooks.example.com/services/T0/B0/" + secret, "nested JSON": string(quoted), "pin": "pin=" + secret, "otp": "otp=" + secret,
		"in lines": "a\n" + secret + "\nb",
	}
}

// plantIn calls check with each field of an entry changed to hold a secret, in each
// disguise: in its place, before and behind what it was, and in the middle.
func plantIn(t *testing.T, f fields, check func(changed fields) string) {
	t.Helper()
	const secret = "Sup3rHushX"
	for key, value := range f {
		for how, text := range disguises(secret) {
			for where, planted := range map[string]string{
				"instead": text, "before": text + " " + value, "behind": value + " " + text, "stuck to": value + text,
				"within": value[:len(value)/2] + text + value[len(value)/2:],
			} {
				changed := fields{}
				for k, v := range f {
					changed[k] = v
				}
				changed[key] = planted
				if out := check(changed); strings.Contains(out, secret) || strings.Contains(out, url.QueryEscape(secret)) ||
					strings.Contains(out, base64.StdEncoding.EncodeToString([]byte(secret))) {
					t.Errorf("%s, %s, %s %q: %s", key, how, where, value, out)
				}
			}
		}
	}
}

func TestJournalShowsNoPlantedSecret(t *testing.T) {
	t.Parallel()
	for _, f := range journalSamples() {
		plantIn(t, f, func(changed fields) string {
			b, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			return string(testKnown.journal(b))
		})
	}
}

func TestClusterLogShowsNoPlantedSecret(t *testing.T) {
	for i := range templates()["cluster log"] {
		f := fields{"tag": "pvedaemon", "node": "node1", "user": "root@pam", "msg": templates()["cluster log"][i].example()}
		plantIn(t, f, func(changed fields) string {
			e := inspect.LogEntry{UID: 1, Tag: changed["tag"], Node: changed["node"], User: changed["user"], Text: changed["msg"]}
			testKnown.logEntry(&e)
			b, err := json.Marshal(&e)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		})
	}
}

func TestRecentErrorsShowNoPlantedSecret(t *testing.T) {
	for _, f := range []fields{
		{"level": "error", "domain": "database", "event": "disk-full", "text": "storing a change failed path=/a: database or disk is full", "remedy": event.DiskFull.Remedy()},
		{"level": "warning", "domain": "quorum", "event": "quorum-lost", "text": "node lost quorum", "remedy": event.QuorumLost.Remedy()},
	} {
		plantIn(t, f, func(changed fields) string {
			p := inspect.Problem{Level: f["level"], Domain: changed["domain"], Event: changed["event"], Text: changed["text"], Remedy: changed["remedy"]}
			testKnown.problem(&p)
			b, err := json.Marshal(&p)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		})
	}
}

// TestKnownLogsKeepWhatHelps: what a bug report is made for is there.
func TestKnownLogsKeepWhatHelps(t *testing.T) {
	for _, f := range journalSamples() {
		b, _ := json.Marshal(f)
		out := string(testKnown.journal(b))
		known := templates()[f["SYSLOG_IDENTIFIER"]] != nil && f["MESSAGE"] != "no domain" && f["MESSAGE"] != "[x] y"
		if known == strings.Contains(out, "1 line left out") {
			t.Errorf("%v: %s", f, out)
		}
		if e := f["PMXCFS_EVENT"]; e != "" && !(strings.Contains(out, "event="+e) && strings.Contains(out, `version="17"`) && strings.Contains(out, "no space left on device")) {
			t.Errorf("%v: %s", f, out)
		}
	}
	for in, want := range map[string]string{
		"[dcdb] members: 1/123, 2/456":                              "2027-01-15T08:00:00.000Z pmxcfs[77]: [dcdb] members: 1/123, 2/456\n",
		"[main] wrote new corosync config '/x/y' (version = 4)":     "wrote new corosync config '(left out)' (version = 4)",
		"[main] update cluster info (cluster name  a, version = 4)": "update cluster info (cluster name  (left out), version = 4)",
	} {
		b, _ := json.Marshal(fields{"SYSLOG_IDENTIFIER": "pmxcfs", "MESSAGE": in, "_PID": "77", "__REALTIME_TIMESTAMP": "1800000000000000"})
		if out := string(testKnown.journal(b)); !strings.Contains(out, want) {
			t.Errorf("%s: %s", in, out)
		}
	}
	p := inspect.Problem{Domain: "database", Event: "disk-full", Text: "storing failed path=/x: database or disk is full", Remedy: event.DiskFull.Remedy()}
	if testKnown.problem(&p); p.Text != "(left out): database or disk is full" || p.Event != "disk-full" || p.Remedy == leftOut {
		t.Errorf("%+v", p)
	}
	if got := knownError("writing /etc/x: rename a b: no space left on device"); got != "(left out): no space left on device" {
		t.Error(got)
	}
}

// FuzzJournal: whatever a journal holds, what comes out has the known form.
func FuzzJournal(f *testing.F) {
	for _, s := range journalSamples() {
		f.Add(s["SYSLOG_IDENTIFIER"], s["MESSAGE"], s["PMXCFS_EVENT"], s["PMXCFS_PATH"])
	}
	form := regexp.MustCompile(`\A(\S+ (pmxcfs|corosync|systemd): [^\n]+\n)?\([01] lines? left out: --with-logs shows them\)\n\z`)
	f.Fuzz(func(t *testing.T, identifier, message, name, path string) {
		b, err := json.Marshal(fields{"SYSLOG_IDENTIFIER": identifier, "MESSAGE": message, "PMXCFS_EVENT": name, "PMXCFS_PATH": path, "__REALTIME_TIMESTAMP": "1"})
		if err != nil {
			t.Fatal(err)
		}
		if out := testKnown.journal(b); !form.Match(out) {
			t.Errorf("%q", out)
		}
	})
}

// chain is a tree of directories, one in the other, with a file in each.
func chain(depth int, name string) []*memdb.Entry {
	list := []*memdb.Entry{memdb.New().Root()}
	for i := range depth {
		parent := uint64(2 * i)
		list = append(list,
			&memdb.Entry{Inode: uint64(2*i + 2), Parent: parent, Name: name, Type: memdb.TypeDir},
			&memdb.Entry{Inode: uint64(2*i + 1), Parent: parent, Name: "f", Type: memdb.TypeFile})
	}
	return list
}

func TestWalkTellsEachEntryOnce(t *testing.T) {
	root := memdb.New().Root()
	dir := func(inode, parent uint64, name string) *memdb.Entry {
		return &memdb.Entry{Inode: inode, Parent: parent, Name: name, Type: memdb.TypeDir}
	}
	entries := []*memdb.Entry{root, dir(1, 0, "priv"), dir(2, 1, "a"), dir(3, 0, "nodes"), dir(4, 3, "n"), dir(5, 4, "priv"), dir(6, 5, "b"), dir(7, 4, "q"),
		dir(8, 99, "loose"), dir(9, 10, "cycle"), dir(10, 9, "cycle"), dir(11, 11, "self"), dir(12, 0, "a")}
	got := map[string]int{}
	walk(entries, func(e *memdb.Entry, path string, private bool) bool {
		if private {
			path = "(private)"
		}
		got[path]++
		return true
	})
	if want := map[string]int{"": 1, "(private)": 8, "nodes": 1, "nodes/n": 1, "nodes/n/q": 1, "a": 1}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestWalkIsLinear counts what it takes of trees that are deeper and deeper: each entry
// once, and never a path beyond what there can be.
func TestWalkIsLinear(t *testing.T) {
	for _, depth := range []int{10, 1000, 50_000} {
		for _, name := range []string{"d", strings.Repeat("n", 255)} {
			calls, longest := 0, 0
			walk(chain(depth, name), func(_ *memdb.Entry, path string, _ bool) bool {
				calls++
				longest = max(longest, len(path))
				return true
			})
			if calls != 2*depth+1 || longest > maxShownPath {
				t.Errorf("depth %d: %d calls, the longest path has %d bytes", depth, calls, longest)
			}
		}
	}
}

func TestReportEndsWhenItIsToldTo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	stuck := make(chan struct{})
	defer close(stuck)
	begin := time.Now()
	time.AfterFunc(10*time.Millisecond, cancel)
	err := Abandonable(ctx, func() error { <-stuck; return nil })
	if took := time.Since(begin); !errors.Is(err, context.Canceled) || took > 10*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if err := Abandonable(t.Context(), func() error { return errDown }); !errors.Is(err, errDown) {
		t.Error(err)
	}
}

var errDown = errors.New("down")
