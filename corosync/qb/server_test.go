package qb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/internal/testutil"
)

// Requests that the test's handlers know.
const (
	opEcho  = 1 // answers the data
	opSize  = 2 // answers as many bytes as the u32 says
	opErrno = 3 // answers the errno in the u32
	opBlock = 4 // answers when the server's gate opens
	opSlow  = 5 // opEcho, another way
)

type testServer struct {
	*qb.Server
	name   string
	gate   chan struct{} // opBlock waits for it
	opened sync.Once
	inGate atomic.Int32
	peers  chan qb.Peer
	open   atomic.Int32 // handlers accepted and not closed
}

type testHandler struct{ srv *testServer }

func (s testHandler) Serve(id int32, data []byte) ([]byte, syscall.Errno) {
	switch id {
	case opEcho, opSlow:
		return bytes.Clone(data), 0
	case opSize:
		return make([]byte, binary.LittleEndian.Uint32(data)), 0
	case opErrno:
		return []byte("not to be sent"), syscall.Errno(binary.LittleEndian.Uint32(data))
	case opBlock:
		s.srv.inGate.Add(1)
		<-s.srv.gate
		s.srv.inGate.Add(-1)
		return nil, 0
	}
	return nil, syscall.ENOSYS
}

func (s testHandler) Closed() { s.srv.open.Add(-1) }

