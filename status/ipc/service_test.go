package ipc

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/status/clusterlog"
)

const patience = 20 * time.Second

// start serves s under a name of its own. Clients of this process have full access, so it
// needs root.
func start(t testing.TB, s *site) string {
	t.Helper()
	cfg := s.config()
	cfg.Name = qbtest.Name()
	startWith(t, cfg)
	return cfg.Name
}

func startWith(t testing.TB, cfg Config) *Service {
	t.Helper()
	if os.Geteuid() != 0 || os.Getegid() != 0 {
		t.Skip("needs root: full access is uid 0 with gid 0")
	}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func dial(t testing.TB, name string) *qbclient.Client {
	t.Helper()
	c, err := qbclient.Dial(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ask returns the answer's data and its errno; a failure of the connection fails the test.
func ask(t testing.TB, c *qbclient.Client, op int32, data []byte) ([]byte, syscall.Errno) {
	t.Helper()
	out, err := c.SendRecv(op, data, patience)
	var re *qbclient.ResponseError
	if errors.As(err, &re) {
		return out, re.Errno
	}
	if err != nil {
		t.Fatal(err)
	}
	return out, 0
}

func TestEveryOpAndItsErrorsOverLibqb(t *testing.T) {
	testutil.NoLeaks(t)
	site := sampleSite(t)
	c := dial(t, start(t, site))
	for _, s := range samples() {
		if s.op == -3 {
			continue // libqb's own: disconnect
		}
		site.setSampleValues(t)
		out, errno := ask(t, c, s.op, s.data)
		if errno != s.full || errno == 0 && string(out) != s.answer(site) || errno != 0 && len(out) > 0 {
			t.Errorf("%s: got %q, %v, want %q, %v", s.name, out, errno, s.answer(site), s.full)
		}
	}
}

func TestReadOnlyClients(t *testing.T) {
	testutil.NoLeaks(t)
	site := sampleSite(t)
	name := start(t, site)
	peer := qbtest.Build(t)
	for _, as := range []*qbtest.As{{Uid: 33, Gid: testGID}, {Uid: 0, Gid: testGID}, {Uid: 1000, Gid: testGID}} {
		p := peer.Connect(t, name, 0, as)
		if p.Refused != 0 {
			t.Fatalf("uid %d: %v", as.Uid, p.Refused)
		}
		for _, s := range samples() {
			p.Send(s.op, s.data)
			r := p.Recv(patience)
			want := qbtest.Reply{ID: s.op, Errno: s.ro}
			if s.ro == 0 {
				want.Data = s.answer(site)
			}
			if r != want {
				t.Errorf("%s as uid %d: got %+v, want %+v", s.name, as.Uid, r, want)
			}
		}
		p.Close()
	}
	if values, logged := site.group.count(); values > 0 || logged > 0 {
		t.Error("a read-only client changed something")
	}
}

func TestReadOnlyClientsCantKeepRootOut(t *testing.T) {
	testutil.NoLeaks(t)
	cfg := newSite(t).config()
	cfg.Name = qbtest.Name()
	cfg.MaxConns = 4
	s := startWith(t, cfg)
	peer := qbtest.Build(t)
	www := &qbtest.As{Uid: 33, Gid: testGID}
	var first *qbtest.Client
	for i := range 3 {
		p := peer.Connect(t, cfg.Name, 0, www)
		if p.Refused != 0 {
			t.Fatalf("client %d: %v", i, p.Refused)
		}
		if first == nil {
			first = p
		}
	}
	if p := peer.Connect(t, cfg.Name, 0, www); p.Refused != syscall.EAGAIN {
		t.Fatalf("got %v", p.Refused)
	}
	dial(t, cfg.Name)
	if full, readOnly := s.Clients(); full != 1 || readOnly != 3 {
		t.Fatalf("%d, %d clients", full, readOnly)
	}
	first.Close()
	testutil.WaitFor(t, "closed", func() bool { _, n := s.Clients(); return n == 2 })
	if p := peer.Connect(t, cfg.Name, 0, www); p.Refused != 0 {
		t.Fatal(p.Refused)
	}
}

func TestRefusedUsers(t *testing.T) {
	testutil.NoLeaks(t)
	var mu sync.Mutex
	var log bytes.Buffer
	cfg := newSite(t).config()
	cfg.Name = qbtest.Name()
	cfg.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	startWith(t, cfg)
	peer := qbtest.Build(t)
	for _, as := range []*qbtest.As{
		{Uid: 1000, Gid: 1000}, {Uid: 1000, Gid: 0}, {Uid: 0, Gid: 1000}, {Uid: 33, Gid: 1000},
		// The effective group counts, not the others.
		{Uid: 1000, Gid: 1000, Groups: []uint32{0, testGID}},
	} {
		p := peer.Connect(t, cfg.Name, 0, as)
		if p.Refused != syscall.EACCES {
			t.Errorf("uid %d, gid %d: %v", as.Uid, as.Gid, p.Refused)
		}
		want := fmt.Sprintf("uid=%d gid=%d pid=%d", as.Uid, as.Gid, p.PID())
		mu.Lock()
		if !strings.Contains(log.String(), want) {
			t.Errorf("no log line with %q in %q", want, log.String())
		}
		mu.Unlock()
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func TestTheClientsPIDIsLogged(t *testing.T) {
	testutil.NoLeaks(t)
	site := newSite(t)
	name := start(t, site)
	p := qbtest.Build(t).Connect(t, name, 0, nil)
	p.Send(OpLog, cat(6, 5, 4, "root", 0, "tag", 0, "message", 0))
	if r := p.Recv(patience); r != (qbtest.Reply{ID: OpLog}) {
		t.Fatalf("got %+v", r)
	}
	if e := site.log(t)[0]; e.PID != uint32(p.PID()) {
		t.Fatalf("pid %d, want %d", e.PID, p.PID())
	}
}

func TestAnswersAroundTheLargest(t *testing.T) {
	testutil.NoLeaks(t)
	const most = 1<<20 - 24
	site := newSite(t)
	largest := strings.Repeat("m", most)
	site.write(t, "most", largest)
	site.write(t, "more", largest+"m")
	site.write(t, "full", strings.Repeat("m", 1<<20))
	site.write(t, confOf(100), "name: "+strings.Repeat("x", 1<<20-6))
	for vmid := range uint32(20_000) {
		site.apply(t, memdb.Op{Kind: memdb.OpCreate, Path: confOf(1000 + vmid)})
	}
	c := dial(t, start(t, site))
	if out, errno := ask(t, c, OpGetConfig, cat("most", 0)); errno != 0 || string(out) != largest {
		t.Errorf("%d bytes, %v", len(out), errno)
	}
	for _, path := range []string{"more", "full"} {
		if out, errno := ask(t, c, OpGetConfig, cat(path, 0)); errno != syscall.EMSGSIZE {
			t.Errorf("%s: %d bytes, %v", path, len(out), errno)
		}
	}
	if _, errno := ask(t, c, OpGuestList, nil); errno != syscall.EMSGSIZE {
		t.Errorf("guest list: %v", errno)
	}
	if _, errno := ask(t, c, OpGuestProperty, cat(u(0), "name", 0)); errno != syscall.EMSGSIZE {
		t.Errorf("properties: %v", errno)
	}
	// The connection is as good as before.
	if out, errno := ask(t, c, OpVersion, nil); errno != 0 || len(out) == 0 {
		t.Errorf("version: %q, %v", out, errno)
	}
}

func TestRequestsOfTheLargestSize(t *testing.T) {
	testutil.NoLeaks(t)
	const most = 1<<20 - 16
	site := newSite(t)
	c := dial(t, start(t, site))
	filler := func(head []byte) []byte {
		return append(head, append(bytes.Repeat([]byte{'x'}, most-len(head)-1), 0)...)
	}
	for _, s := range []struct {
		op    int32
		head  []byte
		errno syscall.Errno
	}{
		{OpVersion, nil, einval},
		{OpSetStatus, name256("k"), syscall.EFBIG},
		{OpGetStatus, cat(name256("k"), name256("")), enoent},
		{OpGetConfig, nil, enoent},
		{OpLog, cat(6, 2, 2, "r", 0, "t", 0), 0},
		{OpGetLog, make([]byte, 16), 0},
		{OpGuestProperty, cat(u(0)), 0},
		{OpVerifyToken, nil, enoent},
		{OpGuestProperties, cat(u(0), 1), 0},
		{14, nil, syscall.ECHRNG},
	} {
		if _, errno := ask(t, c, s.op, filler(bytes.Clone(s.head))); errno != s.errno {
			t.Errorf("op %d: %v, want %v", s.op, errno, s.errno)
		}
	}
	if n := len(site.log(t)[0].Msg); n < clusterlog.MaxEntrySize-100 {
		t.Errorf("message of %d bytes", n)
	}
}

func TestGarbageIsAnsweredAndHarmsNobody(t *testing.T) {
	testutil.NoLeaks(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	site := sampleSite(t)
	name := start(t, site)
	other := dial(t, name)
	p := qbtest.Build(t).Connect(t, name, 0, nil)
	valid := samples()
	for i := range 2000 {
		op := int32(rng.IntN(16))
		data := bytes.Clone(valid[rng.IntN(len(valid))].data)
		switch rng.IntN(4) {
		case 0: // a valid one, perhaps of another op, with a few bytes changed
			for range rng.IntN(4) {
				if len(data) > 0 {
					data[rng.IntN(len(data))] = byte(rng.Uint32())
				}
			}
		case 1: // cut
			data = data[:rng.IntN(len(data)+1)]
		case 2: // noise
			data = make([]byte, rng.IntN(5000))
			for j := range data {
				data[j] = byte(rng.Uint32())
			}
		case 3: // any number
			op = int32(rng.Uint32())
			if op == -3 {
				continue // libqb's own: disconnect
			}
		}
		claimed := 16 + len(data)
		if rng.IntN(3) == 0 {
			claimed += rng.IntN(200) - 100
		}
		if n, errno := p.SendRaw(op, claimed, data, 1); n != 1 {
			t.Fatalf("request %d: %v", i, errno)
		}
		r := p.Recv(patience)
		if r.Failed != 0 || r.ID != op || r.Errno != 0 && r.Data != "" {
			t.Fatalf("request %d, op %d: %+v", i, op, r)
		}
		if (claimed < 16 || claimed > 16+len(data)) && r.Errno != syscall.EINVAL {
			t.Fatalf("request %d claims %d of %d bytes: %+v", i, claimed, 16+len(data), r)
		}
	}
	if out, errno := ask(t, other, OpVersion, nil); errno != 0 || string(out) != string(site.store.Version()) {
		t.Fatalf("%q, %v", out, errno)
	}
}

func TestASetStatusThatHangsHoldsUpNobody(t *testing.T) {
	testutil.NoLeaks(t)
	site := newSite(t)
	site.group.hold = make(chan struct{})
	name := start(t, site)
	release := sync.OnceFunc(func() { close(site.group.hold) })
	t.Cleanup(release) // before the service stops, which waits for it
	hung, other := dial(t, name), dial(t, name)
	done := make(chan syscall.Errno, 1)
	go func() {
		_, errno := ask(t, hung, OpSetStatus, cat(name256("rrd/k"), "1", 0))
		done <- errno
	}()
	testutil.WaitFor(t, "set", func() bool { return site.group.held() == 1 })
	for range 50 {
		for _, op := range []int32{OpVersion, OpRRDDump} {
			if _, errno := ask(t, other, op, nil); errno != 0 {
				t.Fatal(errno)
			}
		}
	}
	release()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

func TestHundredClientsOfAllKinds(t *testing.T) {
	testutil.NoLeaks(t)
	site := sampleSite(t)
	large := strings.Repeat("0123456789abcdef", 1<<12)
	site.write(t, "large", large)
	name := start(t, site)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			c, err := qbclient.Dial(name)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for j := range 20 {
				key := fmt.Sprintf("k%d", i)
				want := fmt.Sprintf("v%d-%d", i, j)
				for _, r := range []struct {
					op   int32
					data []byte
					want string
				}{
					{OpGuestList, nil, string(site.store.VMList())},
					{OpSetStatus, cat(name256(key), want), ""},
					{OpGetStatus, cat(name256(key), name256("")), want},
					{OpGetConfig, cat("large", 0), large},
					{OpLog, cat(6, 2, 2, "r", 0, "t", 0, "m", 0), ""},
					{OpGuestProperty, cat(u(100), "name", 0), "{\n\"100\": {\"name\":\"web\"}\n}\n"},
					{OpVerifyToken, cat("root@pam!a 1-2", 0), ""},
				} {
					out, err := c.SendRecv(r.op, r.data, 2*patience)
					if err != nil || string(out) != r.want {
						t.Errorf("client %d, op %d: %d bytes, %v", i, r.op, len(out), err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if values, logged := site.group.count(); values != 2000 || logged != 2000 {
		t.Errorf("%d values set, %d entries logged", values, logged)
	}
}

func TestClientsThatDieInTheMiddle(t *testing.T) {
	testutil.NoLeaks(t)
	site := newSite(t)
	site.write(t, "full", strings.Repeat("x", 1<<20-24))
	site.group.hold = make(chan struct{})
	name := start(t, site)
	release := sync.OnceFunc(func() { close(site.group.hold) })
	t.Cleanup(release)
	other := dial(t, name)
	peer := qbtest.Build(t)
	for i := range 6 {
		p := peer.Connect(t, name, 0, nil)
		switch i % 3 {
		case 0: // while a request is in work
			p.Send(OpSetStatus, cat(name256("rrd/k"), "1", 0))
			testutil.WaitFor(t, "set", func() bool { return site.group.held() == i/3+1 })
		case 1: // with replies waiting for room
			p.SendRaw(OpGetConfig, 16+5, cat("full", 0), 10)
		case 2: // in a burst
			p.StartRaw(OpVersion, 16, nil, 100000)
		}
		p.Kill()
		if _, errno := ask(t, other, OpVersion, nil); errno != 0 {
			t.Fatal(errno)
		}
	}
	release()
	if _, errno := ask(t, other, OpSetStatus, cat(name256("rrd/k"), "1", 0)); errno != 0 {
		t.Fatal(errno)
	}
}

func TestClientsComeBackAfterARestart(t *testing.T) {
	testutil.NoLeaks(t)
	site := sampleSite(t)
	cfg := site.config()
	cfg.Name = qbtest.Name()
	flag := RestartFlag{Path: filepath.Join(t.TempDir(), "flag"), GID: testGID}
	s := startWith(t, cfg)

	// Clients do as Proxmox's do: when the service is gone and the flag is there, they try again.
	const clients, requests = 8, 300
	var wg sync.WaitGroup
	var progress [clients]chan struct{}
	for i := range clients {
		progress[i] = make(chan struct{}, requests)
		wg.Go(func() {
			var c *qbclient.Client
			defer func() {
				if c != nil {
					c.Close()
				}
			}()
			for done := 0; done < requests; {
				if c == nil {
					var err error
					if c, err = qbclient.Dial(cfg.Name); err != nil {
						if _, gone := os.Stat(flag.Path); gone != nil {
							// The flag goes after the service has come.
							if c, err = qbclient.Dial(cfg.Name); err != nil {
								t.Errorf("no service and no flag: %v", err)
								return
							}
						}
						continue
					}
				}
				out, err := c.SendRecv(OpGetConfig, cat("storage.cfg", 0), patience)
				if err != nil {
					if !errors.Is(err, qbclient.ErrDisconnected) {
						t.Error(err)
						return
					}
					c.Close()
					c = nil
					continue
				}
				if string(out) != "dir: local" {
					t.Errorf("got %q", out)
					return
				}
				done++
				progress[i] <- struct{}{}
			}
		})
	}
	for range 3 {
		for i := range progress {
			for range requests / 5 {
				<-progress[i]
			}
		}
		if err := flag.Set(); err != nil {
			t.Fatal(err)
		}
		s.Stop()
		s = startWith(t, cfg)
		if err := flag.Clear(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
