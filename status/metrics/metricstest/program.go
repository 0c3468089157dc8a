package metricstest

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Program returns the path of one of Prometheus' programs. Without it the test is
// skipped, or fails if PMXCFS_REQUIRE_LAB=1 is set.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("PMXCFS_REQUIRE_LAB") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

var ours = regexp.MustCompile(`\bpmxcfs_[a-z_]+`)

// Unknown returns the metrics of ours in an expression that the daemon does not give.
func Unknown(expr string) (list []string) {
	known := map[string]bool{}
	for _, line := range Golden() {
		f := strings.Fields(line)
		if f[1] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[f[0]+suffix] = true
			}
		} else {
			known[f[0]] = true
		}
	}
	for _, name := range ours.FindAllString(expr, -1) {
		if !known[name] && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
