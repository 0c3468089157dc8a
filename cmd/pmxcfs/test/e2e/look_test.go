package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/cmd/internal/diagnosis"
)

// TestCommandsFindTheDaemonBySameOptions has the options stand before, behind, and in
// the environment.
func TestCommandsFindTheDaemonBySameOptions(t *testing.T) {
	n := newInstance(t)
	n.start("--socket", filepath.Join(n.root, "other.sock"))
	socket := filepath.Join(n.root, "other.sock")
	for _, args := range [][]string{
		{"status", "--root", n.root, "--socket", socket},
		{"--root", n.root, "--socket", socket, "status"},
		{"--socket", socket, "status", "--root", n.root},
		{"status", "--socket", socket}, // the daemon says where it has mounted
		{"--root", "/nowhere", "--socket", "/nowhere", "status", "--root", n.root, "--socket", socket},
	} {
		n.eventually(strings.Join(args, " "), func() bool {
			code, out, _ := n.runToEnd(args...)
			return code == 0 && strings.HasPrefix(out, "pmxcfs on ") && strings.Contains(out, ": fine\n")
		})
	}
	// So it does who it is, wherever its pid file lies.
	_, out, _ := n.runToEnd("status", "--json", "--socket", socket)
	var o diagnosis.Overview
	if err := json.Unmarshal([]byte(out), &o); err != nil || !o.Daemon.Running || o.Daemon.PID != o.Status.Daemon.PID {
		t.Errorf("%v: %+v", err, o.Daemon)
	}
	n.env = append(n.env, "PMXCFS_ROOT="+n.root, "PMXCFS_SOCKET="+socket)
	if code, out, err := n.runToEnd("locks"); code != 0 || out != "no lock is held\n" {
		t.Errorf("from the environment: %d %q %q", code, out, err)
	}
	if code, _, err := n.runToEnd("locks", "--root", "/nowhere", "--socket", "/nowhere"); code != 1 || !strings.Contains(err, "/nowhere") {
		t.Errorf("options do not win over the environment: %d %q", code, err)
	}
	if code, out, err := n.runToEnd("compare"); code != 1 || !strings.Contains(err, "not in a cluster") {
		t.Errorf("compare without a cluster: %d %q %q", code, out, err)
	}
}

