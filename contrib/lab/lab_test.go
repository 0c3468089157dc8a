package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
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

func TestHostsHaveTheirOwnNamesAndPaths(t *testing.T) {
	l := NewWith(t, Options{Hosts: 2, NoCorosync: true})
	for _, h := range l.Hosts() {
		if got := mustExec(t, h, "hostname"); got != h.Name() {
			t.Errorf("host name %q, want %q", got, h.Name())
		}
		for _, dir := range []string{"/etc", "/etc/corosync", "/etc/pve", "/var/lib/corosync", "/var/lib/pve-cluster",
			"/var/lib/rrdcached", "/var/log", "/run", "/dev/shm"} {
			file := filepath.Join(dir, "lab-test-mark")
			mustExec(t, h, "sh", "-c", "echo "+h.Name()+" > "+file)
			if got, err := os.ReadFile(h.Path(file)); err != nil || string(got) != h.Name()+"\n" {
				t.Errorf("%s:%s from outside: %q, %v", h.Name(), file, got, err)
			}
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is on the machine: %v", file, err)
			}
		}
	}
	for _, h := range l.Hosts() { // the second host did not overwrite the first's
		if got := mustExec(t, h, "cat", "/etc/pve/lab-test-mark", "/dev/shm/lab-test-mark"); got != h.Name()+"\n"+h.Name() {
			t.Errorf("%s reads %q", h.Name(), got)
		}
	}
	if got := mustExec(t, l.Host(1), "getent", "hosts", "node2"); !strings.HasPrefix(got, Address(2)) {
		t.Errorf("node2 resolves to %q", got)
	}
}

func TestHostsHoldNoFuseMountOfTheMachine(t *testing.T) {
	Require(t)
	dir := filepath.Join(t.TempDir(), "with space")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := gofs.Mount(dir, &gofs.Inode{}, &gofs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = server.Unmount()
		}
	})
	l := NewWith(t, Options{Hosts: 1, NoCorosync: true})
	for _, m := range strings.Split(mustExec(t, l.Host(1), "cat", "/proc/mounts"), "\n") {
		if f := strings.Fields(m); len(f) > 2 && strings.HasPrefix(f[2], "fuse") && f[2] != "fusectl" {
			t.Errorf("mounted on the host: %s", m)
		}
	}
	if err := server.Unmount(); err != nil {
		t.Fatal(err)
	}
	mounted = false
	ended := make(chan struct{})
	go func() { server.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the machine's FUSE daemon doesn't end while a lab is up")
	}
}

