package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"pmxcfs/contrib/lab"
)

func TestOrdersAreCarriedOut(t *testing.T) {
	lab.Require(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	orders := "help\nwait\n\ncut 2\nexec 1 hostname; echo said\nsplit 1 2\nheal\nhosts\nstart 1 sleep 100\n" +
		"corosync 2 kill\ncorosync 2 start\ncrash 2\nexec 9 true\nexec 1 false\nsplit x\nnonsense\nnonsense 1\n"
	var out strings.Builder
	if err := run(context.Background(), []string{"2"}, strings.NewReader(orders), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node1\nsaid\n", "take the lab down", "nsenter -t", `no host "9"`, "exit status 1",
		"nonsense: not understood", "nonsense 1: not understood", "sh.log"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "error:"); n != 5 {
		t.Errorf("%d errors, want 5:\n%s", n, &out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "pmxlab*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"x"}, {"1", "2"}, {"-nonsense", "1"}, {"0"}} {
		if err := run(context.Background(), args, strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
