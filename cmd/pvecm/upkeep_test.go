package main

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

func TestUpdateCertsWaitsForTheMountAndForQuorum(t *testing.T) {
	e := newTestEnv(t, "alpha", "192.0.2.1")
	local := e.host.Path("/etc/pve/local")
	if err := os.Rename(local, local+".away"); err != nil {
		t.Fatal(err)
	}
	var quorum atomic.Bool
	looks := make(chan bool)
	e.host.Writable = func() bool {
		q := quorum.Load()
		looks <- q
		return q
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- awaitWritable(ctx, e.host, time.Millisecond) }()
	select {
	case err := <-ended:
		t.Fatalf("it does not wait for the mount (%v)", err)
	case <-looks:
		t.Fatal("it looks for quorum without a mount")
	case <-time.After(20 * time.Millisecond):
	}
	if err := os.Rename(local+".away", local); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if <-looks {
			t.Fatal("there is quorum")
		}
	}
	quorum.Store(true)
	for !<-looks { // one look may have been under way
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	quorum.Store(false)
	go func() { ended <- awaitWritable(ctx, e.host, time.Millisecond) }()
	<-looks
	cancel()
	for {
		select {
		case <-looks:
			continue
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("interrupted: %v", err)
			}
			return
		}
	}
}
