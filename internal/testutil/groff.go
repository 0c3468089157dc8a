package testutil

import (
	"os/exec"
	"strings"
	"testing"
)

// ManualText returns a manual page as a reader sees it, in one long line. What groff warns
// of fails the test.
func ManualText(t testing.TB, page []byte) string {
	t.Helper()
	cmd := exec.Command("groff", "-man", "-Tascii", "-P-c", "-P-bou", "-rLL=5000n", "-ww")
	cmd.Stdin = strings.NewReader(string(page))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("groff: %v: %s", err, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("groff warns: %s", stderr.String())
	}
	return strings.Join(strings.Fields(string(out)), " ")
}
