package vmlab

import (
	"bufio"
	"bytes"
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
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // for a busy machine
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

// owner is this program, running a test as a process that is going to be killed; it goes on
// when it has said "owned", and what follows that is returned.
func owner(t *testing.T, test string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(append(os.Environ(), "VMLAB_TEST_OWNER=1"), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if said, ok := strings.CutPrefix(lines.Text(), "owned "); ok {
			return cmd, said
		}
	}
	t.Fatalf("%s, as a process of its own, owns nothing", test)
	return nil, ""
}

// owned tells whether this process is an owner.
func owned() bool { return os.Getenv("VMLAB_TEST_OWNER") != "" }

// TestDeadOwnerLeavesNothing kills a process that owns a running host.
func TestDeadOwnerLeavesNothing(t *testing.T) {
	if owned() {
		l := New(t, Trixie)
		pid, err := l.Host(1).leader()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("owned %d %s %s\n", pid, l.net.Dir(), l.cgroup())
		select {}
	}
	Require(t)
	cmd, said := owner(t, "TestDeadOwnerLeavesNothing")
	var pid int
	var dir, cgroup string
	if _, err := fmt.Sscanf(said, "%d %s %s", &pid, &dir, &cgroup); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
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

// TestDeadOwnersRootIsNone kills a process that is making a root, and one that runs a command
// in one: what they started ends with them, nothing is left but what the next one removes, and
// nothing of it is taken for a root.
func TestDeadOwnersRootIsNone(t *testing.T) {
	const whatEnv, markEnv = "VMLAB_TEST_WHAT", "VMLAB_TEST_MARK"
	mark := os.Getenv(markEnv)
	switch os.Getenv(whatEnv) {
	case "making": // the mark is the cache
		c, err := openCache(mark, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				if begun, _ := filepath.Glob(mark + "/root-*.new/root/var/lib/dpkg"); len(begun) > 0 {
					fmt.Println("owned", begun[0])
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		_, _, err = c.root(t.Context(), Trixie, packages)
		t.Fatalf("not killed while it was made: %v", err)
	case "running": // the mark is an argument
		r := RootRun{Suite: Trixie, Packages: packages, Args: []string{"bash", "-c", "echo owned one; sleep infinity & wait", mark}, Stdout: os.Stdout}
		t.Fatalf("not killed: %v", r.Run(t.Context()))
	}
	Require(t)
	for _, what := range []string{"making", "running"} {
		t.Run(what, func(t *testing.T) {
			tmp, mark := t.TempDir(), t.TempDir()
			cmd, _ := owner(t, "TestDeadOwnersRootIsNone", "TMPDIR="+tmp, whatEnv+"="+what, markEnv+"="+mark)
			if n := len(marked(mark)); n < 3 {
				t.Errorf("%d processes run, its owner among them: this shows nothing", n)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if err := poll(testContext(t), func() (bool, error) {
				list := marked(mark)
				return len(list) == 0, fmt.Errorf("still there: %q", list)
			}); err != nil {
				t.Error(err)
			}
			if files, err := os.ReadDir(tmp); err != nil || len(files) > 0 {
				t.Errorf("left among temporary files: %v (%v)", files, err)
			}
			if roots, err := filepath.Glob(mark + "/root-*-????????????"); err != nil || len(roots) > 0 {
				t.Errorf("left as a root: %v (%v)", roots, err)
			}
			if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(mark)) {
				t.Errorf("left mounted (%v):\n%s", err, mounts)
			}
		})
	}
}

// marked lists the processes that have this text among their arguments or in their environment.
func marked(mark string) (list []string) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		args, _ := os.ReadFile(name + "/cmdline")
		env, _ := os.ReadFile(name + "/environ")
		if bytes.Contains(append(args, env...), []byte(mark)) {
			list = append(list, fmt.Sprintf("%s %.200q", name, args))
		}
	}
	return list
}
