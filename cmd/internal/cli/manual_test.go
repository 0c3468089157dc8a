package cli

import (
	"os/exec"
	"strings"
	"testing"
)

// readable is a page as a reader sees it, in one long line. What groff warns of is
// an error.
func readable(t *testing.T, page []byte) string {
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

func TestTextStandsForItselfInManualPages(t *testing.T) {
	for _, text := range []string{`.SH dot`, `'quote`, `A \fBslash \n`, "--option `x` ~ ^", `.`, `\`} {
		var p page
		p.begin("x")
		p.head("NAME")
		p.WriteString("x \\- y\n")
		p.paragraphs(text)
		if got := readable(t, p.Bytes()); !strings.Contains(got, text) {
			t.Errorf("%q became %q", text, got)
		}
	}
}
