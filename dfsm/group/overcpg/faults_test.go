package overcpg_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/dfsm/group"
	"pmxcfs/internal/testutil"
)

// TestCorosyncsFaultsAreOutlived has all hosts write while one's corosync is
// killed and started again, and another host is cut off and comes back. The
// daemon of host 1 starts before its corosync does.
func TestCorosyncsFaultsAreOutlived(t *testing.T) {
	if lab.Inside() {
		host, err := strconv.Atoi(os.Getenv("HOST_NUMBER"))
		if err != nil {
			t.Fatal(err)
		}
		underFaults(t, host)
		return
	}
	l := lab.New(t, hosts)
	if err := l.Host(1).StopCorosync(); err != nil {
		t.Fatal(err)
	}
	agents := make([]*lab.Agent, hosts)
	for i := range agents {
		agents[i] = l.Host(i+1).StartAgent(t, t.Name(), fmt.Sprint("HOST_NUMBER=", i+1))
	}
	agents[0].Want(t, "cannot connect")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Host(1).StartCorosync())
	for _, a := range agents {
		a.Want(t, "WRITING")
	}
	must(l.Host(2).KillCorosync())
	agents[1].Want(t, "lost the connection")
	agents[0].Want(t, "all data is up to date")
	must(l.Host(2).StartCorosync())
	agents[1].Want(t, "all data is up to date")
	must(l.Split([]int{1, 2}, []int{3}))
	agents[0].Want(t, "all data is up to date")
	must(l.Heal())
	agents[2].Want(t, "all data is up to date")

	for _, a := range agents {
		a.Say(t, "stop")
	}
	var results []string
	for _, a := range agents {
		results = append(results, a.Want(t, "RESULT "))
	}
	for i, r := range results {
		if r != results[0] {
			t.Errorf("host %d ends with %q, host 1 with %q", i+1, r, results[0])
		}
	}
	for i, a := range agents {
		if err := a.Process.Wait(); err != nil {
			t.Errorf("host %d: %v", i+1, err)
		}
	}
}

func underFaults(t *testing.T, host int) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		bufio.NewScanner(os.Stdin).Scan()
	}()
	d := start(t)
	d.synced(t, hosts)
	fmt.Println("WRITING")
	var acked atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-told:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				begin := time.Now()
				err := d.write(ctx, (host-1)*writers+w, size, n)
				cancel()
				if took := time.Since(begin); took > 10*time.Second+testutil.Patience {
					t.Errorf("a write took %v: %v", took, err)
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // as a user would wait before trying again
					continue
				}
				acked.Add(1)
			}
		})
	}
	wg.Wait()
	if acked.Load() == 0 {
		t.Error("no write succeeded")
	}
	d.synced(t, hosts)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.write(ctx, writers*hosts+host-1, size, host); err != nil {
		t.Fatal(err)
	}
	d.until(t, "through", func(group.Status) bool { return d.app.done.Load() == hosts })
	d.stop()
	fmt.Printf("RESULT %d changes, %x\n", len(d.app.Disk.History), sha256.Sum256(d.app.Disk.State()))
}
