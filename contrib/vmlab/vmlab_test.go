package vmlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func mustExec(t *testing.T, h *Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(testContext(t), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestHostsBootRebootAndKeepTheirDisks(t *testing.T) {
	l := New(t, Trixie, Bookworm)
	ctx := testContext(t)
	a, b := l.Host(1), l.Host(2)
	for _, h := range l.Hosts() {
		if got := mustExec(t, h, "cat", "/proc/1/comm", "/etc/hostname", "/proc/sys/kernel/hostname"); got != "systemd\n"+h.Name()+"\n"+h.Name() {
			t.Errorf("%s says %q", h.Name(), got)
		}
		if units, err := h.FailedUnits(ctx); err != nil || len(units) > 0 {
			t.Errorf("%s: failed units %v, %v", h.Name(), units, err)
		}
		mustExec(t, h, "test", "-c", "/dev/fuse")
	}
	if err := a.WriteFile("/root/mark", []byte("here"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(ctx, "test", "-e", "/root/mark"); err == nil {
		t.Error("the hosts share a disk")
	}
	boot := mustExec(t, a, "cat", "/proc/1/stat")
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"reboot", func() error { return a.Reboot(ctx) }},
		{"shutdown", func() error { return errors.Join(a.Shutdown(ctx), a.Boot(ctx)) }},
		{"crash", func() error { return errors.Join(a.Crash(ctx), a.Boot(ctx)) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		now := mustExec(t, a, "cat", "/proc/1/stat")
		if now == boot {
			t.Errorf("%s: the same systemd runs", step.what)
		}
		boot = now
		if got := mustExec(t, a, "cat", "/root/mark"); got != "here" {
			t.Errorf("%s: the disk holds %q", step.what, got)
		}
	}
	if n := len(strings.Split(mustExec(t, a, "journalctl", "--list-boots", "--quiet", "--no-pager"), "\n")); n != 4 {
		t.Errorf("the journal knows %d boots, not 4", n)
	}
	if err := a.Boot(ctx); err == nil {
		t.Error("a running host was booted")
	}

	ping := func() error {
		_, err := b.Exec(ctx, "ping", "-c1", "-W1", "node1")
		return err
	}
	if err := ping(); err != nil {
		t.Error(err)
	}
	if err := l.Cut(1); err != nil {
		t.Fatal(err)
	}
	if ping() == nil {
		t.Error("a host without cable answers")
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, func() (bool, error) { err := ping(); return err == nil, err }); err != nil {
		t.Error(err)
	}

	mustExec(t, a, "logger", "-t", "mark", "said")
	var entries []Entry
	err := poll(ctx, func() (bool, error) {
		var err error
		entries, err = a.Journal(ctx, "SYSLOG_IDENTIFIER=mark")
		return len(entries) > 0, err
	})
	if err != nil || len(entries) != 1 || entries[0].Field("MESSAGE") != "said" {
		t.Errorf("the journal gives %v, %v", entries, err)
	}

	if err := a.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctx, "true"); !errors.Is(err, ErrOff) {
		t.Errorf("a host that is off answers %v", err)
	}
}

func TestInstallBringsDependenciesAndStaysOffTheMachinesNetwork(t *testing.T) {
	l := New(t, Trixie)
	ctx := testContext(t)
	h := l.Host(1)
	deb := makeDeb(t, "vmlab-test", "Depends: netcat-openbsd\n")
	mustExec(t, h, "sh", "-c", "! command -v nc")
	if out, err := h.Install(ctx, []string{deb}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mustExec(t, h, "sh", "-c", "command -v nc")
	if got := mustExec(t, h, "cat", "/etc/vmlab-test"); got != "vmlab-test" {
		t.Errorf("the package's file holds %q", got)
	}
	if got := mustExec(t, h, "ip", "-brief", "-4", "address", "show", "eth0"); !strings.Contains(got, h.Address()+"/24") {
		t.Errorf("the host's network: %q", got)
	}
	if got := mustExec(t, h, "ip", "route", "show", "default"); got != "" {
		t.Errorf("the host reaches out: %q", got)
	}
	if _, err := h.Apt(ctx, "purge", "vmlab-test", "netcat-openbsd"); err != nil {
		t.Fatal(err)
	}
	// What the cache lost is fetched anew.
	mustExec(t, h, "sh", "-c", "rm -f /var/cache/apt/archives/netcat-openbsd_*; echo junk > /var/cache/apt/archives/netcat-openbsd_1_amd64.deb")
	mustExec(t, h, "sh", "-c", "for f in /var/lib/apt/lists/*_Packages*; do echo junk > $f; done")
	if out, err := h.Install(ctx, []string{deb}); err != nil {
		t.Fatalf("with a damaged cache: %v\n%s", err, out)
	}
}

// makeDeb builds a package with one file, /etc/NAME.
func makeDeb(t *testing.T, name, fields string) string {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"DEBIAN/control": "Package: " + name + "\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\n" + fields + "Description: a test\n",
		"etc/" + name:    name + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, name+".deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", filepath.Join(dir, name), deb).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return deb
}

func TestDamagedRootIsMadeAnew(t *testing.T) {
	Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	c, err := openCache(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := openCache("", nil)
	if err != nil {
		t.Fatal(err)
	}
	sound, lock, err := shared.root(ctx, Trixie, packages)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.dir, filepath.Base(sound))
	out, err := exec.CommandContext(ctx, "cp", "-a", sound, dir).CombinedOutput()
	lock.Close()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if why := flaw(ctx, dir); why != "" {
		t.Fatalf("a copy of a sound root: %s", why)
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/bin/systemctl"), []byte("junk"), 0o755); err != nil {
		t.Fatal(err)
	}
	if why := flaw(ctx, dir); !strings.Contains(why, "damaged") {
		t.Errorf("a damaged root: %q", why)
	}
	again, lock, err := c.root(ctx, Trixie, packages)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if why := flaw(ctx, again); again != dir || why != "" {
		t.Errorf("after making it anew, %s: %q", again, why)
	}
}

// TestDeadOwnerLeavesNothing kills a process that owns a running host.
func TestDeadOwnerLeavesNothing(t *testing.T) {
	if os.Getenv("VMLAB_TEST_OWNER") != "" {
		l := New(t, Trixie)
		pid, err := l.Host(1).leader()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("owned %d %s %s\n", pid, l.net.Dir(), l.cgroup())
		select {}
	}
	Require(t)
	owner := exec.Command(os.Args[0], "-test.run=^TestDeadOwnerLeavesNothing$")
	owner.Env = append(os.Environ(), "VMLAB_TEST_OWNER=1")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir, cgroup string
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "owned %d %s %s", &pid, &dir, &cgroup)
	}
	if pid == 0 {
		t.Fatal("the owner has no host")
	}
	_ = owner.Process.Kill()
	_ = owner.Wait()
	// In a lab's host the hierarchy can be seen without leaving a mount here.
	l, err := lab.Up(lab.Options{Hosts: 1, NoCorosync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := l.Host(1).Exec(testContext(t), "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/proc/" + strconv.Itoa(pid), dir, l.Host(1).Path("/sys/fs/cgroup/" + cgroup)} {
		if err := poll(testContext(t), func() (bool, error) {
			_, err := os.Stat(path)
			return errors.Is(err, os.ErrNotExist), fmt.Errorf("%s outlives its owner (%v)", path, err)
		}); err != nil {
			t.Error(err)
		}
	}
}
