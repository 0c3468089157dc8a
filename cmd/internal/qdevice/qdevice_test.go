package qdevice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
)

const confText = `logging {
  debug: off
  to_syslog: yes
}

nodelist {
  node {
    name: node1
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 10.99.0.1
  }
  node {
    name: node2
    nodeid: 2
    quorum_votes: 1
    ring0_addr: 10.99.0.2
  }
}

quorum {
  provider: corosync_votequorum
}

totem {
  cluster_name: lab
  config_version: 53
  interface {
    linknumber: 0
  }
  ip_version: ipv4-6
  link_mode: passive
  secauth: on
  version: 2
}

`

// world is the hosts that a setup works on: what runs there is recorded, and answered as
// corosync's programs would.
type world struct {
	*host.Host
	out      bytes.Buffer
	ran      []string
	input    map[string]string // by what ran
	fails    *regexp.Regexp    // what fails
	lacks    map[string]string // what a look at a host does not find, by "node2"; "outside"
	has      map[string]string // or finds although it should not
	voting   func() ([]string, error)
	reloads  int
	elsewhen time.Duration
}

func newWorld(t *testing.T, conf string) *world {
	t.Helper()
	w := &world{input: map[string]string{}, lacks: map[string]string{}, has: map[string]string{}}
	root := t.TempDir()
	for _, dir := range []string{"etc/pve/priv", "etc/pve/nodes"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.Host = &host.Host{Root: root, Name: "node1", Stdout: &w.out, Stderr: &w.out, Exec: w.exec, Writable: func() bool { return true }}
	w.voting = func() ([]string, error) { return nil, nil }
	w.put(t, host.ClusterConf, conf)
	w.put(t, "/etc/pve/.members", `{"nodename":"node1","cluster":{"name":"lab","version":1,"nodes":2,"quorate":1},"nodelist":{
		"node1":{"id":1,"online":1,"ip":"10.99.0.1"},"node2":{"id":2,"online":1,"ip":"10.99.0.2"}}}`)
	return w
}

func (w *world) put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(w.Path(path), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) conf(t *testing.T) string {
	t.Helper()
	b, err := w.ReadFile(host.ClusterConf)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (w *world) exec(_ context.Context, c host.Command) error {
	line := strings.Join(c.Args, " ")
	where, text := "node1", c.Args[len(c.Args)-1]
	switch {
	case strings.Contains(line, "root@10.99.0.2 "):
		where = "node2"
	case c.Args[0] == "ssh":
		where = "outside"
	}
	what := where + ": " + text
	w.ran = append(w.ran, what)
	if c.Stdin != nil {
		b, err := io.ReadAll(c.Stdin)
		if err != nil {
			return err
		}
		w.input[what] = string(b)
	}
	if w.fails != nil && w.fails.MatchString(what) {
		fmt.Fprint(c.Stderr, "it failed")
		return &host.CommandError{Args: c.Args, Status: 1, Err: errors.New("exit status 1")}
	}
	say := func(words ...string) {
		for _, word := range words {
			if w.lacks[where] != word {
				fmt.Fprintln(c.Stdout, word)
			}
		}
		fmt.Fprintln(c.Stdout, w.has[where])
	}
	switch {
	case strings.HasPrefix(text, "command -v corosync-qdevice-net"):
		say("tool", "port")
	case strings.HasPrefix(text, "command -v corosync-qnetd"):
		say("tool", fmt.Sprintf("time=%d", time.Now().Add(w.elsewhen).Unix()))
	case strings.HasSuffix(text, "qnetd-cacert.crt"):
		fmt.Fprint(c.Stdout, "CA")
	case strings.HasSuffix(text, "qdevice-net-node.crq"):
		fmt.Fprint(c.Stdout, "REQUEST")
	case strings.Contains(text, "qnetd-certutil -s"):
		fmt.Fprint(c.Stdout, "SIGNED")
	case strings.Contains(text, "net-certutil -M"):
		fmt.Fprint(c.Stdout, "BUNDLE")
	}
	return nil
}

func (w *world) services() Services {
	return Services{Reload: func() error { w.reloads++; return nil }, Voting: w.voting}
}

var external = Options{External: netip.MustParseAddr("10.99.0.3"), Timeout: 50 * time.Millisecond}

// did returns the places where something like pattern ran, in order.
func (w *world) did(pattern string) (list []string) {
	re := regexp.MustCompile(pattern)
	for _, what := range w.ran {
		if re.MatchString(what) {
			where, _, _ := strings.Cut(what, ":")
			list = append(list, where)
		}
	}
	return list
}

func (w *world) inputOf(t *testing.T, where, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for what, in := range w.input {
		if strings.HasPrefix(what, where+": ") && re.MatchString(what) {
			return in
		}
	}
	t.Errorf("%s never ran %s", where, pattern)
	return ""
}

func TestSetupMakesCertificatesOnAllHostsAndEntersTheDevice(t *testing.T) {
	w := newWorld(t, confText)
	if _, err := Setup(t.Context(), w.Host, w.services(), external); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(confText, "quorum {\n  provider", "quorum {\n  device {\n    model: net\n    net {\n      algorithm: ffsplit\n      host: 10.99.0.3\n      tls: on\n    }\n    votes: 1\n  }\n  provider", 1)
	want = strings.Replace(want, "config_version: 53", "config_version: 54", 1)
	if got := w.conf(t); got != want {
		t.Errorf("corosync.conf:\n%s\nwant\n%s", got, want)
	}
	for _, step := range []struct{ pattern, where, in string }{
		{"net-certutil -i", "node1 node2", "CA"},
		{"net-certutil -r -n lab", "node1", ""},
		{"qnetd-certutil -s .* -n lab", "outside", "REQUEST"},
		{"net-certutil -M", "node1", "SIGNED"},
		{"net-certutil -m", "node2", "BUNDLE"},
		{"systemctl start corosync-qdevice && systemctl enable", "node1 node2", ""},
	} {
		where := w.did(step.pattern)
		if strings.Join(where, " ") != step.where {
			t.Errorf("%s ran on %v, want %s", step.pattern, where, step.where)
		}
		for _, host := range where {
			if in := w.inputOf(t, host, step.pattern); in != step.in {
				t.Errorf("%s on %s got %q, want %q", step.pattern, host, in, step.in)
			}
		}
	}
	if w.reloads != 1 {
		t.Errorf("%d reloads", w.reloads)
	}
	// Nothing secret may lie where www-data reads, or be seen in the list of processes.
	for _, what := range w.ran {
		if strings.Contains(what, "/etc/pve") || strings.Contains(what, "BUNDLE") {
			t.Errorf("%s", what)
		}
	}
	err := filepath.WalkDir(w.Path("/etc/pve"), func(path string, d os.DirEntry, err error) error {
		if strings.Contains(path, "p12") || strings.Contains(path, "cacert") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSetupSaysEverythingThatSpeaksAgainstItAndChangesNothing(t *testing.T) {
	w := newWorld(t, confText)
	w.lacks["node2"], w.has["node1"] = "tool", "database"
	w.lacks["outside"], w.has["outside"] = "tool", "taken"
	w.elsewhen = 5 * time.Minute
	_, err := Setup(t.Context(), w.Host, w.services(), external)
	if plan.CodeOf(err) != plan.Refused {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{
		"node node2 lacks the package corosync-qdevice", "node node1 has certificates of an earlier", "10.99.0.3 lacks the package corosync-qnetd",
		"certificate of a cluster named lab already", "differ by ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said: %v", want, err)
		}
	}
	if w.conf(t) != confText || len(w.did("certutil -|systemctl|rm ")) > 0 {
		t.Errorf("something was done: %q", w.ran)
	}
}

func TestSetupIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *world, o *Options)
		kinds  string
		code   plan.Code
	}{
		"device there": {func(w *world, _ *Options) {
			w.put(t, host.ClusterConf, strings.Replace(confText, "quorum {", "quorum {\n  device {\n    model: net\n    net {\n      host: 10.99.0.9\n    }\n  }", 1))
		}, "qdevice-exists", plan.Refused},
		"node off": {func(w *world, _ *Options) {
			w.put(t, "/etc/pve/.members", `{"nodename":"node1","nodelist":{"node1":{"id":1,"online":1,"ip":"10.99.0.1"},"node2":{"id":2,"online":0}}}`)
		}, "node-offline", plan.Refused},
		"no cluster": {func(w *world, _ *Options) { os.Remove(w.Path(host.ClusterConf)) }, "no-cluster", plan.Refused},
		"no quorum":  {func(w *world, _ *Options) { w.Writable = func() bool { return false } }, "no-quorum", plan.NotQuorate},
		"no login": {func(w *world, o *Options) {
			w.fails, o.NoCopyID = regexp.MustCompile("outside: true"), true
		}, "login", plan.Trust},
		"port shut":      {func(w *world, _ *Options) { w.lacks["node2"] = "port" }, "port", plan.Refused},
		"bad name":       {func(_ *world, o *Options) { o.ClusterName = "a; rm -rf /" }, "cluster-name", plan.Refused},
		"node is broken": {func(w *world, _ *Options) { w.fails = regexp.MustCompile("node2: command") }, "node-unreachable", plan.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, confText)
			o := external
			test.change(w, &o)
			_, err := Setup(t.Context(), w.Host, w.services(), o)
			if kinds := strings.Join(plan.Kinds(err), " "); kinds != test.kinds || plan.CodeOf(err) != test.code {
				t.Errorf("%q, status %d: %v", kinds, plan.CodeOf(err), err)
			}
			if len(w.did("certutil -|systemctl|rm -rf /$")) > 0 {
				t.Errorf("something was done: %q", w.ran)
			}
		})
	}
}

