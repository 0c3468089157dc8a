package qb_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/internal/testutil"
)

// truncate empties the files of a client's rings that match.
func truncate(t *testing.T, p *qbtest.Client, pattern string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/dev/shm/qb-%d-%d-*/%s", os.Getpid(), p.PID(), pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rings match %s: %v", pattern, err)
	}
	for _, f := range files {
		if err := os.Truncate(f, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// A client may write its rings' files, so it may also truncate them; whoever touches their
// memory then gets SIGBUS.
func TestClientsThatTakeTheirMemoryAwayAreDropped(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	other := dial(t, srv.name)
	peer := qbtest.Build(t)
	dropped := func(what string) {
		t.Helper()
		// Without anybody else's request: nothing else need happen.
		testutil.WaitFor(t, what+": dropped", func() bool { return srv.open.Load() == 1 })
		mustEcho(t, other, opEcho, pattern(10))
	}
	for range 3 { // a signal that stays blocked kills the second time
		for _, ring := range []string{"*response*", "*response*-data", "*response*-header"} {
			p := peer.Connect(t, srv.name, 0, nil)
			truncate(t, p, ring)
			p.Send(opEcho, pattern(5000))
			dropped(ring)
		}
		for _, ring := range []string{"*request*-data", "*request*-header", "*"} {
			p := peer.Connect(t, srv.name, 0, nil)
			p.Send(opBlock, nil)
			testutil.WaitFor(t, "served", func() bool { return srv.inGate.Load() == 1 })
			p.Send(opEcho, pattern(5000)) // waits in the ring
			truncate(t, p, ring)
			srv.gate <- struct{}{}
			dropped(ring)
		}
		// Only noticed when the connection is closed.
		p := peer.Connect(t, srv.name, 0, nil)
		truncate(t, p, "*")
		p.Kill()
		dropped("killed")
	}
	// And while the server stops.
	for range 3 {
		truncate(t, peer.Connect(t, srv.name, 0, nil), "*")
	}
	srv.Stop()
	if _, err := other.SendRecv(opEcho, nil, time.Second); err == nil {
		t.Fatal("still served")
	}
}
