package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/vmlab"
)

func TestOrdersAreCarriedOut(t *testing.T) {
	vmlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	orders := "help\n\nhosts\nexec 1 hostname; echo said\napt 1 check\nlogs 1 -n 1\ncut 1\nheal\nshutdown 1\nhosts\nboot 1\n" +
		"exec 9 true\nexec 1 false\nnonsense\nnonsense 1\ncluster x\n"
	var out strings.Builder
	if err := run(ctx, []string{"1"}, strings.NewReader(orders), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node1\nsaid\n", "take all down", "nsenter --target", "all units well", "10.99.0.1  off", `no host "9"`, `no host "x"`,
		"exit status 1", "nonsense: not understood"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "error:"); n != 5 {
		t.Errorf("%d errors, want 5:\n%s", n, &out)
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"x"}} {
		if err := run(t.Context(), args, strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
