package packages

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/vmlab"
	"pmxcfs/internal/event"
	"pmxcfs/internal/testutil"
)

// exposure is the highest exposure that systemd-analyze security may find, of 100:
// what docs/installation.md accounts for, 4.7.
const exposure = "48"

// atOnce is how soon a killed daemon has to be back, from the kill to the answer: one
// second is systemd's, the rest is for a machine under load.
const atOnce = 10 * time.Second

var localStatus = regexp.MustCompile(`^local mode; version [0-9]+$`)

// Debian's corosync comes with an example of a configuration, which is nobody's
// cluster.
func (h host) installsFresh(t *testing.T, r release) {
	if conf := h.run(t, "cat", "/etc/corosync/corosync.conf"); !strings.Contains(conf, "nodelist") {
		t.Fatalf("Debian's corosync comes with this corosync.conf, which tests nothing:\n%s", conf)
	}
	h.install(t, r)
	if got := h.run(t, "systemctl", "is-enabled", unit); got != "enabled" {
		t.Errorf("the unit is %s", got)
	}
	h.serves(t, soon, ".debug", "0\n")
	if got := h.run(t, "stat", "-c", "%a %U:%G", mount); got != "755 root:www-data" {
		t.Errorf("%s is %s", mount, got)
	}
	if got := h.run(t, "pmxcfs", "--version"); !strings.Contains(got, strings.TrimPrefix(r.version, "1:")) {
		t.Errorf("pmxcfs --version says %q, the package is %s", got, r.version)
	}
	if _, err := h.read("corosync.conf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the example has become a cluster's corosync.conf: %v", err)
	}
	members, err := h.read(".members")
	if err != nil || !strings.Contains(members, `"node1"`) || strings.Contains(members, "cluster") {
		t.Errorf(".members of a single node (%v):\n%s", err, members)
	}
	h.logFigures(t)
	h.mustWrite(t, "first", "hello\n")
	if err := h.holds("first", "hello\n"); err != nil {
		t.Error(err)
	}
	status := h.property(t, unit, "StatusText")
	t.Logf("status: %s", status)
	if !localStatus.MatchString(status) {
		t.Errorf("the status is %q", status)
	}
	// Nothing waits for a corosync that is there with its example.
	h.sh(t, "systemctl restart corosync")
	if err := h.write("second", "hello\n"); err != nil {
		t.Errorf("with corosync started: %v", err)
	}
	h.well(t)
}

// logFigures logs those that docs/installation.md gives.
func (h host) logFigures(t *testing.T) {
	t.Helper()
	h.run(t, "systemctl", "restart", unit)
	took := h.number(t, unit, "ActiveEnterTimestampMonotonic") - h.number(t, unit, "ExecMainStartTimestampMonotonic")
	memory := h.sh(t, `for name in pmxcfs pmxcfs-guard; do echo $name $(sed -n 's/^\(VmRSS\|RssAnon\)://p' /proc/$(pgrep -x $name)/status); done`)
	t.Logf("from the start of the process to the mount: %v; resident, and of that its own: %s",
		time.Duration(took)*time.Microsecond, strings.ReplaceAll(memory, "\n", ", "))
}

