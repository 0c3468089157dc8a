package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// programs builds the benchmark and the daemon, once, or skips the test where a FUSE
// file system can't be mounted.
func programs(t *testing.T) (bench, daemon string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the daemon")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); os.Geteuid() != 0 || err != nil {
		t.Skip("needs root and /dev/fuse")
	} else {
		f.Close()
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "pmxcfs-bench-test-"); built.err != nil {
			return
		}
		built.err = errors.Join(
			testutil.Build("pmxcfs/contrib/bench", filepath.Join(built.dir, "bench"), false),
			testutil.Build("pmxcfs/cmd/pmxcfs", filepath.Join(built.dir, "pmxcfs"), false))
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "bench"), filepath.Join(built.dir, "pmxcfs")
}

func TestQuickRunMeasuresEveryPartAndLeavesNothingBehind(t *testing.T) {
	bench, daemon := programs(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "result.json")
	temp := filepath.Join(dir, "temp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	parts := allParts
	if lab.Missing() != nil {
		parts = slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return p == partCluster || p == partVisible || p == partJoin })
	}
	if out, err := exec.Command(bench, "-pmxcfs", daemon, "-quick", "-dir", temp, "-json", file, "-parts", strings.Join(parts, ",")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(load.Ops()); len(r.Ops) != want {
		t.Errorf("%d operations, want %d", len(r.Ops), want)
	}
	for _, o := range r.Ops {
		for _, f := range []report.Figures{o.Subject, o.Floor} {
			if f.PerSecond <= 0 || f.P50 <= 0 || f.P99 < f.P50 || f.CPU < 0 {
				t.Errorf("%s, %d clients: %+v", o.Name, o.Clients, f)
			}
		}
		if o.Floor.Written > 0 {
			t.Errorf("%s: the file system in memory wrote %v bytes to the disk per operation", o.Name, o.Floor.Written)
		}
		// OPEN and RELEASE; what the kernel has cached asks for nothing more. RELEASE is not waited
		// for: some lie outside of what is counted, or some from before inside.
		const late = 16
		if n, extra := float64(o.Floor.Ops), (o.Floor.Writes-2)*float64(o.Floor.Ops); o.Name == "read" && o.Clients == 1 && max(extra, -extra) > late {
			t.Errorf("read: %.1f requests to the floor for %v operations", 2*n+extra, n)
		}
	}
	if len(r.SQLite) != 3 || len(r.Memory) != 2 || len(r.Start) != 2 {
		t.Errorf("%d SQLite, %d memory, %d start figures", len(r.SQLite), len(r.Memory), len(r.Start))
	}
	for _, m := range r.Memory {
		const inexact = 2 << 20 // the kernel counts by processor, and sums up now and then
		if m.Mounted.Resident <= 0 || m.After.Peak+inexact < m.Busy.Resident || m.Writes <= 0 {
			t.Errorf("%+v", m)
		}
	}
	if slices.Contains(parts, partCluster) {
		checkCluster(t, &r)
	}
	for _, q := range r.Requests {
		if q.Subject.PerSecond <= 0 || q.Floor.PerSecond <= 0 || q.Subject.P50 <= 0 || q.Floor.P50 <= 0 {
			t.Errorf("request %s, %d clients: %+v", q.Name, q.Clients, q)
		}
	}
	if want := len(requests()); len(r.Requests) < 2*want {
		t.Errorf("%d figures of requests, want two for each of %d at least", len(r.Requests), want)
	}
	if len(r.Metrics) != len(report.CostOps) {
		t.Errorf("%d operations with and without metrics, want %d", len(r.Metrics), len(report.CostOps))
	}
	for _, o := range r.Metrics {
		if o.Subject.PerSecond <= 0 || o.Floor.PerSecond <= 0 || o.Ratio <= 0 {
			t.Errorf("%s with and without metrics: %+v", o.Name, o)
		}
	}
	if len(r.Beside) != 4 || len(r.Polling) != 2 {
		t.Errorf("%d figures of writers beside requests, %d of pollers", len(r.Beside), len(r.Polling))
	}
	for _, b := range r.Beside {
		if b.Subject.PerSecond <= 0 || b.Floor.PerSecond <= 0 || b.Subject.Longest < b.Subject.P50 || (b.Asked > 0) != (b.Clients > 0) || (b.Answer > 0) != (b.Clients > 0) {
			t.Errorf("%+v", b)
		}
	}
	for _, p := range r.Polling {
		if p.PerSecond <= 0 || p.P50 <= 0 || p.CPU <= 0 {
			t.Errorf("%+v", p)
		}
	}
	assertClean(t, temp)
}

