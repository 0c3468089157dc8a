package labtest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
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
	if err := testutil.Build("pmxcfs/cmd/pmxcfs", program, race); err != nil {
		fmt.Fprintln(os.Stderr, err)
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
