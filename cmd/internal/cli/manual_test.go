package cli

import (
	"strings"
	"testing"

	"pmxcfs/internal/testutil"
)

func TestTextStandsForItselfInManualPages(t *testing.T) {
	for _, text := range []string{`.SH dot`, `'quote`, `A \fBslash \n`, "--option `x` ~ ^", `.`, `\`} {
		var p page
		p.begin("x")
		p.head("NAME")
		p.WriteString("x \\- y\n")
		p.paragraphs(text)
		if got := testutil.ManualText(t, p.Bytes()); !strings.Contains(got, text) {
			t.Errorf("%q became %q", text, got)
		}
	}
}
