package qb_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/internal/testutil"
)

func TestDialWithoutAServer(t *testing.T) {
	testutil.NoLeaks(t)
	if _, err := qbclient.Dial(qbtest.Name()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v", err)
	}
}

func TestDialWaitsWhileManyConnect(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	var wg sync.WaitGroup
	for range 300 { // more than a listen queue holds
		wg.Go(func() {
			c, err := qbclient.Dial(srv.name)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wg.Wait()
}

func TestAfterATimeoutTheClientIsOfNoUse(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	c := dial(t, srv.name)
	if _, err := c.SendRecv(opBlock, nil, 20*time.Millisecond); err != qbclient.ErrTimeout {
		t.Fatalf("got %v", err)
	}
	srv.openGate()
	if _, err := c.SendRecv(opEcho, nil, time.Second); err != qbclient.ErrDisconnected {
		t.Fatalf("got %v", err)
	}
	mustEcho(t, dial(t, srv.name), opEcho, pattern(10))
}

func TestClientSeesTheServerGo(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	c := dial(t, srv.name)
	mustEcho(t, c, opEcho, nil)
	srv.Stop()
	if _, err := c.SendRecv(opEcho, nil, time.Second); err != qbclient.ErrDisconnected {
		t.Fatalf("got %v", err)
	}
}

func TestClosedClient(t *testing.T) {
	testutil.NoLeaks(t)
	c := dial(t, serve(t, nil).name)
	c.Close()
	c.Close()
	if _, err := c.SendRecv(opEcho, nil, time.Second); err != qbclient.ErrDisconnected {
		t.Fatalf("got %v", err)
	}
}

func TestCloseEndsARequestThatWaits(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	c := dial(t, srv.name)
	ended := make(chan error, 1)
	go func() {
		_, err := c.SendRecv(opBlock, nil, 0) // without limit
		ended <- err
	}()
	testutil.WaitFor(t, "served", func() bool { return srv.inGate.Load() == 1 })
	c.Close()
	if err := <-ended; err != qbclient.ErrDisconnected {
		t.Errorf("got %v", err)
	}
	srv.openGate()
}

func TestClientOfABareLibqbServer(t *testing.T) {
	testutil.NoLeaks(t)
	name := qbtest.Name()
	qbtest.Build(t).Echo(t, name)
	c := dial(t, name)
	for _, n := range []int{0, 1, 1000, 1 << 19} {
		got, err := c.SendRecv(7, u32(n), 10*time.Second)
		if err != nil || len(got) != n {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
}
