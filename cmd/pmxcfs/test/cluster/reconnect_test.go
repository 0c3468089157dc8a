package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/status/ipc"
)

const (
	restartFlag = "/run/pve-cluster/cfs-restart-flag"
	// flagTime is how long clients try again when they find the flag.
	flagTime = 10 * time.Second
)

// TestServiceClient is a client of the service on a node, until its standard input
// ends or says anything. It tells when it has lost the service, whether there was
// the flag then, and when it has it back and how long that took: it has set the
// value then that it names.
func TestServiceClient(t *testing.T) {
	if !lab.Inside() {
		t.Skip("runs on a node only")
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		bufio.NewScanner(os.Stdin).Scan()
	}()
	var c *qbclient.Client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	key := fmt.Sprint("client-", os.Getpid())
	lost := time.Now()
	for connections := 1; ; connections++ {
		for {
			var err error
			if c, err = qbclient.Dial(ipc.DefaultName); err == nil {
				break
			}
			select {
			case <-told:
				return
			case <-time.After(10 * time.Millisecond): // between two tries
			}
		}
		value := fmt.Sprint("connection ", connections)
		_, err := c.SendRecv(ipc.OpSetStatus, []byte(labtest.Field(key)+value), flagTime)
		if err == nil {
			fmt.Printf("HAS %s=%s=%v\n", key, value, time.Since(lost))
		}
		for err == nil {
			select {
			case <-told:
				return
			case <-time.After(10 * time.Millisecond): // between two requests
			}
			_, err = c.SendRecv(ipc.OpVersion, nil, flagTime)
		}
		if !errors.Is(err, qbclient.ErrDisconnected) {
			t.Fatal(err)
		}
		lost = time.Now()
		_, err = os.Stat(restartFlag)
		fmt.Println("LOST, flag:", err == nil)
		c.Close()
		c = nil
	}
}

// clientsComeBack has clients on a node that stay while its daemon is restarted.
func clientsComeBack(c *cluster) {
	n := c.Node(2)
	clients := make([]*lab.Agent, 3)
	has := func() {
		c.T.Helper()
		for _, a := range clients {
			f := strings.Split(strings.TrimPrefix(a.Want(c.T, "HAS "), "HAS "), "=")
			if len(f) != 3 {
				c.T.Fatalf("a client says %q", f)
			}
			wantValue(n, f[0], f[1], c.Nodes...)
			took, err := time.ParseDuration(f[2])
			n.Must(err)
			c.T.Logf("a client waited %v", took.Round(time.Millisecond))
		}
	}
	for i := range clients {
		clients[i] = n.Host.StartAgent(c.T, "TestServiceClient")
	}
	has()
	for _, restart := range []struct {
		how  string
		end  func()
		flag bool
	}{
		{"stopped", n.Stop, true},
		{"killed", n.Kill, false},
		{"stopped", n.Stop, true},
	} {
		restart.end()
		for _, a := range clients {
			if line := a.Want(c.T, "LOST, flag: "); line != fmt.Sprint("LOST, flag: ", restart.flag) {
				c.T.Errorf("%s: %s", restart.how, line)
			}
		}
		n.Start()
		has()
		if _, err := os.Stat(n.Host.Path(restartFlag)); !errors.Is(err, os.ErrNotExist) {
			c.T.Errorf("the restart flag is left: %v", err)
		}
		c.WantTogether(c.Nodes...)
	}
	for _, a := range clients {
		a.Say(c.T, "end")
		a.Rest()
		if err := a.Process.Wait(); err != nil {
			c.T.Errorf("client: %v\n%s", err, strings.Join(a.Seen(), "\n"))
		}
	}
}