func TestHostReapsOrphans(t *testing.T) {
	l := NewWith(t, Options{Hosts: 1, NoCorosync: true})
	h := l.Host(1)
	// A daemon's way: the parent goes, the child is an orphan and ends.
	pid := mustExec(t, h, "sh", "-c", "sh -c 'exit 3' & echo $!")
	err := poll(testContext(t), time.Millisecond, func() (bool, error) {
		_, err := os.Stat(h.Path("/proc/" + pid))
		return errors.Is(err, fs.ErrNotExist), fmt.Errorf("orphan %s is a zombie", pid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessIsSeenSignalledAndStopped(t *testing.T) {
	l := NewWith(t, Options{Hosts: 1, NoCorosync: true})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := l.Host(1).Start(Spec{Args: []string{"sh", "-c", "trap 'exit 7' USR1; echo $$; while :; do sleep 0.01; done"}, Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if got := strconv.Itoa(p.HostPid()); got != strings.TrimSpace(line) {
		t.Errorf("HostPid is %s, the process says %s", got, line)
	}
	if !p.Running() {
		t.Error("not running")
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil || !p.standsStill() {
		t.Errorf("it goes on after SIGSTOP (%v)", err)
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Error(err)
	}
	if err := p.Stop(syscall.SIGUSR1, 10*time.Second); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("ended with %v, want status 7", err)
	}
	if p.Running() {
		t.Error("still running")
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	l := NewWith(t, Options{Hosts: 1, NoCorosync: true})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := l.Host(1).Start(Spec{Args: []string{"sh", "-c", "trap '' TERM; echo; while :; do sleep 0.01; done"}, Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != nil { // the trap is set
		t.Fatal(err)
	}
	if err := p.Stop(syscall.SIGTERM, 50*time.Millisecond); err == nil {
		t.Error("Stop says that a process which ignores the signal ended by it")
	}
	if p.Running() {
		t.Error("still running")
	}
}

func TestPartitionsAndHealing(t *testing.T) {
	l := New(t, 3)
	ctx := testContext(t)
	check := func(what string, sides ...[]int) {
		t.Helper()
		for _, side := range sides {
			if err := l.WaitMembers(ctx, side...); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, i := range side {
				q, err := l.Host(i).Quorum(ctx)
				if err != nil || q.Quorate != (len(side) >= 2) {
					t.Fatalf("%s: node%d: %+v, %v", what, i, q, err)
				}
			}
		}
	}
	steps := []struct {
		what  string
		do    func() error
		sides [][]int
	}{
		{"cut", func() error { return l.Cut(1) }, [][]int{{1}, {2, 3}}},
		{"heal host", func() error { return l.HealHost(1) }, [][]int{{1, 2, 3}}},
		{"split", func() error { return l.Split([]int{1, 3}) }, [][]int{{1, 3}, {2}}},
		{"three sides", func() error { return l.Split([]int{1}, []int{2}) }, [][]int{{1}, {2}, {3}}},
		{"heal", l.Heal, [][]int{{1, 2, 3}}},
		{"kill", l.Host(2).KillCorosync, [][]int{{1, 3}}},
		{"start", l.Host(2).StartCorosync, [][]int{{1, 2, 3}}},
		{"stop", l.Host(3).StopCorosync, [][]int{{1, 2}}},
		{"start again", l.Host(3).StartCorosync, [][]int{{1, 2, 3}}},
		{"crash", l.Host(1).Crash, [][]int{{2, 3}}},
		{"start after the crash", l.Host(1).StartCorosync, [][]int{{1, 2, 3}}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		check(s.what, s.sides...)
	}
	if err := l.Split([]int{1}, []int{1, 2}); err == nil {
		t.Error("a host on two sides was accepted")
	}
	if err := l.Split([]int{4}); err == nil {
		t.Error("a host that isn't there was accepted")
	}
}

func TestLabsRunSideBySide(t *testing.T) {
	a, b := New(t, 1), New(t, 2)
	mustExec(t, a.Host(1), "touch", "/etc/pve/only-in-a")
	if _, err := os.Stat(b.Host(1).Path("/etc/pve/only-in-a")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("two labs share a host's files")
	}
	if err := a.Down(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitMembers(testContext(t), 1, 2); err != nil {
		t.Error("one lab's end hurt the other: ", err)
	}
}

func TestFailuresOfUpLeaveNothing(t *testing.T) {
	Require(t)
	dir := t.TempDir()
	for _, hosts := range []int{0, -1, MaxHosts + 1} {
		if _, err := Up(Options{Hosts: hosts, Dir: dir}); err == nil {
			t.Errorf("%d hosts were accepted", hosts)
		}
	}
	t.Setenv("PATH", brokenMount(t)+":"+os.Getenv("PATH"))
	if _, err := Up(Options{Hosts: 2, Dir: dir}); err == nil || !strings.Contains(err.Error(), "no overlay today") {
		t.Errorf("Up without overlayfs: %v", err)
	}
	expectEmpty(t, dir)
}

// brokenMount gives a folder with a mount(8) that knows no overlayfs.
func brokenMount(t *testing.T) string {
	mount, err := exec.LookPath("mount")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in *overlay*) echo no overlay today >&2; exit 1;; esac\nexec " + mount + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "mount"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func expectEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestDeadOwnerLeavesNothing kills a process that owns a lab, with everything
// running: twice, the second time along with its switch's process.
func TestDeadOwnerLeavesNothing(t *testing.T) {
	if dir := os.Getenv("LAB_TEST_OWNER_DIR"); dir != "" {
		ownLabUntilKilled(dir)
	}
	Require(t)
	for _, killSwitch := range []bool{false, true} {
		t.Run(fmt.Sprintf("killSwitch=%v", killSwitch), func(t *testing.T) {
			dir := t.TempDir()
			owner := exec.Command(os.Args[0], "-test.run=^TestDeadOwnerLeavesNothing$")
			owner.Env = append(os.Environ(), "LAB_TEST_OWNER_DIR="+dir)
			owner.Stderr = os.Stderr
			out, err := owner.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := owner.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			var pids []int // switch, host, corosync, child of a shell there
			for _, f := range strings.Fields(line) {
				pid, err := strconv.Atoi(f)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				pids = append(pids, pid)
			}
			if len(pids) != 4 {
				t.Fatalf("the owner says %q", line)
			}
			starts := make([]string, len(pids))
			for i, pid := range pids {
				if starts[i] = startTime(pid); starts[i] == "" {
					t.Fatalf("process %d of %q is not there", pid, line)
				}
			}
			if killSwitch {
				_ = syscall.Kill(pids[0], syscall.SIGKILL)
			}
			_ = owner.Process.Kill()
			_ = owner.Wait()
			for i, pid := range pids {
				if err := poll(testContext(t), 5*time.Millisecond, func() (bool, error) {
					return startTime(pid) != starts[i], fmt.Errorf("process %d of %q outlives its owner", pid, line)
				}); err != nil {
					t.Fatal(err)
				}
			}
			if killSwitch {
				sweep(dir)
			}
			expectEmpty(t, dir)
		})
	}
}

// startTime identifies a process together with its pid; "" if there is none, or
// none but what its parent hasn't reaped.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[19]
}

func ownLabUntilKilled(dir string) {
	l, err := Up(Options{Hosts: 1, Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	p, err := l.Host(1).Start(Spec{Args: []string{"sleep", "1000"}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.sw.Pid(), l.Host(1).init.Pid(), l.Host(1).Corosync().Pid(), p.Pid())
	select {}
}

func TestSweepSparesLivingLabs(t *testing.T) {
	dir := t.TempDir()
	l := NewWith(t, Options{Hosts: 1, Dir: dir, NoCorosync: true})
	dead := filepath.Join(dir, dirPrefix+"1-dead")
	if err := os.MkdirAll(filepath.Join(dead, "n1"), 0o755); err != nil {
		t.Fatal(err)
	}
	sweep(dir)
	if _, err := os.Stat(l.Dir()); err != nil {
		t.Error("a living lab was swept away")
	}
	if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a dead lab's directory was left")
	}
}

func TestRunSelfRunsTheTestOnTheHost(t *testing.T) {
	if Inside() {
		if name, _ := os.Hostname(); name != os.Getenv(HostEnv) {
			t.Errorf("runs on %q", name)
		}
		return
	}
	NewWith(t, Options{Hosts: 1, NoCorosync: true}).Host(1).RunSelf(t)
}

func TestParseQuorum(t *testing.T) {
	for _, c := range []struct {
		text string
		want string
	}{
		{"Cannot initialize QUORUM service\n", "{false []} false"},
		{"Quorate:          No\n\nMembership information\n----\n    Nodeid      Votes Name\n         3          1 node3 (local)\n", "{false [3]} true"},
		{"Quorate:          Yes\nVotequorum information\nTotal votes: 2\n    Nodeid      Votes Name\n         2 1 b\n         1 1 a\n", "{true [1 2]} true"},
		{"Quorate:          Yes\n    Nodeid      Votes    Qdevice Name\n0x0000000a 1 A,V,NMW b\n", "{true [10]} true"},
	} {
		q, ok := parseQuorum(c.text)
		if got := fmt.Sprintf("%v %v", q, ok); got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
}

func TestCorosyncsPriorityIsAsAsked(t *testing.T) {
	for fair, want := range map[bool]string{true: "SCHED_OTHER", false: "SCHED_RR"} {
		l := NewWith(t, Options{Hosts: 1, Fair: fair})
		if got := mustExec(t, l.Host(1), "sh", "-c", "for i in $(seq 100); do chrt -p $(pidof corosync) | grep -q "+want+" && break; sleep 0.05; done; chrt -p $(pidof corosync)"); !strings.Contains(got, want) {
			t.Errorf("fair %v: %s", fair, got)
		}
	}
}
