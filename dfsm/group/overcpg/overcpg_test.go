package overcpg_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/dfsmtest"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/group/overcpg"
	"pmxcfs/internal/testutil"
)

const (
	groupName = "overcpg_test"
	hosts     = 3
	writers   = 8
	writes    = 60 // of each writer
	size      = 1000
	keys      = writers*hosts + hosts // the last ones: a host is through
	patience  = 60 * time.Second
)

// app is the model; done tells which hosts are through with their writes.
type app struct {
	*dfsmtest.Model
	done atomic.Int32
}

func (a *app) look() {
	n := int32(0)
	for _, e := range a.Disk.Entries[writers*hosts:] {
		if e.Version != 0 {
			n++
		}
	}
	a.done.Store(n)
}

func (a *app) Apply(batch []dfsm.Message) dfsm.Applied {
	defer a.look()
	return a.Model.Apply(batch)
}

func (a *app) Commit() error {
	defer a.look()
	return a.Model.Commit()
}

type daemon struct {
	*group.Group
	app  *app
	stop func()
}

func start(t testing.TB) *daemon {
	t.Helper()
	return startWith(t, dfsmtest.NewDisk(keys))
}

func startWith(t testing.TB, disk *dfsmtest.Disk) *daemon {
	t.Helper()
	d := &daemon{app: &app{Model: dfsmtest.NewModel(disk)}}
	d.app.Quorate = true
	g, err := group.New(group.Config{
		Version: 1, Checksums: true, App: d.app, Connect: overcpg.Connect(groupName), Backoff: time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Group = g
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Run(ctx)
	}()
	d.stop = func() { cancel(); <-ended }
	t.Cleanup(d.stop)
	return d
}

// until waits for a condition.
func (d *daemon) until(t testing.TB, what string, ok func(group.Status) bool) {
	t.Helper()
	testutil.Eventually(t, what, func() error {
		if s := d.Status(); !ok(s) {
			return fmt.Errorf("%+v, %d through", s, d.app.done.Load())
		}
		return nil
	})
}

func (d *daemon) synced(t testing.TB, members int) {
	t.Helper()
	d.until(t, "synced", func(s group.Status) bool {
		return s.Mode == dfsm.ModeSynced && s.Synced == members && len(s.Members) == members
	})
}

func (d *daemon) write(ctx context.Context, key, size, value int) error {
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b, uint64(value))
	s := d.Begin(1, dfsmtest.Op{Key: uint32(key), Version: dfsmtest.Any, Value: b}.Encode())
	select {
	case r := <-s.Done():
		return r.Err
	case <-ctx.Done():
		return s.GiveUp(ctx.Err()).Err
	}
}

// TestNodesStayAlike has three hosts write at the same time. Host 3 stops in
// the midst of it, and comes back empty.
func TestNodesStayAlike(t *testing.T) {
	if lab.Inside() {
		host, err := strconv.Atoi(os.Getenv("HOST_NUMBER"))
		if err != nil {
			t.Fatal(err)
		}
		onHost(t, host)
		return
	}
	l := lab.New(t, hosts)
	results := make([]string, hosts)
	var wg sync.WaitGroup
	for i := range hosts {
		p, out := l.Host(i+1).StartSelf(t, []string{"-test.run=^TestNodesStayAlike$", "-test.v", "-test.timeout=2m"}, []string{fmt.Sprint("HOST_NUMBER=", i+1)}, nil)
		wg.Go(func() {
			var log strings.Builder
			in := bufio.NewScanner(out)
			for in.Scan() {
				log.WriteString(in.Text() + "\n")
				if sum, ok := strings.CutPrefix(in.Text(), "RESULT "); ok {
					results[i] = sum
				}
				if figure, ok := strings.CutPrefix(in.Text(), "FIGURE "); ok {
					t.Logf("host %d: %s", i+1, figure)
				}
			}
			if err := p.Wait(); err != nil || results[i] == "" {
				t.Errorf("host %d: %v\n%s", i+1, err, log.String())
			}
		})
	}
	wg.Wait()
	if results[0] == "" || results[0] != results[1] || results[0] != results[2] {
		t.Errorf("the hosts end with %q", results)
	}
}

func onHost(t *testing.T, host int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := start(t)
	d.synced(t, hosts)
	if host == hosts {
		for n := range writes {
			if err := d.write(ctx, (host-1)*writers, size, n); err != nil {
				t.Fatal(err)
			}
		}
		d.stop()
		d = start(t)
		d.until(t, "back", func(s group.Status) bool { return s.Mode == dfsm.ModeSynced && len(s.Members) == hosts })
	}
	var wg sync.WaitGroup
	var took []time.Duration
	begin := time.Now()
	for w := range writers {
		wg.Go(func() {
			for n := range writes {
				at := time.Now()
				if err := d.write(ctx, (host-1)*writers+w, size, n); err != nil {
					t.Error(err)
				}
				if w == 0 {
					took = append(took, time.Since(at))
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	fmt.Printf("FIGURE %d writers: %.0f writes/s of %d B, p50 %v, p99 %v\n", writers, float64(writers*writes)/time.Since(begin).Seconds(), size, took[len(took)/2], took[len(took)*99/100])
	if err := d.write(ctx, writers*hosts+host-1, size, host); err != nil {
		t.Fatal(err)
	}
	d.until(t, "through", func(group.Status) bool { return d.app.done.Load() == hosts })
	d.stop()
	fmt.Printf("RESULT %d changes, %x\n", len(d.app.Disk.History), sha256.Sum256(d.app.Disk.State()))
}
