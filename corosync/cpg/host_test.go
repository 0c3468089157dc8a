package cpg_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cpg"
	"pmxcfs/corosync/internal/conntest"
)

// TestOnOneHost runs its parts on a host that has a corosync for itself.
func TestOnOneHost(t *testing.T) {
	if !lab.Inside() {
		lab.New(t, 1).Host(1).RunSelf(t)
		return
	}
	t.Run("MessagesComeBackWholeAndInOrder", testMessagesComeBack)
	t.Run("GroupNameOnTheWireEndsInNUL", testGroupNameNUL)
	t.Run("BadGroupNamesAreRefused", testBadGroupNames)
	t.Run("FloodIsToldToTryAgainAndLosesNothing", testFlood)
	t.Run("SendersMayBeConcurrent", testConcurrentSenders)
	t.Run("LeaveIsTheLastEventAndANewConnectionJoins", testLeave)
	t.Run("SeveralConnectionsOfOneProcess", testSeveralConnections)
	t.Run("ConnectionsAreOpenedAndClosedAtTheSameTime", testConcurrentOpens)
	t.Run("CallsTellNodeAndLimits", testCalls)
	t.Run("ClosedConnectionRefusesEverything", testClosed)
	t.Run("NextWakesAndTimesOut", testWakeAndTimeout)
	t.Run("OpenAndCloseLeakNothing", testLeaks)
}

var me = corosync.Member{Node: 1, PID: uint32(os.Getpid())}

func open(t testing.TB) *cpg.Conn {
	t.Helper()
	var c *cpg.Conn
	err := conntest.Retry(func() (err error) { c, err = cpg.Open(); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// join joins and takes the events up to its own joining.
func join(t testing.TB, c *cpg.Conn, group string) {
	t.Helper()
	if err := conntest.Retry(func() error { return c.Join(group) }); err != nil {
		t.Fatal(err)
	}
	for {
		for _, e := range next(t, c) {
			if e.Change != nil && len(e.Change.Joined) > 0 && e.Change.Joined[0].Member == me {
				return
			}
		}
	}
}

func next(t testing.TB, c *cpg.Conn) []cpg.Event {
	t.Helper()
	const patience = 30 * time.Second
	for begin := time.Now(); ; {
		events, err := c.Next(nil, patience)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > 0 {
			return events
		}
		if time.Since(begin) > patience {
			t.Fatal("no event")
		}
	}
}

// receive takes n messages.
func receive(t testing.TB, c *cpg.Conn, n int) [][]byte {
	t.Helper()
	var got [][]byte
	for len(got) < n {
		for _, e := range next(t, c) {
			if e.Change != nil {
				t.Fatalf("unexpected %s", changeText(e.Change))
			}
			if e.Sender != me {
				t.Fatalf("message from %v, not %v", e.Sender, me)
			}
			got = append(got, e.Data)
		}
	}
	return got
}

func testMessagesComeBack(t *testing.T) {
	c := open(t)
	join(t, c, testGroup)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	sizes := []int{0, 1, 100, 4095, 4096, 4097, 65536, 1<<20 - 1024, 1<<20 + 1, 3<<20 + 7}
	for range 300 {
		sizes = append(sizes, rnd.IntN(9000))
	}
	var want, got [][]byte
	for _, size := range sizes {
		msg := make([]byte, size)
		for i := range msg {
			msg[i] = byte(rnd.Uint32())
		}
		var parts [][]byte // 1 to 6 of any size
		rest := msg
		for range rnd.IntN(6) {
			n := rnd.IntN(len(rest) + 1)
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		parts = append(parts, rest)
		if err := conntest.Retry(func() error { return c.Mcast(parts...) }); err != nil {
			t.Fatal(err)
		}
		want = append(want, msg)
		if rnd.IntN(10) == 0 || size > 1<<20 {
			got = append(got, receive(t, c, len(want)-len(got))...)
		}
	}
	got = append(got, receive(t, c, len(want)-len(got))...)
	// Compared at the end: nothing that was given out may have been written
	// since. Writing to one must not change its neighbours.
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("message %d: %d bytes, want %d, or their content differs", i, len(got[i]), len(want[i]))
		}
		clear(got[i])
		_ = append(got[i], "overrun"...)
	}
	if err := c.Mcast(); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, c, 1); len(m[0]) != 0 {
		t.Errorf("a message without parts has %d bytes", len(m[0]))
	}
}

func testGroupNameNUL(t *testing.T) {
	c := open(t)
	join(t, c, testGroup)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "corosync-cpgtool", "-e").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := testGroup + "\x00"; !strings.Contains(string(out), want) {
		t.Errorf("no group %q in:\n%s", want, out)
	}
	got, err := c.Membership(testGroup)
	if err != nil || memberText(got) != me.String() {
		t.Errorf("members %v, %v", got, err)
	}
	if got, err := c.Membership(testGroup + "x"); err != nil || len(got) > 0 {
		t.Errorf("members of a group that isn't there: %v, %v", got, err)
	}
}