func serve(t testing.TB, change func(*qb.Config)) *testServer {
	t.Helper()
	s := &testServer{name: qbtest.Name(), gate: make(chan struct{}), peers: make(chan qb.Peer, 1000)}
	cfg := qb.Config{
		Name: s.name,
		Accept: func(p qb.Peer) (qb.Handler, error) {
			s.peers <- p
			s.open.Add(1)
			return testHandler{s}, nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	srv, err := qb.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = srv
	t.Cleanup(srv.Stop)
	t.Cleanup(s.openGate)
	return s
}

func (s *testServer) openGate() { s.opened.Do(func() { close(s.gate) }) }

func dial(t testing.TB, name string) *qbclient.Client {
	t.Helper()
	c, err := qbclient.Dial(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func u32(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

func wantErrno(t testing.TB, err error, errno syscall.Errno) {
	t.Helper()
	var re *qbclient.ResponseError
	if !errors.As(err, &re) || re.Errno != errno {
		t.Fatalf("got %v, want a response with %v", err, errno)
	}
}

func mustEcho(t testing.TB, c *qbclient.Client, id int32, data []byte) {
	t.Helper()
	got, err := c.SendRecv(id, data, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("%d bytes came back as %d others", len(data), len(got))
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func TestDataOfAnySizeUpToTheBufferComesBack(t *testing.T) {
	testutil.NoLeaks(t)
	c := dial(t, serve(t, nil).name)
	if c.BufferSize() != qb.DefaultBufferSize {
		t.Fatalf("buffer size %d", c.BufferSize())
	}
	most := qb.DefaultBufferSize - qb.ResponseHeader
	for _, id := range []int32{opEcho, opSlow} {
		for _, n := range []int{0, 1, 7, 8, 4095, 4096, 4097, 65536, most - 1, most} {
			// More than once: the message lies elsewhere in the ring each time.
			for range 5 {
				mustEcho(t, c, id, pattern(n))
			}
		}
	}
	// Over all offsets in the ring, the wrapped chunk header among them.
	for n := range 3000 {
		mustEcho(t, c, opEcho, pattern(n))
	}
}

func TestMessagesOverTheBufferSizeAreErrorsNotDisconnects(t *testing.T) {
	testutil.NoLeaks(t)
	c := dial(t, serve(t, nil).name)
	largest := qb.DefaultBufferSize - qb.RequestHeader
	if _, err := c.SendRecv(opEcho, make([]byte, largest+1), time.Second); !errors.Is(err, syscall.EMSGSIZE) {
		t.Fatalf("request too long: %v", err)
	}
	// The largest request's echo is 8 bytes too long for a response.
	_, err := c.SendRecv(opEcho, make([]byte, largest), 10*time.Second)
	wantErrno(t, err, syscall.EMSGSIZE)
	most := qb.DefaultBufferSize - qb.ResponseHeader
	if got, err := c.SendRecv(opSize, u32(most), 10*time.Second); err != nil || len(got) != most {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	_, err = c.SendRecv(opSize, u32(most+1), 10*time.Second)
	wantErrno(t, err, syscall.EMSGSIZE)
	mustEcho(t, c, opEcho, []byte("still here"))
}

func TestErrorsCarryNoData(t *testing.T) {
	srv := serve(t, nil)
	p := qbtest.Build(t).Connect(t, srv.name, 0, nil)
	p.Send(opErrno, u32(int(syscall.EXDEV)))
	if r := p.Recv(10 * time.Second); r != (qbtest.Reply{ID: opErrno, Errno: syscall.EXDEV}) {
		t.Fatalf("got %+v", r)
	}
}

func TestPeerIsWhoItIs(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	peer := qbtest.Build(t)
	p := peer.Connect(t, srv.name, 0, &qbtest.As{Uid: 4711, Gid: 4712})
	if p.Refused != 0 {
		t.Fatal(p.Refused)
	}
	if got, want := <-srv.peers, (qb.Peer{UID: 4711, GID: 4712, PID: int32(p.PID())}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	p.Send(opEcho, pattern(100))
	if r := p.Recv(10 * time.Second); r.Data != string(pattern(100)) {
		t.Fatalf("got %+v", r)
	}
}

func TestRefusedClientsGetTheErrno(t *testing.T) {
	testutil.NoLeaks(t)
	var refusal atomic.Value
	refusal.Store(errors.New("no errno in it"))
	srv := serve(t, func(c *qb.Config) {
		c.Accept = func(qb.Peer) (qb.Handler, error) { return nil, refusal.Load().(error) }
	})
	for range 50 {
		if _, err := qbclient.Dial(srv.name); !errors.Is(err, syscall.EACCES) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestClientsThatWantLargerBuffersAreRefused(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	peer := qbtest.Build(t)
	if p := peer.Connect(t, srv.name, qb.DefaultBufferSize, nil); p.Refused != 0 {
		t.Fatal(p.Refused)
	}
	for _, size := range []int{qb.DefaultBufferSize + 1, 1<<31 - 1} {
		if p := peer.Connect(t, srv.name, size, nil); p.Refused != syscall.EMSGSIZE {
			t.Fatalf("%d bytes: got %v", size, p.Refused)
		}
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, func(c *qb.Config) { c.MaxConns = 3 })
	var clients []*qbclient.Client
	for range 3 {
		clients = append(clients, dial(t, srv.name))
	}
	if _, err := qbclient.Dial(srv.name); !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("got %v", err)
	}
	clients[0].Close()
	testutil.WaitFor(t, "closed", func() bool { return srv.open.Load() == 2 })
	mustEcho(t, dial(t, srv.name), opEcho, []byte("room again"))
}

func TestASlowRequestHoldsUpNobodyElse(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	slow, other := dial(t, srv.name), dial(t, srv.name)
	answered := make(chan error, 1)
	go func() {
		_, err := slow.SendRecv(opBlock, nil, 0)
		answered <- err
	}()
	testutil.WaitFor(t, "served", func() bool { return srv.inGate.Load() == 1 })
	for range 100 {
		mustEcho(t, other, opEcho, pattern(10))
		mustEcho(t, other, opSlow, pattern(10))
	}
	srv.openGate()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	mustEcho(t, slow, opEcho, pattern(10))
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	p := qbtest.Build(t).Connect(t, srv.name, 0, nil)
	const rounds = 200
	for i := range rounds {
		// Some of them quick, some not.
		p.Send([]int32{opEcho, opSlow}[i%2], pattern(i))
	}
	for i := range rounds {
		if r := p.Recv(10 * time.Second); r.Data != string(pattern(i)) || r.Errno != 0 || r.Failed != 0 {
			t.Fatalf("reply %d: %+v", i, r)
		}
	}
}

// 40 replies of 128 KiB don't fit into the response ring.
const manyReplies, replySize = 40, 128 << 10

func TestAClientThatReadsLateGetsAllItsReplies(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	p := qbtest.Build(t).Connect(t, srv.name, 0, nil)
	other := dial(t, srv.name)
	if n, errno := p.SendRaw(opSize, 20, u32(replySize), manyReplies); n != manyReplies {
		t.Fatalf("%d sent, %v", n, errno)
	}
	for range 200 {
		mustEcho(t, other, opEcho, pattern(10))
	}
	for i := range manyReplies {
		if r := p.Recv(10 * time.Second); len(r.Data) != replySize {
			t.Fatalf("reply %d: %+v", i, r)
		}
	}
}

func TestAClientThatNeverReadsIsDropped(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, func(c *qb.Config) { c.SlowLimit = 200 * time.Millisecond })
	p := qbtest.Build(t).Connect(t, srv.name, 0, nil)
	other := dial(t, srv.name)
	if n, errno := p.SendRaw(opSize, 20, u32(replySize), manyReplies); n != manyReplies {
		t.Fatalf("%d sent, %v", n, errno)
	}
	testutil.WaitFor(t, "dropped", func() bool {
		mustEcho(t, other, opEcho, pattern(10))
		return srv.open.Load() == 1
	})
}

func TestStoppedClientsHoldUpNobody(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	peer := qbtest.Build(t)
	other := dial(t, srv.name)
	for i := range 10 {
		p := peer.Connect(t, srv.name, 0, nil)
		// Stopped anywhere in a burst.
		p.StartRaw(opEcho, 16, nil, 5000)
		for range 20 * i {
			mustEcho(t, other, opEcho, nil)
		}
		p.Signal(syscall.SIGSTOP)
		for range 100 {
			mustEcho(t, other, opEcho, pattern(10))
		}
	}
}

func TestClientsThatDieBetweenRequestAndReply(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	peer := qbtest.Build(t)
	const n = 8
	for range n {
		p := peer.Connect(t, srv.name, 0, nil)
		p.Send(opBlock, nil)
		testutil.WaitFor(t, "served", func() bool { return srv.inGate.Load() > 0 })
		p.Kill()
	}
	srv.openGate() // now the replies come, for nobody
	testutil.WaitFor(t, "no connection is left", func() bool { return srv.open.Load() == 0 })
	testutil.WaitFor(t, "no ring is left", func() bool { return len(testutil.Holds(t).Rings) == 0 })
	mustEcho(t, dial(t, srv.name), opEcho, pattern(10))
}

func TestLengthsThatDontFitAreRefused(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	p := qbtest.Build(t).Connect(t, srv.name, 0, nil)
	for _, claimed := range []int{-1 << 31, -1, 0, 1, 15, 117, 200, 4096, 1 << 20, 1<<20 + 1, 1<<31 - 1} {
		// Over a page, so that it isn't always near the beginning of the ring.
		for range 50 {
			if n, errno := p.SendRaw(opEcho, claimed, make([]byte, 100), 1); n != 1 {
				t.Fatal(errno)
			}
			if r := p.Recv(10 * time.Second); r.Errno != syscall.EINVAL || r.Data != "" {
				t.Fatalf("claimed %d of 116 bytes: %+v", claimed, r)
			}
		}
	}
	// At every offset in the ring, its ends among them.
	refused := 0
	for i := range 12000 {
		p.SendRaw(opEcho, 16+4*(i%9)+1, make([]byte, 4*(i%9)), 1)
		if r := p.Recv(10 * time.Second); r.Errno == syscall.EINVAL {
			refused++
		}
	}
	if refused != 12000 {
		t.Errorf("%d of 12000 refused", refused)
	}
	for claimed := 16; claimed <= 116; claimed++ {
		p.SendRaw(opEcho, claimed, make([]byte, 100), 1)
		if r := p.Recv(10 * time.Second); r.Errno != 0 || r.Data != string(make([]byte, claimed-16)) {
			t.Fatalf("claimed %d of 116 bytes: %+v", claimed, r)
		}
	}
}

func TestUnfinishedHandshakesHoldUpNobody(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, func(c *qb.Config) { c.SlowLimit = 300 * time.Millisecond })
	var silent []net.Conn
	for i := range 700 {
		c, err := net.Dial("unix", qbtest.Socket(srv.name))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
		if i%3 == 0 {
			if _, err := c.Write([]byte{0xff, 0xff}); err != nil {
				t.Fatal(err)
			}
		}
		if i%20 == 0 {
			mustEcho(t, dial(t, srv.name), opEcho, pattern(10))
		}
	}
	// All of them end, the first ones because they are too many.
	for i, c := range silent {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
			t.Fatalf("connection %d: %v", i, err)
		} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Fatalf("connection %d is still open", i)
		}
	}
}

func TestNoDescriptorLeftForAClient(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	old := dial(t, srv.name)
	// The client's side needs its descriptor before there are no more.
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	none := limit
	none.Cur = 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: qbtest.Socket(srv.name)}); err != nil {
		t.Fatal(err)
	}
	// Nobody else is held up, and the loop doesn't spin on the one that can't be accepted.
	mustEcho(t, old, opEcho, pattern(10))
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	used := cpu()
	time.Sleep(400 * time.Millisecond) // the time over which the use of CPU is measured
	if used = cpu() - used; used > 150*time.Millisecond {
		t.Errorf("%v of CPU in 400 ms", used)
	}
	restore()
	mustEcho(t, dial(t, srv.name), opEcho, pattern(10))
}

func TestHundredClientsAtOnce(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 100 {
		wg.Go(func() {
			c, err := qbclient.Dial(srv.name)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			for j := range 50 {
				want := pattern(i*50 + j)
				got, err := c.SendRecv(opEcho+int32(j%2)*(opSlow-opEcho), want, 30*time.Second)
				if err != nil || !bytes.Equal(got, want) {
					errs <- fmt.Errorf("client %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	before := testutil.Holds(t)
	for range 5 {
		srv := serve(t, nil)
		c, busy := dial(t, srv.name), dial(t, srv.name)
		silent, err := net.Dial("unix", qbtest.Socket(srv.name))
		if err != nil {
			t.Fatal(err)
		}
		mustEcho(t, c, opEcho, pattern(100))
		answered := make(chan error, 1)
		go func() {
			_, err := busy.SendRecv(opBlock, nil, 0)
			answered <- err
		}()
		testutil.WaitFor(t, "served", func() bool { return srv.inGate.Load() == 1 })
		stopped := make(chan struct{})
		go func() { srv.Stop(); close(stopped) }()
		if err := <-answered; err != qbclient.ErrDisconnected {
			t.Fatalf("got %v", err)
		}
		srv.openGate()
		<-stopped
		if n := srv.open.Load(); n != 0 {
			t.Fatalf("%d handlers never closed", n)
		}
		if _, err := qbclient.Dial(srv.name); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("got %v", err)
		}
		srv.Stop() // a second time
		silent.Close()
		c.Close()
		busy.Close()
	}
	testutil.NoMoreThan(t, before)
}

func TestANameIsTakenOnce(t *testing.T) {
	testutil.NoLeaks(t)
	srv := serve(t, nil)
	cfg := qb.Config{Name: srv.name, Accept: func(qb.Peer) (qb.Handler, error) { return nil, nil }}
	if _, err := qb.Start(cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	mustEcho(t, dial(t, srv.name), opEcho, pattern(10))
	srv.Stop()
	again, err := qb.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again.Stop()
}

func TestConfigIsChecked(t *testing.T) {
	accept := func(qb.Peer) (qb.Handler, error) { return nil, nil }
	for _, cfg := range []qb.Config{
		{Accept: accept},
		{Name: "x"},
		{Name: "x", Accept: accept, BufferSize: -1},
		{Name: "x", Accept: accept, BufferSize: 1<<30 + 1},
	} {
		if s, err := qb.Start(cfg); err == nil {
			s.Stop()
			t.Errorf("started with %+v", cfg)
		}
	}
}
