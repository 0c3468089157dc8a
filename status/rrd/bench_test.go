package rrd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
)

// Each iteration of these is a sample of each of 1,000 guests, as the nodes of a
// large cluster send every ten seconds.
const guests = 1000

func benchmarkGuests(b *testing.B, dir, socket string) {
	var log bytes.Buffer
	var clock atomic.Int64
	clock.Store(time.Now().Unix())
	w, err := New(Config{Dir: dir, Socket: socket, Now: func() time.Time { return time.Unix(clock.Load(), 0) }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := w.Close(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	var submitting time.Duration
	round := func() {
		at := clock.Add(10)
		began := time.Now()
		for i := range guests {
			w.Submit(fmt.Sprintf("pve-vm-9.0/%d", 100+i),
				fmt.Sprintf("10:name:running:0:%d:4:0.5:8589934592:4294967296:34359738368:0:%d:%d:%d:%d:4294967296:0:0:0:0:0:0", at, at, at, at, at))
		}
		submitting += time.Since(began)
		if err := w.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	round()
	creating := time.Since(began)
	submitting = 0
	for b.Loop() {
		round()
	}
	b.ReportMetric(float64(creating)/guests/1e3, "µs/new-file")
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/guests/1e3, "µs/sample")
	b.ReportMetric(float64(submitting)/float64(b.N)/guests/1e3, "µs/submit")
	if s := w.Stats(); s.Failed+s.Dropped != 0 {
		b.Errorf("%+v\n%s", s, &log)
	}
}

func BenchmarkGuestsDirect(b *testing.B) {
	benchmarkGuests(b, b.TempDir(), "")
}

func BenchmarkGuestsThroughRRDCached(b *testing.B) {
	dir, socket := b.TempDir(), filepath.Join(b.TempDir(), "socket")
	cmd := exec.Command("rrdcached", "-g", "-l", "unix:"+socket, "-b", dir, "-B", "-p", socket+".pid")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // what it holds is of no use
		_ = cmd.Wait()
	}()
	testutil.WaitFor(b, "rrdcached listens", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	benchmarkGuests(b, dir, socket)
}

func BenchmarkDumpOf1000Keys(b *testing.B) {
	clock := newFakeClock()
	v := NewValues(clock.Now)
	for i := range guests {
		if err := v.Set(fmt.Sprintf("pve-vm-9.0/%d", i), recordedValue); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			v.Dump()
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			v.dump = nil
			v.Dump()
		}
	})
}