func TestStatusIsWatchedUntilInterrupted(t *testing.T) {
	n := newInstance(t)
	n.start()
	var out bytes.Buffer
	cmd := n.command("status", "--root", n.root, "--watch", "--interval", "100ms")
	r, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	buf := make([]byte, 4096)
	for strings.Count(out.String(), "\n== ") < 3 {
		k, err := r.Read(buf)
		out.Write(buf[:k])
		must(t, err)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	_, err = out.ReadFrom(r)
	must(t, err)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if strings.Contains(out.String(), "\x1b[") {
		t.Error("there are control sequences in a pipe")
	}
	if code, _, _ := n.runToEnd("status", "--interval", "1ms", "--watch"); code != 1 {
		t.Errorf("a tiny interval: status %d", code)
	}
}

// TestColourIsForTerminals runs a command on a terminal that script(1) makes.
func TestColourIsForTerminals(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip(err)
	}
	n := newInstance(t)
	n.start()
	for _, tt := range []struct {
		env  string
		want bool
	}{{"A=b", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}} {
		cmd := exec.Command("script", "-qec", program()+" status --root "+n.root, "/dev/null")
		cmd.Env = append(append(os.Environ(), "TERM=xterm"), tt.env)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "\x1b[") != tt.want || !strings.Contains(string(out), "fine") {
			t.Errorf("%s: %v: %q", tt.env, err, out)
		}
	}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	n := newInstance(t)
	n.start()
	examine := func() map[string]diagnosis.Finding {
		code, out, err := n.runToEnd("doctor", "--root", n.root, "--node-name", "n1", "--node-address", "127.0.0.1", "--json")
		var x diagnosis.Examination
		if json.Unmarshal([]byte(out), &x) != nil || code != diagnosis.Exit(x.Findings) {
			t.Fatalf("%d %s %s", code, out, err)
		}
		worst := map[string]diagnosis.Finding{}
		for _, f := range x.Findings {
			old, ok := worst[f.Check]
			if rank := map[diagnosis.Severity]int{diagnosis.OK: 0, diagnosis.Info: 1, diagnosis.Warning: 2, diagnosis.Failure: 3}; !ok || rank[f.Severity] > rank[old.Severity] {
				worst[f.Check] = f
			}
		}
		return worst
	}
	want := func(check string, s diagnosis.Severity, text string) {
		t.Helper()
		if f := examine()[check]; f.Severity != s || !strings.Contains(f.Text, text) || s != diagnosis.OK && f.Severity != diagnosis.Info && f.Remedy == "" {
			t.Errorf("%s: %+v, want %s %q", check, f, s, text)
		}
	}
	for check, text := range map[string]string{"group": "www-data", "fuse": "/dev/fuse",
		"software": "installed version", "daemon": "answers", "mount": "is served", "readiness": "does its work", "database": "is sound", "disk": "free"} {
		want(check, diagnosis.OK, text)
	}
	// The daemon's address counts, not what the command's options say.
	want("host name", diagnosis.Warning, "192.0.2.1, which is no address of this host")
	flag := filepath.Join(n.root, "run/pve-cluster/cfs-restart-flag")
	must(t, os.WriteFile(flag, nil, 0o600))
	want("leftovers", diagnosis.Warning, flag)
	must(t, os.Remove(flag))
	must(t, os.Chmod(n.db, 0o644))
	want("database", diagnosis.Failure, "mode 0644")
	must(t, os.Chmod(n.db, 0o600))
	must(t, os.Rename(n.db, n.db+".away"))
	want("database", diagnosis.Failure, "is gone")
	must(t, os.Rename(n.db+".away", n.db))
	want("database", diagnosis.OK, "is sound")
	conf := filepath.Join(n.root, "etc/corosync/corosync.conf")
	must(t, os.MkdirAll(filepath.Dir(conf), 0o755))
	must(t, os.WriteFile(conf, []byte("totem {\n config_version: 3\n cluster_name: x\n}\nnodelist {\n node {\n nodeid: 1\n ring0_addr: 10.1.1.1\n }\n node {\n nodeid: 1\n }\n}\n"), 0o644))
	want("corosync.conf", diagnosis.Failure, "nodeid 1")
	must(t, os.Remove(conf))
	n.kill()
	n.eventually("the killed daemon has ended", func() bool {
		f := examine()["daemon"]
		return f.Severity == diagnosis.Failure && f.Text == "the daemon is not running"
	})
	want("leftovers", diagnosis.Info, "not ended in order")
	must(t, os.WriteFile(n.db, bytes.Repeat([]byte("no database "), 1000), 0o600))
	for _, beside := range []string{"-wal", "-shm"} {
		if err := os.Remove(n.db + beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	want("database", diagnosis.Failure, "not a database")
	must(t, os.Remove(n.db))
}

func TestReportIsWrittenWithoutAnything(t *testing.T) {
	n := newInstance(t)
	code, out, err := n.runToEnd("report", "--root", n.root, "-")
	if code != 0 || len(out) < 500 || out[:2] != "\x1f\x8b" {
		t.Errorf("%d, %d bytes, %q", code, len(out), err)
	}
	dir := filepath.Join(n.root, "no/such/dir/file")
	if code, _, err := n.runToEnd("report", "--root", n.root, dir); code != 1 || err == "" {
		t.Errorf("%d %q", code, err)
	}
}

func TestLogIsFollowedOverARestart(t *testing.T) {
	n := newInstance(t)
	n.start()
	cmd := n.command("log", "--root", n.root, "-f", "--json")
	r, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := make(chan string, 10)
	go func() {
		defer close(lines)
		var text []byte
		buf := make([]byte, 4096)
		for {
			k, err := r.Read(buf)
			text = append(text, buf[:k]...)
			for i := bytes.IndexByte(text, '\n'); i >= 0; i = bytes.IndexByte(text, '\n') {
				lines <- string(text[:i])
				text = text[i+1:]
			}
			if err != nil {
				return
			}
		}
	}()
	next := func() {
		t.Helper()
		select {
		case line, ok := <-lines:
			if !ok || !strings.Contains(line, `"msg":"starting cluster log"`) {
				t.Fatalf("%v %q", ok, line)
			}
		case <-time.After(patience):
			t.Fatal("nothing comes")
		}
	}
	next()
	n.stop()
	n.start() // which begins its log anew
	next()
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	for range lines { // until the reader has ended
	}
}

func TestALivingLockIsBrokenWithForceOnly(t *testing.T) {
	n := newInstance(t)
	n.start()
	lock := n.path("priv/lock/living")
	must(t, os.MkdirAll(lock, 0o755))
	for _, args := range [][]string{{"living"}, {"--yes", "living"}, {"--force", "living"}} {
		code, out, err := n.runToEnd(append([]string{"locks", "break", "--root", n.root}, args...)...)
		if _, gone := os.Stat(lock); code != 1 || gone != nil || !strings.Contains(out+err, "nothing was done") {
			t.Errorf("%v: status %d, %v: %s %s", args, code, gone, out, err)
		}
	}
	if code, out, err := n.runToEnd("locks", "break", "--root", n.root, "--yes", "--force", "living"); code != 0 {
		t.Errorf("status %d: %s %s", code, out, err)
	}
	if _, err := os.Stat(lock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
}

func TestCommandsAreRoots(t *testing.T) {
	n := newInstance(t)
	n.start()
	// The program lies where only root gets to.
	dir, err := os.MkdirTemp("/tmp", "pmxcfs-e2e-roots-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	content, err := os.ReadFile(program())
	must(t, err)
	copied := filepath.Join(dir, "pmxcfs")
	must(t, os.WriteFile(copied, content, 0o755))
	cmd := n.command("status", "--root", n.root)
	cmd.Path = copied
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err = cmd.Run()
	out := text.String()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "only root") || strings.Contains(out, "move it away") {
		t.Errorf("%v: %s", err, out)
	}
}
