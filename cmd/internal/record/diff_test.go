package record

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRandomDifferencesLeadFromOneTextToTheOther(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		text := func() (list []string) {
			for range rnd.IntN(14) {
				list = append(list, fmt.Sprintf("%d\n", rnd.IntN(5)))
			}
			return list
		}
		a, b := text(), text()
		var got []string
		at, cost := 0, 0
		for _, e := range compare(a, b) {
			got = append(got, a[at:e.a]...)
			got = append(got, b[e.c:e.d]...)
			at = e.b
			cost += e.b - e.a + e.d - e.c
		}
		got = append(got, a[at:]...)
		if !slices.Equal(got, b) {
			t.Fatalf("seed %d: %q to %q gives %q", seed, a, b, got)
		}
		if least := len(a) + len(b) - 2*longest(a, b); cost != least {
			t.Fatalf("seed %d: %q to %q in %d edits, not %d", seed, a, b, cost, least)
		}
	}
}

// longest is the length of a longest common part, found another way.
func longest(a, b []string) int {
	row := make([]int, len(b)+1)
	for i := range a {
		last := 0
		for j := range b {
			up := row[j+1]
			if a[i] == b[j] {
				row[j+1] = last + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			last = up
		}
	}
	return row[len(b)]
}

func TestTextsWithNothingInCommonAreOnePart(t *testing.T) {
	var a, b []string
	for i := range 5000 {
		a, b = append(a, fmt.Sprint("a", i)), append(b, fmt.Sprint("b", i))
	}
	if e := compare(a, b); len(e) != 1 || e[0] != (edit{0, 5000, 0, 5000}) {
		t.Errorf("%v", e)
	}
}

// patch(1) may not be there; diff(1) is part of every Debian.
func TestUnifiedIsWhatDiffWrites(t *testing.T) {
	dir := t.TempDir()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 60 {
		var a, b strings.Builder
		for l := range 40 {
			// Distinct lines, so that there is one shortest difference only.
			line := fmt.Sprintf("line %d\n", l)
			switch rnd.IntN(12) {
			case 0:
				a.WriteString(line)
			case 1:
				b.WriteString(line)
			default:
				a.WriteString(line)
				b.WriteString(line)
			}
		}
		if i%4 == 0 {
			b.WriteString("no end")
		}
		for name, text := range map[string]string{"a": a.String(), "b": b.String()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, _ := exec.Command("diff", "-u", "--label", "a", "--label", "b", filepath.Join(dir, "a"), filepath.Join(dir, "b")).Output()
		var got strings.Builder
		Unified(&got, false, "a", "b", []byte(a.String()), []byte(b.String()))
		if got.String() != string(want) {
			t.Fatalf("seed %d:\n%s\nnot\n%s", seed, got.String(), want)
		}
	}
}
