package votequorum_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync"
	"pmxcfs/corosync/internal/conntest"
	"pmxcfs/corosync/votequorum"
)

const watchEnv = "VOTEQUORUM_TEST_WATCH"

func TestMain(m *testing.M) {
	if os.Getenv(watchEnv) != "" {
		watch()
		return
	}
	os.Exit(m.Run())
}

// watch tells all events until the connection is lost.
func watch() {
	c, err := conntest.Open(votequorum.Open)
	if err == nil {
		err = c.TrackStart()
	}
	var events []votequorum.Event
	for err == nil {
		events, err = c.Next(events[:0], votequorum.Forever)
		for _, e := range events {
			fmt.Println(eventText(e))
		}
	}
	fmt.Printf("ended, lost: %v\n", errors.Is(err, corosync.ErrConnectionLost))
}

func eventText(e votequorum.Event) string {
	switch {
	case e.Quorum != nil:
		var s []string
		for _, n := range e.Quorum.Nodes {
			s = append(s, fmt.Sprintf("%d:%v", n.ID, n.State))
		}
		slices.Sort(s) // corosync's order isn't one
		return fmt.Sprintf("quorate=%v %s", e.Quorum.Quorate, strings.Join(s, ","))
	case e.NodeList != nil:
		return fmt.Sprintf("nodes=%v", slices.Sorted(slices.Values(e.NodeList.Nodes)))
	default:
		return fmt.Sprintf("expected=%d", *e.ExpectedVotes)
	}
}

func TestQuorumIsLostAndFoundWithTheNetwork(t *testing.T) {
	l := lab.New(t, 3)
	_, out := l.Host(1).StartSelf(t, nil, []string{watchEnv + "=1"}, nil)
	if err := out.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	expect := func(lines ...string) { // in this order, others in between
		t.Helper()
		var got []string
		for _, want := range lines {
			for {
				if !in.Scan() {
					t.Fatalf("no %q: %v; got %q", want, in.Err(), got)
				}
				got = append(got, in.Text())
				if in.Text() == want {
					break
				}
			}
		}
	}
	expect("quorate=true 1:member,2:member,3:member")
	if err := l.Cut(1); err != nil {
		t.Fatal(err)
	}
	expect("nodes=[1]", "quorate=false 1:member,2:dead,3:dead")
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	expect("nodes=[1 2 3]", "quorate=true 1:member,2:member,3:member")
	if err := l.Host(3).KillCorosync(); err != nil {
		t.Fatal(err)
	}
	expect("nodes=[1 2]", "quorate=true 1:member,2:member,3:dead")
	if err := l.Host(1).KillCorosync(); err != nil {
		t.Fatal(err)
	}
	expect("ended, lost: true")
}

func TestOnOneHost(t *testing.T) {
	if !lab.Inside() {
		lab.New(t, 1).Host(1).RunSelf(t)
		return
	}
	t.Run("TrackingBeginsWithThePresentState", testTrack)
	t.Run("InfoTellsVotes", testInfo)
	t.Run("ClosedConnectionRefusesEverything", testClosed)
	t.Run("OpenAndCloseLeakNothing", func(t *testing.T) {
		conntest.Connections(t, func() *votequorum.Conn {
			c, err := conntest.Open(votequorum.Open)
			if err != nil {
				t.Fatal(err)
			}
			nextQuorum(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return c
		})
	})
}

// nextQuorum starts tracking and gives the first Quorum.
func nextQuorum(t *testing.T, c *votequorum.Conn) *votequorum.Quorum {
	t.Helper()
	if err := c.TrackStart(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		events, err := c.Next(nil, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Quorum != nil {
				return e.Quorum
			}
		}
	}
	t.Fatal("no event")
	return nil
}

func testTrack(t *testing.T) {
	c, err := conntest.Open(votequorum.Open)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := nextQuorum(t, c)
	if got := eventText(votequorum.Event{Quorum: q}); got != "quorate=true 1:member" {
		t.Error(got)
	}
	if err := c.TrackStop(); err != nil {
		t.Error(err)
	}
}

func testInfo(t *testing.T) {
	c, err := conntest.Open(votequorum.Open)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, node := range []corosync.NodeID{0, 1} {
		i, err := c.GetInfo(node)
		if err != nil || i.Node != 1 || i.State != votequorum.StateMember || i.Votes != 1 || i.ExpectedVotes != 1 ||
			i.TotalVotes != 1 || i.Quorum != 1 || !i.Quorate() || i.QDeviceName != "" {
			t.Errorf("node %d: %+v, %v", node, i, err)
		}
	}
	if i, err := c.GetInfo(77); !errors.Is(err, corosync.ErrNotExist) {
		t.Errorf("a node that isn't there: %+v, %v", i, err)
	}
}

func testClosed(t *testing.T) {
	c, err := conntest.Open(votequorum.Open)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := c.Next(nil, votequorum.Forever)
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	_, infoErr := c.GetInfo(0)
	for _, err := range []error{<-ended, infoErr, c.TrackStart(), c.TrackStop()} {
		if !errors.Is(err, corosync.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
}

func TestOpenWithoutCorosync(t *testing.T) {
	if !lab.Inside() {
		lab.NewWith(t, lab.Options{Hosts: 1, NoCorosync: true}).Host(1).RunSelf(t)
		return
	}
	if c, err := votequorum.Open(); !errors.Is(err, corosync.ErrConnectionLost) {
		t.Fatalf("%v, %v", c, err)
	}
}