func TestAFailureTakesEverythingBack(t *testing.T) {
	for _, step := range []string{
		"node2: .*net-certutil -i", "node1: corosync-qdevice-net-certutil -r", "outside: .*certutil -s", "node1: .*certutil -M",
		"node2: .*certutil -m", "node2: systemctl start", "voting",
	} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t, confText)
			if step == "voting" {
				w.voting = func() ([]string, error) { return []string{"node2"}, nil }
			} else {
				w.fails = regexp.MustCompile(step)
			}
			_, err := Setup(t.Context(), w.Host, w.services(), external)
			if code := plan.CodeOf(err); err == nil || code == plan.NotUndone || code == plan.Done {
				t.Fatalf("status %d: %v", code, err)
			}
			if strings.Contains(w.conf(t), "device") {
				t.Error("the device is in the configuration")
			}
			if got := strings.Join(w.did("^node.: rm -rf /etc/corosync/qdevice$"), " "); got != "node1 node2" {
				t.Errorf("certificates were removed on %q", got)
			}
			signed := len(w.did("certutil -s")) > 0
			if removed := len(w.did("^outside: rm -f /etc/corosync/qnetd/nssdb/cluster-lab.crt$")) > 0; signed && !removed {
				t.Error("the certificate stays on the external host")
			}
			if len(w.did("systemctl start")) > 0 && len(w.did("systemctl disable --now")) != 2 {
				t.Error("the daemons go on")
			}
		})
	}
	t.Run("not if that fails, too", func(t *testing.T) {
		w := newWorld(t, confText)
		w.fails = regexp.MustCompile("certutil -m|node2: rm -rf")
		_, err := Setup(t.Context(), w.Host, w.services(), external)
		if plan.CodeOf(err) != plan.NotUndone {
			t.Errorf("status %d: %v", plan.CodeOf(err), err)
		}
	})
}

