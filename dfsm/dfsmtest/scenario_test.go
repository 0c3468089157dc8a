package dfsmtest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var rewriteFlag = flag.Bool("dfsm.rewrite", false, "write what happens in the scenarios into their files")

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Scenario(string(want))
			if err != nil {
				t.Fatalf("%v\nafter\n%s", err, got)
			}
			if *rewriteFlag {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("happened:\n%s\nexpected:\n%s", got, want)
			}
		})
	}
}