func testBadGroupNames(t *testing.T) {
	c := open(t)
	for name, want := range map[string]corosync.Code{
		"":                                      corosync.ErrInvalidParam,
		"a\x00b":                                corosync.ErrInvalidParam,
		strings.Repeat("x", cpg.MaxGroupName+1): corosync.ErrNameTooLong,
	} {
		if err := c.Join(name); !errors.Is(err, want) {
			t.Errorf("join %q: %v", name, err)
		}
		if err := c.Leave(name); !errors.Is(err, want) {
			t.Errorf("leave %q: %v", name, err)
		}
		if _, err := c.Membership(name); !errors.Is(err, want) {
			t.Errorf("membership of %q: %v", name, err)
		}
	}
	longest := strings.Repeat("x", cpg.MaxGroupName)
	join(t, c, longest)
}

func testFlood(t *testing.T) {
	c := open(t)
	join(t, c, testGroup)
	msg := make([]byte, 64<<10)
	sent := 0
	for limit := 64 << 20 / len(msg); ; {
		copy(msg, fmt.Sprintf("%08d", sent))
		err := c.Mcast(msg)
		if errors.Is(err, corosync.ErrTryAgain) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if sent++; sent == limit {
			t.Fatalf("%d messages outstanding and no ErrTryAgain", sent)
		}
	}
	t.Logf("ErrTryAgain with %d KiB outstanding", sent*len(msg)>>10)
	check := func(from, n int) {
		for i, m := range receive(t, c, n) {
			if want := fmt.Sprintf("%08d", from+i); string(m[:8]) != want {
				t.Fatalf("message %q, want %s", m[:8], want)
			}
		}
	}
	check(0, sent)
	copy(msg, fmt.Sprintf("%08d", sent))
	if err := conntest.Retry(func() error { return c.Mcast(msg) }); err != nil {
		t.Fatal(err)
	}
	check(sent, 1)
	if on, err := c.FlowControlled(); err != nil || on {
		t.Errorf("flow control with nothing outstanding: %v, %v", on, err)
	}
}