func TestOddNumbersAndLeftoversNeedForce(t *testing.T) {
	w := newWorld(t, strings.Replace(confText, "\n  node {\n    name: node2\n    nodeid: 2\n    quorum_votes: 1\n    ring0_addr: 10.99.0.2\n  }", "", 1))
	w.has["node1"] = "database"
	o := external
	o.Force = []string{"odd", "leftovers"}
	if _, err := Setup(t.Context(), w.Host, w.services(), o); err != nil {
		t.Fatal(err)
	}
	if conf := w.conf(t); !strings.Contains(conf, "algorithm: lms") || strings.Contains(conf, "\n    votes:") {
		t.Errorf("%s", conf)
	}
	if len(w.did("rm -rf /etc/corosync/qdevice/net/nssdb")) != 1 {
		t.Errorf("leftovers stay: %q", w.ran)
	}
}

func TestDryRunOnlyLooks(t *testing.T) {
	w := newWorld(t, confText)
	w.fails = regexp.MustCompile("outside: true")
	o := external
	o.DryRun = true
	r, err := Setup(t.Context(), w.Host, w.services(), o)
	if err != nil || len(r.Steps) != 3 || len(r.Warnings()) != 1 {
		t.Errorf("%v, %+v", err, r)
	}
	if len(w.did("ssh-copy-id|certutil -|systemctl")) > 0 {
		t.Errorf("something was done: %q", w.ran)
	}
}

