package labtest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pmxcfs/contrib/lab"
)

// ProgramEnv names the program under test. Main sets it; if it is set already,
// that program is tested and none is built.
const ProgramEnv = "PMXCFS_LABTEST_PROGRAM"

// Main is what a TestMain does: it builds the program, with the race detector if
// the tests have it, and runs the tests. It returns the exit status.
//
//	func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
func Main(m *testing.M) int {
	return run(m, RaceDetector)
}

// MainWithoutRace is Main for tests of what commands show and write: those start by the hundred, and
// with the race detector each takes five times as long. What happens at once has tests elsewhere.
func MainWithoutRace(m *testing.M) int { return run(m, false) }

func run(m *testing.M, race bool) int {
	if os.Getenv(requestsEnv) != "" {
		return makeRequests(os.Stdin, os.Stdout)
	}
	flag.Parse()
	if lab.Inside() || lab.Missing() != nil || flag.Lookup("test.list").Value.String() != "" || os.Getenv(ProgramEnv) != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "pmxcfs-labtest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "pmxcfs")
	args := []string{"build", "-o", program}
	if race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "pmxcfs/cmd/pmxcfs")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv(ProgramEnv, program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Program is the path of the program under test, on this machine and on hosts.
func Program() string { return os.Getenv(ProgramEnv) }
