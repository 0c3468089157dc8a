package clustertest

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
const programEnv = "PMXCFS_CLUSTERTEST_PROGRAM"

// TestMain builds the program, with the race detector if the tests have it.
func TestMain(m *testing.M) {
	if list := os.Getenv(requestsEnv); list != "" {
		os.Exit(makeRequests(list))
	}
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if lab.Inside() || lab.Missing() != nil || flag.Lookup("test.list").Value.String() != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "pmxcfs-clustertest-")
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