func testConcurrentSenders(t *testing.T) {
	c := open(t)
	join(t, c, testGroup)
	const senders, each = 16, 300
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if err := conntest.Retry(func() error { return c.Mcast([]byte{byte(s)}, []byte{byte(i), byte(i >> 8)}) }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var seen [senders]int
	for _, m := range receive(t, c, senders*each) {
		s, i := m[0], int(m[1])|int(m[2])<<8
		if seen[s] != i {
			t.Fatalf("sender %d: message %d where %d is due", s, i, seen[s])
		}
		seen[s]++
	}
	wg.Wait()
}

func testLeave(t *testing.T) {
	for range 3 {
		c := open(t)
		if err := c.Leave(testGroup); !errors.Is(err, corosync.ErrNotExist) {
			t.Errorf("leave before join: %v", err)
		}
		join(t, c, testGroup)
		if err := c.Mcast([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := conntest.Retry(func() error { return c.Leave(testGroup) }); err != nil {
			t.Fatal(err)
		}
		var got []string
		for len(got) < 2 {
			for _, e := range next(t, c) {
				if e.Change != nil {
					got = append(got, changeText(e.Change))
				} else {
					got = append(got, string(e.Data))
				}
			}
		}
		want := fmt.Sprintf("[last words conf members= left=%v:leave joined=]", me)
		if fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
		// The library would not come back from these.
		if err := c.Leave(testGroup); !errors.Is(err, corosync.ErrNotExist) {
			t.Errorf("leave again: %v", err)
		}
		for _, group := range []string{testGroup, "another"} {
			if err := c.Join(group); !errors.Is(err, corosync.ErrExist) {
				t.Errorf("join %s again: %v", group, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func testSeveralConnections(t *testing.T) {
	a, b := open(t), open(t)
	join(t, a, "group a")
	join(t, b, "group b")
	for range 10 {
		for c, text := range map[*cpg.Conn]string{a: "to a", b: "to b"} {
			if err := c.Mcast([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, c, 1); string(got[0]) != text {
				t.Errorf("%q arrived as %q", text, got)
			}
		}
	}
}

// testConcurrentOpens has several goroutines open connections at the same moment, use
// and close them: libcpg alone gives two of them one place in its table now and then.
func testConcurrentOpens(t *testing.T) {
	for round := range 60 {
		begin := make(chan struct{})
		var all sync.WaitGroup
		for g := range 6 {
			all.Go(func() {
				<-begin
				var c *cpg.Conn
				err := conntest.Retry(func() (err error) { c, err = cpg.Open(); return err })
				if err != nil {
					t.Errorf("opening: %v", err)
					return
				}
				defer c.Close()
				group := fmt.Sprintf("opens-%d-%d", round, g)
				if err := conntest.Retry(func() error { return c.Join(group) }); err != nil {
					t.Errorf("joining: %v", err)
				}
				if _, err := c.Next(nil, 0); err != nil {
					t.Errorf("dispatching: %v", err)
				}
				if err := c.Close(); err != nil {
					t.Errorf("closing: %v", err)
				}
			})
		}
		close(begin)
		all.Wait()
	}
}

func testCalls(t *testing.T) {
	c := open(t)
	if id, err := c.LocalNodeID(); err != nil || id != 1 {
		t.Errorf("local node id %d, %v", id, err)
	}
	if n, err := c.MaxAtomicSize(); err != nil || n < 1<<16 || n > 1<<24 {
		t.Errorf("largest atomic message %d, %v", n, err)
	}
}

func testClosed(t *testing.T) {
	c := open(t)
	join(t, c, testGroup)
	ended := make(chan error)
	go func() {
		_, err := c.Next(nil, cpg.Forever)
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, corosync.ErrClosed) {
		t.Errorf("waiting Next: %v", err)
	}
	_, nextErr := c.Next(nil, cpg.Forever)
	_, idErr := c.LocalNodeID()
	_, flowErr := c.FlowControlled()
	_, memberErr := c.Membership(testGroup)
	for _, err := range []error{nextErr, idErr, flowErr, memberErr, c.Join("x"), c.Leave("x"), c.Mcast(nil)} {
		if !errors.Is(err, corosync.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func testWakeAndTimeout(t *testing.T) {
	c := open(t)
	for _, timeout := range []time.Duration{0, 5 * time.Millisecond} {
		begin := time.Now()
		if events, err := c.Next(nil, timeout); err != nil || len(events) > 0 || time.Since(begin) < timeout {
			t.Errorf("timeout %v: %v, %v after %v", timeout, events, err, time.Since(begin))
		}
	}
	c.Wake()
	if events, err := c.Next(nil, cpg.Forever); err != nil || len(events) > 0 {
		t.Errorf("woken: %v, %v", events, err)
	}
	join(t, c, testGroup)
	if err := c.Mcast([]byte("x")); err != nil {
		t.Fatal(err)
	}
	kept := []cpg.Event{{Data: []byte("kept")}}
	for len(kept) < 2 {
		var err error
		if kept, err = c.Next(kept, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if string(kept[0].Data) != "kept" || string(kept[1].Data) != "x" {
		t.Errorf("appended to: %+v", kept)
	}
}

func testLeaks(t *testing.T) {
	conntest.Connections(t, func() *cpg.Conn {
		c, err := cpg.Open()
		if err != nil {
			t.Fatal(err)
		}
		join(t, c, testGroup)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				if _, err := c.Next(nil, cpg.Forever); err != nil {
					return
				}
			}
		}()
		if err := c.Mcast([]byte("message")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
		return c
	})
}

func TestOpenWithoutCorosync(t *testing.T) {
	if !lab.Inside() {
		lab.NewWith(t, lab.Options{Hosts: 1, NoCorosync: true}).Host(1).RunSelf(t)
		return
	}
	for range 50 {
		if c, err := cpg.Open(); !errors.Is(err, corosync.ErrConnectionLost) {
			t.Fatalf("%v, %v", c, err)
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds) > 30 {
		t.Errorf("%d descriptors, %v", len(fds), err)
	}
}