func (h host) unitIsSound(t *testing.T) {
	if out := h.run(t, "systemd-analyze", "verify", "--recursive-errors=no", "--man=no", unit); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	out, err := h.Exec(within(t, settles), "systemd-analyze", "--no-pager", "--threshold="+exposure, "security", unit)
	if err != nil {
		t.Errorf("the unit is more exposed than recorded: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
}

// setsKernel looks at what configuring the package sets: its own limit, unless an
// administrator's file has another one. The setting is the machine's, and a host may
// not write it: what is seen is the attempt.
func (h host) setsKernel(t *testing.T, r release) {
	const file = "/etc/sysctl.d/90-test.conf"
	setting := regexp.MustCompile(`Setting '(?:/proc/sys/)?([^']*)' to '([^']*)'`)
	for _, want := range []string{"1048576", "2097152"} {
		out := h.sh(t, "SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console sh /var/lib/dpkg/info/"+plain+".postinst configure "+r.version+" 2>&1")
		var got []string
		for _, m := range setting.FindAllStringSubmatch(out, -1) {
			got = append(got, m[1]+"="+m[2])
		}
		if len(got) != 1 || got[0] != "fs/aio-max-nr="+want {
			t.Errorf("configuring sets %q, not fs/aio-max-nr to %s alone:\n%s", got, want, out)
		}
		if err := h.WriteFile(file, []byte("fs.aio-max-nr = 2097152\nvm.swappiness = 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.run(t, "rm", file)
	h.serves(t, soon, "first", "hello\n")
}

// leavesNoDeadMount kills everything of a service that is not restarted: first without
// what the units do about it, to see that the mount is left and that `pmxcfs umount` takes
// it away; then with the helper alone, which is no part of the service; then as it is.
func (h host) leavesNoDeadMount(t *testing.T) {
	const dropIn = "/etc/systemd/system/" + unit + ".d/test.conf"
	const helper = "pve-cluster-umount.service"
	for i, settings := range []string{"Restart=no\nExecStopPost=\n", "Restart=no\nExecStopPost=\n", "Restart=no\n"} {
		if i == 0 {
			h.run(t, "systemctl", "mask", "--runtime", helper)
		}
		if err := h.WriteFile(dropIn, []byte("[Service]\n"+settings), 0o644); err != nil {
			t.Fatal(err)
		}
		h.run(t, "systemctl", "daemon-reload")
		h.run(t, "systemctl", "kill", "--kill-whom=all", "--signal=KILL", unit)
		testutil.EventuallyWithin(t, soon, func() error {
			if state := h.property(t, unit, "ActiveState"); state != "failed" {
				return fmt.Errorf("the unit is %s", state)
			}
			return nil
		})
		if i == 0 {
			if n := h.mounts(t); n != 1 {
				t.Fatalf("the killed daemon has left %d mounts: this shows nothing", n)
			}
			h.run(t, "pmxcfs", "umount")
			h.run(t, "systemctl", "unmask", "--runtime", helper)
		}
		testutil.EventuallyWithin(t, soon, func() error {
			if n := h.mounts(t); n > 0 {
				return fmt.Errorf("%d mounts are left", n)
			}
			return nil
		})
		testutil.EventuallyWithin(t, soon, func() error {
			if state := h.property(t, helper, "ActiveState"); state != "inactive" {
				return fmt.Errorf("%s is %s", helper, state)
			}
			return nil
		})
		h.gone(t)
		h.run(t, "systemctl", "reset-failed", unit)
		h.run(t, "systemctl", "start", unit)
		h.serves(t, soon, "first", "hello\n")
	}
	h.run(t, "rm", "-r", "/etc/systemd/system/"+unit+".d")
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "reset-failed", unit)
	h.run(t, "systemctl", "start", unit)
	h.serves(t, soon, "first", "hello\n")
}

// separates does what Proxmox VE's documentation says of separating a node: a daemon by
// hand, in local mode and in the background, which killall ends.
func (h host) separates(t *testing.T) {
	h.apt(t, "install", "psmisc")
	h.run(t, "systemctl", "stop", unit)
	h.run(t, "pmxcfs", "-l")
	h.mustWrite(t, "while-separated", "kept")
	if got := h.sh(t, "pgrep -x pmxcfs | wc -l; pgrep -x pmxcfs-guard | wc -l"); got != "1\n1" {
		t.Errorf("processes by the names of daemon and guard: %q", got)
	}
	h.run(t, "killall", "pmxcfs")
	h.run(t, "systemctl", "start", unit)
	h.serves(t, soon, "while-separated", "kept")
	if n := h.number(t, unit, "NRestarts"); n != 0 {
		t.Errorf("the start was tried %d times more", n)
	}
	h.run(t, "rm", mount+"/while-separated")
	h.apt(t, "purge", "psmisc") // the host is compared with what it was before
}

func (h host) stopsAndStarts(t *testing.T) {
	h.run(t, "systemctl", "stop", unit)
	h.gone(t)
	if got := h.property(t, unit, "Result"); got != "success" {
		t.Errorf("the stop's result is %s", got)
	}
	h.run(t, "systemctl", "start", unit)
	h.serves(t, soon, "first", "hello\n")
	for range 3 {
		old := h.property(t, unit, "MainPID")
		h.run(t, "systemctl", "restart", unit)
		h.serves(t, soon, "first", "hello\n")
		if h.property(t, unit, "MainPID") == old {
			t.Error("the same daemon runs after a restart")
		}
	}
	if n := h.number(t, unit, "NRestarts"); n != 0 {
		t.Errorf("systemd had to restart the daemon %d times", n)
	}
}

// restarted waits until systemd has restarted the daemon after f did it harm, and
// checks that all is there again. It returns how long that took.
func (h host) restarted(t *testing.T, d time.Duration, f func()) time.Duration {
	t.Helper()
	n, begin := h.number(t, unit, "NRestarts"), time.Now()
	f()
	testutil.EventuallyWithin(t, d, func() error {
		if now := h.number(t, unit, "NRestarts"); now <= n {
			return fmt.Errorf("not restarted; the unit is %s/%s", h.property(t, unit, "ActiveState"), h.property(t, unit, "SubState"))
		}
		return nil
	})
	h.serves(t, soon, "first", "hello\n")
	took := time.Since(begin)
	t.Logf("served again after %v", took.Round(10*time.Millisecond))
	return took
}

func (h host) comesBackAfterKill(t *testing.T) {
	killed := func(t *testing.T, whom string) {
		took := h.restarted(t, soon, func() { h.run(t, "systemctl", "kill", "--kill-whom="+whom, "--signal=KILL", unit) })
		if took > atOnce {
			t.Errorf("the mount was back %v after the kill", took)
		}
	}
	for _, whom := range []string{"main", "all"} {
		t.Run(whom, func(t *testing.T) {
			name := "before-" + whom
			h.mustWrite(t, name, whom)
			killed(t, whom)
			if err := h.holds(name, whom); err != nil {
				t.Error(err)
			}
		})
	}
	// With the mount in use: a shell stands in it, a file is open.
	user, err := h.Command(t.Context(), "sh", "-c", "cd "+mount+" && exec 3<first && echo ready && cat")
	if err != nil {
		t.Fatal(err)
	}
	in, err := user.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := user.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	t.Run("in use", func(t *testing.T) {
		killed(t, "all")
		h.run(t, "systemctl", "restart", unit)
		h.serves(t, soon, "first", "hello\n")
	})
	if err := errors.Join(in.Close(), user.Wait()); err != nil {
		t.Error(err)
	}
}

// The unit's own time of the watchdog is not waited for: a shorter one is as
// good.
func (h host) comesBackAfterStandingStill(t *testing.T) {
	if usec := h.property(t, unit, "WatchdogUSec"); usec == "0" || usec == "infinity" {
		t.Fatalf("WatchdogSec is %s", usec)
	}
	const dropIn = "/etc/systemd/system/" + unit + ".d/test.conf"
	if err := h.WriteFile(dropIn, []byte("[Service]\nWatchdogSec=4s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "restart", unit)
	h.serves(t, soon, "first", "hello\n")
	n := h.number(t, unit, "NRestarts")
	// It is fed: three times the watchdog's time without a restart.
	fed := time.Now().Add(12 * time.Second)
	testutil.EventuallyWithin(t, time.Minute, func() error {
		if err := h.holds("first", "hello\n"); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(fed); left > 0 {
			return fmt.Errorf("%v to go", left)
		}
		return nil
	})
	if now := h.number(t, unit, "NRestarts"); now != n {
		t.Fatalf("a daemon that works was restarted %d times", now-n)
	}
	h.restarted(t, time.Minute, func() { h.run(t, "systemctl", "kill", "--kill-whom=main", "--signal=STOP", unit) })
	entries, err := h.Journal(within(t, settles), "--unit=init.scope", "UNIT="+unit, "--boot")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, e := range entries {
		seen = seen || strings.Contains(e.Field("MESSAGE"), "Watchdog timeout")
	}
	if !seen {
		t.Error("the journal knows of no watchdog")
	}
	h.run(t, "rm", "-r", "/etc/systemd/system/"+unit+".d")
	h.run(t, "systemctl", "daemon-reload")
	h.run(t, "systemctl", "reset-failed", unit)
	h.run(t, "systemctl", "restart", unit)
	h.serves(t, soon, "first", "hello\n")
}

func (h host) journals(t *testing.T) {
	ctx := within(t, settles)
	// Not what it writes to stderr, which systemd hands on.
	entries, err := h.Journal(ctx, "SYSLOG_IDENTIFIER=pmxcfs", "_SYSTEMD_UNIT="+unit, "_TRANSPORT=journal")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		t.Fatal("the daemon logged nothing")
	}
	up, ids := 0, map[string]string{}
	for _, e := range entries {
		h.hasFields(t, e)
		if e.Field("PMXCFS_EVENT") == string(event.DaemonUp) {
			up++
			h.hasFields(t, e, "PMXCFS_PATH", "PMXCFS_TOOK_USEC", "PMXCFS_VERSION")
		}
		if id := e.Field("MESSAGE_ID"); id != "" {
			ids[id] = e.Field("MESSAGE")
		}
	}
	if up == 0 {
		t.Error("the journal does not know that the daemon was up")
	}
	for id, message := range ids {
		h.explains(t, id, message)
	}

	// A normal write is nothing to talk about.
	count := func() int {
		entries, err := h.Journal(ctx, "_SYSTEMD_UNIT="+unit)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	h.run(t, "journalctl", "--sync")
	before := count()
	for i := range 200 {
		h.mustWrite(t, "quiet", strconv.Itoa(i))
	}
	h.run(t, "journalctl", "--sync")
	if n := count() - before; n > 2 {
		t.Errorf("200 writes made %d lines", n)
	}
}

// hasFields checks that an entry has what every one of the daemon's has, and these.
func (h host) hasFields(t *testing.T, e vmlab.Entry, names ...string) {
	t.Helper()
	if got := e.Field("PMXCFS_NODE"); got != h.Name() {
		t.Errorf("PMXCFS_NODE is %q in %v", got, e)
	}
	for _, name := range append([]string{"MESSAGE", "PRIORITY", "PMXCFS_DOMAIN"}, names...) {
		if e.Field(name) == "" {
			t.Errorf("no %s in %v", name, e)
		}
	}
}

// explains checks that journalctl -x has something to say about an event.
func (h host) explains(t *testing.T, id, message string) {
	t.Helper()
	text := h.run(t, "journalctl", "--no-pager", "--catalog", "--lines=1", "MESSAGE_ID="+id)
	if !strings.Contains(text, "░░ Subject:") || strings.Count(text, "░░") < 6 {
		t.Errorf("journalctl -x says about %q (%s) no more than:\n%s", message, id, text)
	}
}

// order checks that the daemon was ready before corosync was started.
func (h host) order(t *testing.T) {
	t.Helper()
	ready := h.number(t, unit, "ActiveEnterTimestampMonotonic")
	start := h.number(t, "corosync.service", "ExecMainStartTimestampMonotonic")
	if ready == 0 || start == 0 || ready > start {
		t.Errorf("%s: the daemon was ready at %d µs, corosync was started at %d µs", h.Name(), ready, start)
	}
}

func (h host) reboots(t *testing.T) {
	h.run(t, "systemctl", "enable", "corosync")
	h.mustWrite(t, "before-reboot", "kept")
	if err := h.Reboot(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	h.serves(t, soon, "before-reboot", "kept")
	h.order(t)
	h.well(t)
	// The stop before it was in good order.
	stopping := false
	for _, e := range must(h.Journal(within(t, settles), "--boot=-1", "UNIT="+unit))(t) {
		message := e.Field("MESSAGE")
		if strings.HasPrefix(message, "Stopping") {
			stopping = true
		} else if strings.HasPrefix(message, "Starting") {
			stopping = false
		}
		if stopping && (strings.Contains(message, "timed out") || strings.Contains(message, "SIGKILL")) {
			t.Errorf("at shutdown: %s", message)
		}
	}
	if !stopping {
		t.Error("the journal knows of no stop at shutdown")
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
