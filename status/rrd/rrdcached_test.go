package rrd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/testutil"
)

// daemon is a real rrdcached in the foreground.
type daemon struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
	output bytes.Buffer
}

// startDaemon starts rrdcached for the files below dir and waits until it
// takes connections. It is ended with the test, if not before.
func startDaemon(t *testing.T, socket, dir string) *daemon {
	t.Helper()
	d := &daemon{t: t, socket: socket}
	d.cmd = exec.Command("rrdcached", "-g", "-l", "unix:"+socket, "-b", dir, "-B", "-p", socket+".pid")
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	testutil.WaitFor(t, "rrdcached", func() bool {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return d
}

// stop ends rrdcached, which writes what it holds.
func (d *daemon) stop() {
	if d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(20*time.Second, func() { _ = d.cmd.Process.Kill() })
	defer timer.Stop()
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("rrdcached: %v\n%s", err, &d.output)
	}
}

// flush has rrdcached write what it holds for file.
func (d *daemon) flush(file string) {
	d.t.Helper()
	rrdtool(d.t, "flushcached", "--daemon", "unix:"+d.socket, file)
}

func TestSamplesGoThroughRRDCached(t *testing.T) {
	t.Parallel()
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "socket")
	d := startDaemon(t, socket, dir)
	w := newTestWriter(t, Config{Dir: dir, Socket: "unix:" + socket}, librrd{})
	w.clock.advance(time.Hour)
	for i := range 700 { // three batches
		w.Submit("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:%d", 1795251001+i, i))
	}
	w.write(recordedKey, recordedValue, "pve2.3-vm/100", "10:n:running:0:1795251030:1:2:3:4:5:6:7:8:9:10")
	w.wantLog()
	if s := w.Stats(); s.Cached != 702 || s.Created != 3 || s.Direct+s.Failed+s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
	for file, want := range map[string]string{
		"pve-storage-9.0/n/s": "1795251700: 1 699",
		recordedKey:           "1795251028: 0.5 4 0.1 0.01 8000 4000 1000 10 50000 20000 100 200 3000 0 0.1 0.2 0.3 0.4 0.5",
		"pve-vm-9.0/100":      "1795251030: 1 2 3 4 5 6 7 8 9 10 U U U U U U U",
	} {
		path := filepath.Join(dir, file)
		if got := lastUpdate(t, path); got == want {
			t.Errorf("%s is written already", file)
		}
		d.flush(path)
		if got := lastUpdate(t, path); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func TestSamplesGoToTheFilesWhileRRDCachedIsAway(t *testing.T) {
	t.Parallel()
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "socket")
	w := newTestWriter(t, Config{Dir: dir, Socket: socket}, librrd{})
	file := filepath.Join(dir, "pve-storage-9.0/n/s")
	at := 1795251000
	write := func() {
		t.Helper()
		at += 10
		w.write("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", at))
	}
	wantLast := func() {
		t.Helper()
		if got, want := lastUpdate(t, file), fmt.Sprintf("%d: 1 2", at); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	write()
	write()
	w.wantLog("rrdcached does not answer, writing to the files directly.*no such file")
	wantLast()

	for range 2 {
		d := startDaemon(t, socket, dir)
		write()
		write()
		w.wantLog("rrdcached answers again")
		d.stop()
		wantLast() // written by rrdcached when it ended

		write()
		write()
		w.wantLog("rrdcached does not answer")
		wantLast()
	}
	// A restart between two samples goes unnoticed.
	d := startDaemon(t, socket, dir)
	write()
	d.stop()
	d = startDaemon(t, socket, dir)
	write()
	w.wantLog("rrdcached answers again")
	d.flush(file)
	wantLast()
	if s := w.Stats(); s.Cached != 6 || s.Direct != 6 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestFileRemovedUnderRRDCachedIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "socket")
	d := startDaemon(t, socket, dir)
	w := newTestWriter(t, Config{Dir: dir, Socket: socket}, librrd{})
	file := filepath.Join(dir, "pve-storage-9.0/n/s")
	w.write("pve-storage-9.0/n/s", "1795251031:1:2")
	d.flush(file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.write("pve-storage-9.0/n/s", "1795251041:3:4")
	w.wantLog()
	d.flush(file)
	if got := lastUpdate(t, file); got != "1795251041: 3 4" {
		t.Errorf("%q", got)
	}
	if s := w.Stats(); s.Created != 2 {
		t.Errorf("%+v", s)
	}
}

func TestFileRemovedWhileRRDCachedIsAskedIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pve-storage-9.0/n/s")
	socket, _ := fakeDaemon(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			switch {
			case err != nil:
				return
			case line == "BATCH\n":
				_, _ = conn.Write([]byte("0 Go ahead.\n"))
			case line == ".\n":
				_, _ = conn.Write([]byte("1 errors\n1 No such file: x\n"))
			default:
				if err := os.Remove(file); err != nil {
					t.Error(err)
				}
			}
		}
	})
	w := newTestWriter(t, Config{Dir: dir, Socket: socket}, librrd{})
	w.write("pve-storage-9.0/n/s", "1795251031:1:2")
	w.wantLog()
	if got := lastUpdate(t, file); got != "1795251031: 1 2" {
		t.Errorf("%q", got)
	}
	if s := w.Stats(); s.Created != 2 || s.Direct != 1 {
		t.Errorf("%+v", s)
	}
}

