package qbtest

import (
	"bufio"
	"crypto/rand"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed testdata/peer.c
var source []byte

// Peer is the compiled helper program.
type Peer struct {
	path string
}

func (p *Peer) command(args ...string) *exec.Cmd { return exec.Command(p.path, args...) }

// Build compiles the helper. It is removed when the test ends.
func Build(tb testing.TB) *Peer {
	tb.Helper()
	// Not tb.TempDir: other users must be able to reach it.
	dir, err := os.MkdirTemp("", "qbtest")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	src := filepath.Join(dir, "peer.c")
	if err := os.WriteFile(src, source, 0o644); err != nil {
		tb.Fatal(err)
	}
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libqb").Output()
	if err != nil {
		tb.Fatalf("pkg-config libqb: %v", err)
	}
	p := &Peer{path: filepath.Join(dir, "peer")}
	args := append([]string{"-O2", "-Wall", "-Wextra", "-o", p.path, src}, strings.Fields(string(flags))...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		tb.Fatalf("cc: %v\n%s", err, out)
	}
	if err := os.Chmod(p.path, 0o755); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Name returns a service name that nobody else uses.
func Name() string {
	return "qbtest-" + rand.Text()[:16]
}

// Socket returns the address that a service listens at, for net.Dial: libqb binds the
// whole of sun_path, NULs included.
func Socket(name string) string {
	return "@" + name + strings.Repeat("\x00", 107-len(name))
}

// Echo starts a bare libqb server that answers each request with as many bytes as the
// little-endian u32 of its data says.
func (p *Peer) Echo(tb testing.TB, name string) {
	tb.Helper()
	cmd := p.command("echo", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("echo server: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		tb.Fatalf("echo server: %q, %v", line, err)
	}
}

// A Client is a client process that does what it is told, step by step.
type Client struct {
	tb  testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader

	// Refused is the errno with which the connection failed, 0 if it stands.
	Refused syscall.Errno
	// BufferSize is what the two sides agreed on.
	BufferSize int
}

// As is the user and group id of a client process; nil is the test's own.
type As = syscall.Credential

// Connect starts a client process that connects to the service and asks for buffers of max
// bytes. It ends with the test at the latest.
func (p *Peer) Connect(tb testing.TB, name string, max int, as *As) *Client {
	tb.Helper()
	if as != nil && os.Geteuid() != 0 {
		tb.Skip("needs root: a client of another user")
	}
	cmd := p.command("client", name, strconv.Itoa(max))
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	s := &Client{tb: tb, cmd: cmd, in: in, out: bufio.NewReader(out)}
	tb.Cleanup(s.Kill)
	var word string
	var n int
	line := s.line()
	if _, err := fmt.Sscanf(line, "%s %d", &word, &n); err != nil {
		tb.Fatalf("client: %q: %v", line, err)
	}
	if word == "refused" {
		s.Refused = syscall.Errno(n)
	} else {
		s.BufferSize = n
	}
	return s
}

func (s *Client) line() string {
	s.tb.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.tb.Fatalf("client: %v", err)
	}
	return line
}

// PID returns the client's process id.
func (s *Client) PID() int { return s.cmd.Process.Pid }

// Send sends a request without waiting for the answer. It tries again while libqb says
// that the server has yet to read what was sent before.
func (s *Client) Send(id int32, data []byte) {
	s.tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n, errno := s.SendRaw(id, 16+len(data), data, 1)
		if n == 1 {
			return
		}
		if errno != syscall.EAGAIN || time.Now().After(deadline) {
			s.tb.Fatalf("request not sent: %v", errno)
		}
	}
}

// SendRaw sends count requests, whose headers claim a length that need not be
// true, and returns how many libqb took and, if not all, why.
func (s *Client) SendRaw(id int32, claimed int, data []byte, count int) (int, syscall.Errno) {
	s.tb.Helper()
	s.StartRaw(id, claimed, data, count)
	var n, rc int
	if _, err := fmt.Sscanf(s.line(), "sent %d %d", &n, &rc); err != nil {
		s.tb.Fatal(err)
	}
	return n, syscall.Errno(max(-rc, 0))
}

// StartRaw is SendRaw for a client that will be stopped meanwhile: it doesn't wait, and
// the client is good for Signal and Kill only from then on.
func (s *Client) StartRaw(id int32, claimed int, data []byte, count int) {
	s.tb.Helper()
	msg := fmt.Appendf(nil, "send %d %d %d %d\n", id, claimed, 16+len(data), count)
	if _, err := s.in.Write(append(msg, data...)); err != nil {
		s.tb.Fatal(err)
	}
}

// A Reply is what the client got for a request.
type Reply struct {
	ID    int32
	Errno syscall.Errno // in the response's header
	Data  string        // what follows the header

	Failed syscall.Errno // there was no reply: why
}

// Recv waits up to d for a reply.
func (s *Client) Recv(d time.Duration) Reply {
	s.tb.Helper()
	fmt.Fprintf(s.in, "recv %d\n", d.Milliseconds())
	var r Reply
	var errno, size int
	line := s.line()
	if _, err := fmt.Sscanf(line, "reply %d %d %d", &r.ID, &errno, &size); err == nil {
		data := make([]byte, size)
		if _, err := io.ReadFull(s.out, data); err != nil {
			s.tb.Fatalf("client: %v", err)
		}
		r.Errno, r.Data = syscall.Errno(-errno), string(data)
		return r
	}
	if _, err := fmt.Sscanf(line, "none %d", &errno); err != nil {
		s.tb.Fatalf("client: %q: %v", line, err)
	}
	r.Failed = syscall.Errno(-errno)
	return r
}

// Poke has the client write data into a file of a ring (request, response or event), its header or its
// data, at an offset.
func (s *Client) Poke(ring, part string, offset int, data []byte) {
	s.tb.Helper()
	s.do(append(fmt.Appendf(nil, "poke %s %s %d %d\n", ring, part, offset, len(data)), data...))
}

// Cut has the client cut a file of a ring down to size bytes.
func (s *Client) Cut(ring, part string, size int) {
	s.tb.Helper()
	s.do(fmt.Appendf(nil, "cut %s %s %d\n", ring, part, size))
}

// Churn has the client write two values to one place of a ring's file in turn, all the time.
func (s *Client) Churn(ring, part string, offset int, a, b uint32) {
	s.tb.Helper()
	s.do(fmt.Appendf(nil, "churn %s %s %d %d %d\n", ring, part, offset, a, b))
}

// Bell has the client tell the server of count requests, whatever is in the ring.
func (s *Client) Bell(count int) {
	s.tb.Helper()
	s.do(fmt.Appendf(nil, "bell %d\n", count))
}

func (s *Client) do(command []byte) {
	s.tb.Helper()
	if _, err := s.in.Write(command); err != nil {
		s.tb.Fatal(err)
	}
	// "gone": the server has dropped the client.
	if line := s.line(); line != "done\n" && line != "gone\n" {
		s.tb.Fatalf("client: %q", line)
	}
}

// Signal sends a signal to the client's process.
func (s *Client) Signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatal(err)
	}
}

// Alive tells whether the client has neither been closed nor killed by the test.
func (s *Client) Alive() bool { return s.cmd.ProcessState == nil }

// Close lets the client disconnect in good order and waits for its end.
func (s *Client) Close() {
	s.in.Close()
	_ = s.cmd.Wait()
}

// Kill ends the client with SIGKILL and waits for its end.
func (s *Client) Kill() {
	_ = s.cmd.Process.Kill()
	s.in.Close()
	_ = s.cmd.Wait()
}
