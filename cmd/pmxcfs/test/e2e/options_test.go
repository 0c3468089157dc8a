package e2e

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWrongUsageIsExplainedAndFails(t *testing.T) {
	n := newInstance(t)
	for _, args := range [][]string{
		{"--no-such-option"}, {"-x"}, {"--debug=maybe"}, {"argument"}, {"no-such-command"}, {"--root"},
		{"-f", "-l", "argument"}, {"--node-address", "nonsense", "-f"}, {"--group", ""},
		{"--node-name", "a/b", "-f", "-l"}, {"--node-name", "..", "-f", "-l"},
	} {
		code, stdout, stderr := n.runToEnd(append([]string{"--root", n.root}, args...)...)
		if code != 1 || stdout != "" || len(strings.TrimSpace(stderr)) < 10 {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	if n.mounted() {
		t.Error("one of them mounted")
	}
}

// TestEmptyPathsAreNoDefaults has a script's variable be unset. Nothing may run then: it
// would run on the host's own files.
func TestEmptyPathsAreNoDefaults(t *testing.T) {
	n := newInstance(t)
	places := []string{"mount-point", "database", "lock-file", "run-dir", "pid-file", "rrd-dir", "rrdcached-socket", "corosync-conf"}
	// Whatever becomes of the option that is empty, nothing runs on the host's files.
	var safe []string
	for _, p := range append(places, "socket") {
		safe = append(safe, "--"+p, filepath.Join(n.root, "safe", p))
	}
	safe = append(safe, "--ipc-name", "pmxcfs-test-"+filepath.Base(n.root), "--metrics-listen", "", "-f", "-l")
	for _, option := range append(places, "root", "log-file", "metrics-web-config") {
		runs := [][]string{append(slices.Clone(safe), "--"+option, "")}
		if option != "log-file" && option != "metrics-web-config" {
			runs = append(runs, []string{"--root", n.root, "status", "--" + option, ""})
		}
		for _, args := range runs {
			code, stdout, stderr := n.runToEnd(args...)
			if code != 1 || stdout != "" || !strings.Contains(stderr, "--"+option+" is empty") {
				t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
			}
		}
	}
	n.env = append(n.env, "PMXCFS_DATABASE=")
	if code, _, stderr := n.runToEnd("--root", n.root, "-f", "-l"); code != 1 || !strings.Contains(stderr, " is empty") {
		t.Errorf("from the environment: exit code %d, %q", code, stderr)
	}
	if n.mounted() {
		t.Error("one of them mounted")
	}
}

func TestHelpAndVersionSucceed(t *testing.T) {
	n := newInstance(t)
	for arg, want := range map[string]string{"--help": "--foreground", "-h": "--local", "--version": "pmxcfs"} {
		code, stdout, stderr := n.runToEnd(arg)
		if code != 0 || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: exit code %d, %q, %q", arg, code, stdout, stderr)
		}
	}
	_, help, _ := n.runToEnd("--help")
	for _, option := range []string{"-d", "--debug", "-f", "--foreground", "-l", "--local", "--mount-point", "--database",
		"--lock-file", "--run-dir", "--pid-file", "--corosync-conf", "--root", "--node-name", "--group", "--log-file", "PMXCFS_ROOT",
		"--metrics-listen", "--metrics-web-config", "--socket"} {
		if !strings.Contains(help, option) {
			t.Errorf("--help does not tell of %s", option)
		}
	}
}

func TestEveryFileCanBeMoved(t *testing.T) {
	paths := map[string]string{
		"mount-point": "a/mnt", "database": "b/tree.db", "lock-file": "c/lock", "run-dir": "d/run", "pid-file": "e/pid",
	}
	check := func(t *testing.T, n *instance) {
		n.mount = filepath.Join(n.root, "a/mnt")
		n.db = filepath.Join(n.root, "b/tree.db")
		n.eventually("it is up", func() bool {
			b, err := os.ReadFile(filepath.Join(n.root, "e/pid"))
			return err == nil && len(b) > 1
		})
		n.write("file", "content")
		for _, path := range []string{"b/tree.db", "c/lock", "d/run"} {
			if _, err := os.Stat(filepath.Join(n.root, path)); err != nil {
				t.Error(err)
			}
		}
		n.stop()
		if _, err := os.Stat(filepath.Join(n.root, "d/run/cfs-restart-flag")); err != nil {
			t.Error(err)
		}
		for _, path := range []string{"etc", "run"} {
			if _, err := os.Stat(filepath.Join(n.root, path)); err == nil {
				t.Errorf("it made %s", path)
			}
		}
	}
	t.Run("by options", func(t *testing.T) {
		n := newInstance(t)
		args := n.args("-f")
		for option, path := range paths {
			args = append(args, "--"+option, filepath.Join(n.root, path))
		}
		n.launchArgs(args...)
		check(t, n)
	})
	t.Run("by environment variables", func(t *testing.T) {
		n := newInstance(t)
		n.env = append(n.env, "PMXCFS_FOREGROUND=1", "PMXCFS_LOCAL=true", "PMXCFS_ROOT="+n.root, "PMXCFS_NODE_NAME=node1", "PMXCFS_NODE_ADDRESS=192.0.2.1")
		for option, path := range paths {
			n.env = append(n.env, "PMXCFS_"+strings.ToUpper(strings.ReplaceAll(option, "-", "_"))+"="+filepath.Join(n.root, path))
		}
		n.launchArgs()
		check(t, n)
	})
	t.Run("an option beats its variable", func(t *testing.T) {
		n := newInstance(t)
		n.env = append(n.env, "PMXCFS_NODE_NAME=other")
		n.start()
		if to, err := os.Readlink(n.path("local")); err != nil || to != "nodes/node1" {
			t.Errorf("local leads to %s, %v", to, err)
		}
		n.stop()
	})
}

func TestUnknownGroupIsAnError(t *testing.T) {
	n := newInstance(t)
	code, _, stderr := n.runToEnd(n.args("-f", "--group", "no-such-group")...)
	if code != 1 || !strings.Contains(stderr, `"no-such-group"`) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestAnotherGroupOwnsTheTree(t *testing.T) {
	n := newInstance(t)
	n.start("--group", "daemon")
	n.write("file", "x")
	wantMode(t, n.path("file"), 0o640, 1)
	wantMode(t, filepath.Join(n.root, "run/pve-cluster"), os.ModeDir|0o750, 1)
	must(t, os.Chown(n.path("file"), 0, 1))
	n.stop()
}

// withFile puts a file in the place of one of the host's, for the test's
// length.
func withFile(t *testing.T, place, content string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte(content), 0o644))
	must(t, syscall.Mount(file, place, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { must(t, syscall.Unmount(place, syscall.MNT_DETACH)) })
}

func TestNodeNameAndAddressComeFromTheHost(t *testing.T) {
	needLab(t)
	withFile(t, "/etc/nsswitch.conf", "hosts: files\ngroup: files\npasswd: files\n")
	withFile(t, "/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 loop\n127.0.1.1 alpha\n192.0.2.7 alpha.example.org alpha\n")
	host := func(t *testing.T, name string) {
		must(t, unix.Sethostname([]byte(name)))
		t.Cleanup(func() { must(t, unix.Sethostname([]byte("node1"))) })
	}
	t.Run("up to the first dot", func(t *testing.T) {
		n := newInstance(t)
		host(t, "alpha.example.org")
		n.launchArgs("--root", n.root, "-f")
		n.waitUp()
		if to, err := os.Readlink(n.path("local")); err != nil || to != "nodes/alpha" {
			t.Errorf("local leads to %s, %v", to, err)
		}
		if m := n.read(".members"); !strings.Contains(m, `"nodename": "alpha"`) {
			t.Errorf(".members is %s", m)
		}
		n.wantLog("address=192.0.2.7")
		n.stop()
	})
	for name, why := range map[string]string{"nowhere": "does not resolve", "loop": "loopback"} {
		t.Run(why, func(t *testing.T) {
			n := newInstance(t)
			host(t, name)
			code, _, stderr := n.runToEnd("--root", n.root, "-f")
			if code != 1 || !strings.Contains(stderr, why) || !strings.Contains(stderr, name) ||
				!strings.Contains(stderr, "/etc/hosts") || !strings.Contains(stderr, "DNS") {
				t.Errorf("exit code %d, %q", code, stderr)
			}
			if n.mounted() {
				t.Error("it mounted")
			}
		})
	}
}

func TestCorosyncConfIsImportedIntoANewDatabaseOnly(t *testing.T) {
	conf := "totem {\n  version: 2\n  config_version: 3\n}\n"
	put := func(n *instance) {
		must(t, os.MkdirAll(filepath.Join(n.root, "etc/corosync"), 0o755))
		must(t, os.WriteFile(filepath.Join(n.root, "etc/corosync/corosync.conf"), []byte(conf), 0o644))
	}
	t.Run("not in forced local mode", func(t *testing.T) {
		n := newInstance(t)
		put(n)
		n.start()
		if _, err := os.Stat(n.path("corosync.conf")); !os.IsNotExist(err) {
			t.Errorf("it was imported: %v", err)
		}
		n.stop()
	})
	t.Run("not into one that exists", func(t *testing.T) {
		n := newInstance(t)
		n.start()
		n.stop()
		put(n)
		n.launchArgs("--root", n.root, "--node-name", "node1", "--node-address", "192.0.2.1", "-f")
		n.waitUp()
		if _, err := os.Stat(n.path("corosync.conf")); !os.IsNotExist(err) {
			t.Errorf("it was imported: %v", err)
		}
		n.stop()
	})
}

func TestDebugMessagesCanBeTurnedOnAndOff(t *testing.T) {
	n := newRaced(t)
	n.start()
	n.wantContent(".debug", "0\n")
	write := func(content string) error {
		f, err := os.OpenFile(n.path(".debug"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(content)
		return err
	}
	must(t, write("1\n"))
	n.wantContent(".debug", "1\n")
	for _, bad := range []string{"1", "2\n", "on\n", "1\n1\n", "\n", "1\n "} {
		if err := write(bad); err == nil || !strings.Contains(err.Error(), syscall.EIO.Error()) {
			t.Errorf("writing %q answers %v", bad, err)
		}
	}
	n.wantContent(".debug", "1\n")
	must(t, write("0\n"))
	n.wantContent(".debug", "0\n")
	for _, name := range []string{".version", ".members", ".vmlist", ".clusterlog", ".rrd"} {
		if err := os.WriteFile(n.path(name), []byte("x"), 0); err == nil {
			t.Errorf("%s can be written", name)
		}
		if err := os.Remove(n.path(name)); err == nil {
			t.Errorf("%s can be removed", name)
		}
	}
	n.stop()
	n.start("-d")
	n.wantContent(".debug", "1\n")
	n.stop()
}

// wantLogLines checks that every line of a log says when, which domain, and how
// grave.
func wantLogLines(t *testing.T, log string) {
	t.Helper()
	if log == "" {
		t.Error("the log is empty")
	}
	for line := range strings.Lines(log) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[1], "[") || !strings.HasSuffix(f[1], "]") || len(f[1]) < 4 || !strings.HasSuffix(f[2], ":") {
			t.Errorf("a line without time, domain or level: %q", line)
		}
	}
}

func TestLogLinesHaveADomainAndGoToAFileToo(t *testing.T) {
	n := newInstance(t)
	file := filepath.Join(n.root, "pmxcfs.log")
	n.start("--log-file", file)
	n.stop()
	wantLogLines(t, n.logText())
	b, err := os.ReadFile(file)
	must(t, err)
	wantLogLines(t, string(b))
	for _, want := range []string{"[main] notice: the file system is up", "[main] notice: stopping"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the log file lacks %q:\n%s", want, b)
		}
	}
	if code, _, stderr := n.runToEnd(n.args("-f", "--log-file", "/no/such/directory/log")...); code != 1 || !strings.Contains(stderr, "/no/such/directory/log") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	// In the background the file is all that is left.
	must(t, os.Remove(file))
	if code, _, stderr := n.runToEnd(n.args("--log-file", file)...); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	pid := n.pid()
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	n.eventually("the daemon ends", func() bool { return !alive(pid) })
	b, err = os.ReadFile(file)
	must(t, err)
	if !strings.Contains(string(b), "stopping") {
		t.Errorf("the log file lacks the end:\n%s", b)
	}
}