func TestSampleThatRRDCachedRefusesIsNotWrittenDirectly(t *testing.T) {
	t.Parallel()
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "socket")
	d := startDaemon(t, socket, dir)
	w := newTestWriter(t, Config{Dir: dir, Socket: socket}, librrd{})
	const key = "pve-storage-9.0/n/s"
	w.write(key, "1795251041:1:1", key, "1795251031:2:2", key, "1795251041:3:3", key, "1795251051:4:4")
	w.wantLog(`illegal attempt`, `works again`)
	if s := w.Stats(); s.Cached != 2 || s.Failed != 2 || s.Direct != 0 {
		t.Errorf("%+v", s)
	}
	// What rrdcached held was not spoilt by writing past it.
	file := filepath.Join(dir, key)
	d.flush(file)
	if got := lastUpdate(t, file); got != "1795251051: 4 4" {
		t.Errorf("%q", got)
	}
}

func TestFilesThatAreNotRRDCachedsAreWrittenDirectly(t *testing.T) {
	t.Parallel()
	dir, other, socket := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "socket")
	startDaemon(t, socket, other)
	w := newTestWriter(t, Config{Dir: dir, Socket: socket}, librrd{})
	w.write("pve-storage-9.0/n/s", "1795251031:1:2", "pve-storage-9.0/n/t", "1795251031:3:4")
	w.wantLog()
	if got := lastUpdate(t, filepath.Join(dir, "pve-storage-9.0/n/t")); got != "1795251031: 3 4" {
		t.Errorf("%q", got)
	}
}

func TestDirectoryMayHaveAnyName(t *testing.T) {
	t.Parallel()
	dir, socket := filepath.Join(t.TempDir(), `a b\c`), filepath.Join(t.TempDir(), "socket")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, socket, dir)
	w := newTestWriter(t, Config{Dir: dir, Socket: socket}, librrd{})
	w.write("pve-storage-9.0/n/s", "1795251031:1:2")
	w.wantLog()
	if s := w.Stats(); s.Cached != 1 {
		t.Errorf("%+v", s)
	}
	d.stop()
	if got := lastUpdate(t, filepath.Join(dir, "pve-storage-9.0/n/s")); got != "1795251031: 1 2" {
		t.Errorf("%q", got)
	}
}

// fakeDaemon answers each connection by a function until the test ends.
func fakeDaemon(t *testing.T, serve func(conn net.Conn)) (socket string, connections *atomic.Int32) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			serve(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return socket, connections
}

// drain reads until the client gives up, and answers nothing.
func drain(conn net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

func TestRRDCachedThatMisbehavesIsLeftAloneForAWhile(t *testing.T) {
	answer := func(first, second string) func(net.Conn) {
		return func(conn net.Conn) {
			r := bufio.NewReader(conn)
			_, _ = r.ReadString('\n')
			_, _ = conn.Write([]byte(first))
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\n" {
					_, _ = conn.Write([]byte(second))
				}
			}
		}
	}
	const ahead = "0 Go ahead.\n"
	for name, serve := range map[string]func(net.Conn){
		"silent":                  drain,
		"silent about the batch":  answer(ahead, ""),
		"refuses batches":         answer("-1 Permission denied.\n", ""),
		"no number":               answer("hello\n", ""),
		"no line end":             answer(strings.Repeat("0", 10000), ""),
		"negative count":          answer(ahead, "-1 errors\n"),
		"more errors than sent":   answer(ahead, "2 errors\n1 a\n2 b\n"),
		"error of no command":     answer(ahead, "1 errors\n2 a\n"),
		"error of command 0":      answer(ahead, "1 errors\n0 a\n"),
		"announces and withholds": answer(ahead, "1 errors\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket, connections := fakeDaemon(t, serve)
			w := newTestWriter(t, Config{Socket: socket, Timeout: 200 * time.Millisecond}, librrd{})
			for i := range 3 {
				w.write("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", 1795251031+i))
			}
			w.wantLog("rrdcached does not answer")
			if n := connections.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
			if s := w.Stats(); s.Direct != 3 || s.Failed != 0 {
				t.Errorf("%+v", s)
			}
			w.clock.advance(pauseAfterHang)
			w.write("pve-storage-9.0/n/s", "1795251041:1:2")
			if n := connections.Load(); n != 2 {
				t.Errorf("after a while asked %d times", n)
			}
		})
	}
}

func TestRRDCachedThatHangsUpIsAskedAgain(t *testing.T) {
	socket, connections := fakeDaemon(t, func(net.Conn) {})
	w := newTestWriter(t, Config{Socket: socket}, librrd{})
	for i := range 3 {
		w.write("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", 1795251031+i))
	}
	if n := connections.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	if s := w.Stats(); s.Direct != 3 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// FuzzDaemonAnswer feeds the client whatever an rrdcached may send.
func FuzzDaemonAnswer(f *testing.F) {
	f.Add([]byte("0 Go ahead.  End with dot '.' on its own line.\n0 errors\n"))
	f.Add([]byte("0 Go ahead.  End with dot '.' on its own line.\n2 errors\n1 illegal attempt to update using time 1700000100.000000 when last update time is 1700000300.000000 (minimum one second step)\n2 No such file: /x\n"))
	f.Add([]byte("-1 Unknown command: BATCH\n"))
	f.Add([]byte("99999999999999999999\n\n\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		client, server := net.Pipe()
		go func() {
			go drain(server)
			_, _ = server.Write(answer)
			_ = server.Close()
		}()
		c := &rrdcached{socket: "/nonexistent/socket", timeout: 5 * time.Second, now: time.Now}
		c.conn, c.r = client, bufio.NewReader(client)
		commands := []string{command("/x", "1:1"), command("/y", "1:1")}
		refused, err := c.update(commands)
		if err != nil {
			if c.conn != nil {
				t.Error("the connection is kept")
			}
			return
		}
		defer c.close()
		if len(refused) > len(commands) {
			t.Errorf("%d errors", len(refused))
		}
		for i, err := range refused {
			var r *RefusedError
			if i < 0 || i >= len(commands) || !errors.As(err, &r) {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
}
