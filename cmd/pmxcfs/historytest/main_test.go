package historytest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pmxcfs/contrib/lab"
)

// programEnv names the program under test.
const programEnv = "PMXCFS_HISTORYTEST_PROGRAM"

var (
	seedFlag = flag.Uint64("history.seed", 0, "record the history of this `seed` only")
	runsFlag = flag.Int("history.runs", 1, "how many histories to record")
	timeFlag = flag.Duration("history.time", 0, "how long to go on disturbing a cluster; 0: once in each way")
)

// TestMain builds the program, with the race detector if the tests have it.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if lab.Missing() != nil || flag.Lookup("test.list").Value.String() != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "pmxcfs-historytest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "pmxcfs")
	args := []string{"build", "-o", program}
	if raceDetector {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "pmxcfs/cmd/pmxcfs")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	os.Setenv(programEnv, program)
	return m.Run()
}