// checkCluster looks at what a run has found in a cluster.
func checkCluster(t *testing.T, r *report.Report) {
	t.Helper()
	if want := 2 * len(clusterOps); len(r.Cluster) != want {
		t.Errorf("%d operations in a cluster, want %d", len(r.Cluster), want)
	}
	for _, o := range r.Cluster {
		if o.Subject.PerSecond <= 0 || o.Floor.PerSecond <= 0 || o.Subject.P50 <= 0 || o.Floor.P50 <= 0 || o.Times <= 0 || o.Speedup <= 0 {
			t.Errorf("%s in a cluster, %d clients: %+v", o.Name, o.Clients, o)
		}
		if o.Floor.Written > 0 {
			t.Errorf("bare messages wrote %v bytes to the disk each", o.Floor.Written)
		}
	}
	if len(r.Visible) != 6 || len(r.Joins) != 1 {
		t.Fatalf("%d figures of visibility, %d joins", len(r.Visible), len(r.Joins))
	}
	for _, v := range r.Visible {
		if v.Seen < 1 || v.P50 <= 0 {
			t.Errorf("%+v", v)
		}
	}
	// A join may take less than the millisecond that it is given in.
	if j := r.Joins[0]; j.Entries != 200 || len(j.Took) != 1 || j.Median < 0 || j.Reads.Total == 0 || j.LongestRead <= 0 || j.FloorRead <= 0 {
		t.Errorf("%+v", j)
	}
}

func TestInterruptEndsEverything(t *testing.T) {
	bench, daemon := programs(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			temp := t.TempDir()
			cmd := exec.Command(bench, "-pmxcfs", daemon, "-dir", temp, "-time", "1m")
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The daemon's database is there: it runs.
			testutil.WaitFor(t, "the daemon", func() bool {
				found, _ := filepath.Glob(filepath.Join(temp, "*/daemon", database+"-wal"))
				return len(found) > 0
			})
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("exit status 0 after an interrupt")
			}
			if signal == syscall.SIGKILL { // then nobody is left to remove files
				testutil.WaitFor(t, "the end of all processes", func() bool { return len(users(temp)) == 0 })
				return
			}
			assertClean(t, temp)
			if !strings.Contains(out.String(), "interrupted") {
				t.Errorf("it said: %s", out.String())
			}
		})
	}
}

func assertClean(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left := users(dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// users returns the command lines of processes that were started with dir.
func users(dir string) []string {
	var list []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f)
		if strings.Contains(string(line), dir) {
			list = append(list, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return list
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"-ops", "create,fly"}, {"-parts", "local,moon"}, {"-ops", ""}, {"-clients", "0"}, {"-clients", "one"}, {"-rounds", "0"}, {"-time", "0s"}, {"extra"}, {"-nonsense"},
	} {
		if _, err := parse(args, new(strings.Builder)); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestQuickLeavesWhatIsGivenAlone(t *testing.T) {
	c, err := parse([]string{"-quick", "-time", "200ms", "-idle", "1s"}, new(strings.Builder))
	if err != nil {
		t.Fatal(err)
	}
	if c.rounds != 1 || c.time != 200*time.Millisecond || c.idle != time.Second || c.writes >= time.Second {
		t.Errorf("rounds %d, time %v, idle %v, writes %v", c.rounds, c.time, c.idle, c.writes)
	}
}

func TestDaemonIsMeasuredBesideOneWithOtherOptions(t *testing.T) {
	t.Parallel()
	bench, daemon := programs(t)
	out, err := exec.Command(bench, "-pmxcfs", daemon, "-quick", "-dir", t.TempDir(), "-parts", "local",
		"-ops", "create", "-clients", "1", "-against", "--no-metrics --socket=").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "create") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command(bench, "-pmxcfs", daemon, "-quick", "-parts", "memory", "-against", "--no-metrics").CombinedOutput(); err == nil || !strings.Contains(string(out), "-against") {
		t.Errorf("another part: %v\n%s", err, out)
	}
	if out, err := exec.Command(bench, "-pmxcfs", daemon, "-quick", "-parts", "local", "-against", "--no-such-option").CombinedOutput(); err == nil {
		t.Errorf("an option that there is not:\n%s", out)
	}
}

func TestDaemonIsMeasuredBesideAnotherProgramAndRequestsAreCounted(t *testing.T) {
	t.Parallel()
	bench, daemon := programs(t)
	if err := lab.Missing(); err != nil {
		t.Skip(err)
	}
	temp := t.TempDir()
	file := filepath.Join(t.TempDir(), "result.json")
	out, err := exec.Command(bench, "-pmxcfs", daemon, "-against", daemon, "-quick", "-time", "200ms", "-dir", temp, "-json", file,
		"-ops", "read,mkdir-rmdir", "-clients", "1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Against) != 4 {
		t.Fatalf("%d operations, want 2 of one node and 2 of a cluster:\n%s", len(r.Against), out)
	}
	for _, a := range r.Against {
		if a.Subject.PerSecond <= 0 || a.Other.PerSecond <= 0 || a.Rate.Median <= 0 || a.P50.Median <= 0 || a.CPU.Median <= 0 {
			t.Errorf("%+v", a)
		}
		if a.Name == "mkdir-rmdir" && a.Nodes > 1 && (a.FollowerCPU[0] <= 0 || a.FollowerCPU[1] <= 0) {
			t.Errorf("%s: the followers took no time: %v", a.Name, a.FollowerCPU)
		}
		want := map[string][]string{"read": {"open", "release"}, "mkdir-rmdir": {"mkdir", "rmdir"}}[a.Name]
		if !strings.Contains(string(out), "they are left out") {
			for i := range a.Requests {
				for _, kind := range want {
					if n := a.Requests[i][kind]; n < 0.8 || n > 1.2 { // some of the first and the last of 50 may lie outside
						t.Errorf("%s, %d nodes: %.2f requests %q per operation", a.Name, a.Nodes, n, kind)
					}
				}
			}
		}
	}
	assertClean(t, temp)
}