func TestLogGoesToTheJournalWithFields(t *testing.T) {
	n := newInstance(t)
	run := "/run"
	must(t, syscall.Mount("tmpfs", run, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, syscall.Unmount(run, syscall.MNT_DETACH)) })
	must(t, os.MkdirAll("/run/systemd/journal", 0o755))
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/systemd/journal/socket", Net: "unixgram"})
	must(t, err)
	defer socket.Close()
	n.start()
	must(t, socket.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 64<<10)
	for {
		size, err := socket.Read(buf)
		if err != nil {
			t.Fatalf("the journal never hears that the daemon is up: %v", err)
		}
		record := "\n" + string(buf[:size])
		for _, field := range []string{"\nMESSAGE=[", "\nPRIORITY=", "\nSYSLOG_IDENTIFIER=pmxcfs\n", "\nSYSLOG_FACILITY=3\n", "\nPMXCFS_DOMAIN="} {
			if !strings.Contains(record, field) {
				t.Errorf("a record lacks %q: %q", field, record)
			}
		}
		if strings.Contains(record, "MESSAGE=[main] the file system is up") {
			if !strings.Contains(record, "\nPMXCFS_NODE=node1\n") || !strings.Contains(record, "\nPRIORITY=5\n") {
				t.Errorf("%q", record)
			}
			break
		}
	}
	n.stop()
}

func TestAnotherMountOnTheMountPointIsLeftAlone(t *testing.T) {
	n := newInstance(t)
	must(t, os.MkdirAll(n.mount, 0o750))
	must(t, syscall.Mount("tmpfs", n.mount, "tmpfs", 0, "size=1m"))
	must(t, os.WriteFile(n.path("below"), []byte("x"), 0o600))
	n.start()
	n.write("file", "x")
	n.stop()
	if b, err := os.ReadFile(n.path("below")); err != nil || string(b) != "x" {
		t.Errorf("what was mounted there is gone: %q, %v", b, err)
	}
}