func TestRemoveCleansUpOnAllHosts(t *testing.T) {
	w := newWorld(t, confText)
	if _, err := Setup(t.Context(), w.Host, w.services(), external); err != nil {
		t.Fatal(err)
	}
	w.ran = nil
	if _, err := Remove(t.Context(), w.Host, w.services(), Options{}); err != nil {
		t.Fatal(err)
	}
	if got, want := w.conf(t), strings.Replace(confText, "config_version: 53", "config_version: 55", 1); got != want {
		t.Errorf("corosync.conf:\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join(w.did("systemctl stop corosync-qdevice; systemctl disable.*; rm -rf /etc/corosync/qdevice$"), " "); got != "node1 node2" {
		t.Errorf("cleaned up on %q", got)
	}
	if len(w.did("^outside: rm -f /etc/corosync/qnetd/nssdb/cluster-lab.crt$")) != 1 {
		t.Errorf("%q", w.ran)
	}
	if _, err := Remove(t.Context(), w.Host, w.services(), Options{}); strings.Join(plan.Kinds(err), " ") != "no-qdevice" {
		t.Errorf("again: %v", err)
	}
}

func TestAUserWhoIsNotRootUsesSudo(t *testing.T) {
	w := newWorld(t, confText)
	o := external
	o.User, o.DryRun, o.NoCopyID = "admin", true, true
	if _, err := Setup(t.Context(), w.Host, w.services(), o); err == nil {
		t.Error("what it needs was found without asking") // the world knows no sudo
	}
	if got := len(w.did("^outside: sudo -n sh -c '")); got != 2 || len(w.did("^outside: [^s]")) > 0 {
		t.Errorf("%q", w.ran)
	}
}

func TestRemoveTakesTheKeyAlongIfAsked(t *testing.T) {
	w := newWorld(t, confText).with(t)
	if err := os.MkdirAll(w.Path("/root/.ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.put(t, "/root/.ssh/id_rsa.pub", "ssh-rsa AAAAB3own root@node1\n")
	if _, err := Remove(t.Context(), w.Host, w.services(), Options{RemoveKey: true}); err != nil {
		t.Fatal(err)
	}
	if in := w.inputOf(t, "outside", "authorized_keys"); in != "AAAAB3own\n" {
		t.Errorf("the key is %q", in)
	}

	// What is run there does that.
	home := t.TempDir()
	keys := home + "/.ssh/authorized_keys"
	if err := errors.Join(os.Mkdir(home+"/.ssh", 0o700), os.WriteFile(keys, []byte("ssh-rsa AAAAB3other a\nssh-rsa AAAAB3own root@node1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ssh-rsa AAAAB3other a\n", "ssh-rsa AAAAB3other a\n"} {
		c := exec.Command("sh", "-c", withoutKey)
		c.Env, c.Stdin = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, strings.NewReader("AAAAB3own\n")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got, err := os.ReadFile(keys); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// with sets a device up in a world, and forgets how.
func (w *world) with(t *testing.T) *world {
	t.Helper()
	if _, err := Setup(t.Context(), w.Host, w.services(), external); err != nil {
		t.Fatal(err)
	}
	w.ran = nil
	return w
}

func TestRepairMakesCertificatesAnewAndKeepsTheVote(t *testing.T) {
	w := newWorld(t, confText)
	if _, err := Repair(t.Context(), w.Host, w.services(), Options{}); strings.Join(plan.Kinds(err), " ") != "no-qdevice" {
		t.Errorf("without a device: %v", err)
	}
	w.with(t)
	before := w.conf(t)
	// One after the other: the second one's daemon goes on until the first one votes.
	restarted := 0
	w.voting = func() ([]string, error) {
		if n := len(w.did("systemctl restart corosync-qdevice")); n > restarted {
			restarted = n
			return []string{[]string{"node1", "node2"}[n-1]}, nil
		}
		return nil, nil
	}
	w.has["node1"], w.has["node2"], w.has["outside"] = "database", "database", "taken"
	o := Options{Timeout: 5 * time.Second, NoCopyID: true}
	if _, err := Repair(t.Context(), w.Host, w.services(), o); err != nil {
		t.Fatal(err)
	}
	if w.conf(t) != before {
		t.Errorf("corosync.conf was changed:\n%s", w.conf(t))
	}
	for pattern, where := range map[string]string{
		"mv /etc/corosync/qdevice /etc/corosync/qdevice.old": "node1 node2", "net-certutil -i": "node1 node2", "net-certutil -M": "node1", "net-certutil -m": "node2",
		"systemctl restart corosync-qdevice": "node1 node2", "rm -rf /etc/corosync/qdevice.old$": "node1 node2", "rm -f .*cluster-lab.crt.old$": "outside", "systemctl (stop|disable)": "",
	} {
		if got := strings.Join(w.did(pattern), " "); got != where {
			t.Errorf("%s ran on %q, want %q", pattern, got, where)
		}
	}
	o.External = netip.MustParseAddr("10.99.0.9")
	if _, err := Repair(t.Context(), w.Host, w.services(), o); strings.Join(plan.Kinds(err), " ") != "other-host" {
		t.Errorf("another host: %v", err)
	}
}

func TestARepairThatFailsBringsTheOldCertificatesBack(t *testing.T) {
	for _, step := range []string{"node2: .*net-certutil -i", "outside: .*certutil -s", "node2: .*certutil -m", "node2: systemctl restart corosync-qdevice &&", "voting"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t, confText).with(t)
			before := w.conf(t)
			if step == "voting" {
				w.voting = func() ([]string, error) { return []string{"node1"}, nil }
			} else {
				w.fails = regexp.MustCompile(step)
			}
			_, err := Repair(t.Context(), w.Host, w.services(), Options{Timeout: 50 * time.Millisecond, NoCopyID: true})
			if code := plan.CodeOf(err); err == nil || code == plan.NotUndone || code == plan.Done {
				t.Fatalf("status %d: %v", code, err)
			}
			if w.conf(t) != before {
				t.Error("the configuration was changed")
			}
			if got := strings.Join(w.did("mv /etc/corosync/qdevice.old /etc/corosync/qdevice; fi; systemctl restart"), " "); got != "node1 node2" {
				t.Errorf("brought back on %q", got)
			}
			signed := len(w.did("certutil -s")) > 0
			if back := len(w.did("mv .*cluster-lab.crt.old ")) > 0; signed != back {
				t.Errorf("the external host's certificate was brought back: %v", back)
			}
		})
	}
}

func TestRenewFollowsTheNumberOfNodes(t *testing.T) {
	w := newWorld(t, confText).with(t)
	three := strings.Replace(w.conf(t), "    ring0_addr: 10.99.0.2\n  }\n", "    ring0_addr: 10.99.0.2\n  }\n  node {\n    name: node3\n    nodeid: 3\n    quorum_votes: 1\n    ring0_addr: 10.99.0.4\n  }\n", 1)
	w.put(t, host.ClusterConf, three)
	w.put(t, "/etc/pve/.members", `{"nodename":"node1","cluster":{"name":"lab","version":1,"nodes":3,"quorate":1},"nodelist":{
		"node1":{"id":1,"online":1,"ip":"10.99.0.1"},"node2":{"id":2,"online":1,"ip":"10.99.0.2"},"node3":{"id":3,"online":1,"ip":"10.99.0.4"}}}`)
	if _, err := Renew(t.Context(), w.Host, w.services(), Options{NoCopyID: true}); err != nil {
		t.Fatal(err)
	}
	if conf := w.conf(t); !strings.Contains(conf, "algorithm: lms") || strings.Contains(conf, "\n    votes:") {
		t.Errorf("%s", conf)
	}

	w.fails = regexp.MustCompile("certutil -s")
	_, err := Renew(t.Context(), w.Host, w.services(), Options{NoCopyID: true})
	if plan.CodeOf(err) != plan.NotUndone || !strings.Contains(err.Error(), "no external vote now") {
		t.Errorf("it fails in between: %v", err)
	}
}

// A node that is off goes with the vote at once: without both the rest may have no quorum.
func TestARemovalTakesTheVoteAlong(t *testing.T) {
	four := func(t *testing.T) *world {
		w := newWorld(t, confText).with(t)
		conf, members := w.conf(t), `"node1":{"id":1,"online":1,"ip":"10.99.0.1"},"node2":{"id":2,"online":1,"ip":"10.99.0.2"},"node3":{"id":3,"online":0}`
		conf = strings.Replace(conf, "    ring0_addr: 10.99.0.2\n  }\n", "    ring0_addr: 10.99.0.2\n  }\n  node {\n    name: node3\n    nodeid: 3\n    quorum_votes: 1\n    ring0_addr: 10.99.0.4\n  }\n", 1)
		w.put(t, host.ClusterConf, conf)
		w.put(t, "/etc/pve/.members", `{"nodename":"node1","cluster":{"name":"lab","version":1,"nodes":3,"quorate":1},"nodelist":{`+members+`}}`)
		return w
	}
	w := four(t)
	said := false
	remove := func(device bool) error {
		said = device
		f := strings.Replace(confText, "config_version: 53", "config_version: 60", 1)
		w.put(t, host.ClusterConf, f)
		return nil
	}
	o := Options{NoCopyID: true, Without: "node3"}
	if err := Around(t.Context(), w.Host, w.services(), o, remove); err != nil || !said {
		t.Fatalf("%v, %v", err, said)
	}
	if conf := w.conf(t); !strings.Contains(conf, "algorithm: ffsplit") {
		t.Errorf("%s", conf)
	}
	if len(w.did("^node2: systemctl stop corosync-qdevice; systemctl disable")) != 1 {
		t.Errorf("%q", w.ran)
	}

	// What can't be set up again is known before.
	w = four(t)
	w.lacks["node2"] = "tool"
	before := w.conf(t)
	err := Around(t.Context(), w.Host, w.services(), o, func(bool) error { t.Error("it was removed"); return nil })
	if plan.CodeOf(err) != plan.Refused || w.conf(t) != before {
		t.Errorf("%v", err)
	}
	// Without a device it is a plain removal.
	w = newWorld(t, confText)
	if err := Around(t.Context(), w.Host, w.services(), o, func(device bool) error { said = device; return nil }); err != nil || said {
		t.Errorf("%v, %v", err, said)
	}
}

func TestStateIsReadAsRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/qdevice-socket.txt")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/qdevice-api.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct{ Data map[string]string }
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	// Which the stock tool never finds, since it looks for another name.
	want.Data["Echo reply received"] = "2026-11-30T13:50:44"
	got := State(text)
	if len(got) != len(want.Data) {
		t.Errorf("%v, want %v", got, want.Data)
	}
	for key, value := range want.Data {
		if got[key] != value {
			t.Errorf("%s: %q, want %q", key, got[key], value)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte("OK\nModel:\t\t\tNet\n    0\tNode ID = 1\nState:\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { State(b) })
}
