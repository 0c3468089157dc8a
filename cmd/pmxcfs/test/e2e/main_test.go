package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run the random tests with this `seed`")
	longFlag = flag.Bool("long", false, "run the random tests and kill loops for longer")
)

const (
	stageEnv   = "PMXCFS_E2E_STAGE" // which of TestMain's three processes this is
	baseEnv    = "PMXCFS_E2E_BASE"  // directory of everything that the tests make
	missingEnv = "PMXCFS_E2E_MISSING"
)

// TestMain runs the tests in name spaces of their own. The process that go test
// starts makes them; the second is the init of the new process name space, and
// takes all others with it when it ends; the third runs the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	switch os.Getenv(stageEnv) {
	case "init":
		os.Exit(runInit())
	case "tests":
		os.Exit(runTests(m))
	}
	if why := missing(); why != "" || flag.Lookup("test.list").Value.String() != "" {
		os.Setenv(missingEnv, why)
		os.Exit(m.Run())
	}
	code, err := runStages()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// missing says what these tests need and can't have.
func missing() string {
	if os.Geteuid() != 0 {
		return "these tests need root"
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return "these tests need FUSE: " + err.Error()
	}
	f.Close()
	return ""
}

// runStages builds the program and runs the tests in their name spaces.
func runStages() (int, error) {
	base, err := os.MkdirTemp("", "pmxcfs-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(base)
	if err := os.Mkdir(filepath.Join(base, "tmp"), 0o755); err != nil {
		return 0, err
	}
	if err := testutil.Build("pmxcfs/cmd/pmxcfs", filepath.Join(base, "pmxcfs"), false); err != nil {
		return 0, err
	}
	if raceDetector {
		dir := filepath.Join(base, "race")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return 0, err
		}
		if err := testutil.Build("pmxcfs/cmd/pmxcfs", filepath.Join(dir, "pmxcfs"), true); err != nil {
			return 0, err
		}
	}

	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"=init", baseEnv+"="+base, "TMPDIR="+filepath.Join(base, "tmp"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("making name spaces: %w", err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-end
		_ = cmd.Process.Kill()
	}()
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return code, nil
	}
	return 0, err
}

// runInit prepares the name spaces, and is the parent of whoever loses theirs.
func runInit() int {
	fail := func(what string, err error) int {
		fmt.Fprintf(os.Stderr, "e2e: %s: %v\n", what, err)
		return 1
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fail("making mounts private", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fail("mounting /proc", err)
	}
	// Without it a FUSE connection can't be aborted; most hosts have it.
	if err := syscall.Mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, ""); err != nil && err != syscall.EBUSY {
		return fail("mounting FUSE's control file system", err)
	}
	if err := syscall.Sethostname([]byte("node1")); err != nil {
		return fail("naming the host", err)
	}
	os.Setenv(stageEnv, "tests")
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return fail("starting the tests", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return fail("waiting for the tests", err)
		case pid == child.Pid && status.Signaled():
			return fail("the tests were killed", errors.New(status.Signal().String()))
		case pid == child.Pid:
			return status.ExitStatus()
		}
	}
}

// runTests runs the tests and makes sure that they left nothing behind.
func runTests(m *testing.M) int {
	before, err := mounts()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	var left []string
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if left = leftovers(before); len(left) == 0 {
			return code
		}
		if time.Now().After(deadline) {
			break
		}
	}
	fmt.Fprintf(os.Stderr, "e2e: the tests left behind:\n\t%s\n", strings.Join(left, "\n\t"))
	return max(code, 1)
}

// mounts returns the mount points in this name space.
func mounts() ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 {
			list = append(list, f[4])
		}
	}
	return list, nil
}

// leftovers lists the mounts, processes and files that should not be there.
func leftovers(before []string) (left []string) {
	now, err := mounts()
	if err != nil {
		return []string{err.Error()}
	}
	for _, dir := range now {
		if i := slices.Index(before, dir); i < 0 {
			left = append(left, "mount on "+dir)
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		if cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil {
			left = append(left, fmt.Sprintf("process %d %q", pid, cmdline))
		}
	}
	files, err := os.ReadDir(os.TempDir())
	if err != nil {
		return []string{err.Error()}
	}
	for _, f := range files {
		left = append(left, "file "+filepath.Join(os.TempDir(), f.Name()))
	}
	return left
}

// needLab skips a test where it can't run.
func needLab(t testing.TB) {
	t.Helper()
	if os.Getenv(stageEnv) == "tests" {
		return
	}
	if os.Getenv("PMXCFS_REQUIRE_LAB") == "1" {
		t.Fatal(os.Getenv(missingEnv))
	}
	t.Skip(os.Getenv(missingEnv))
}

// TestCacheKnowsTheProgram has go test notice that its cached results are of
// another program: it looks at what the tests looked at.
func TestCacheKnowsTheProgram(t *testing.T) {
	needLab(t)
	n := 0
	err := filepath.WalkDir("../../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && path != "../../../.." {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go", ".c", ".h", ".mod":
			n++
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil || n < 50 {
		t.Fatalf("%d files, %v", n, err)
	}
}

// seed returns the seed for a random test and prints it.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return s
}
