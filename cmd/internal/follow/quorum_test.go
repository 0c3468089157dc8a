package follow

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/corosync/votequorum"
)

type fakeQuorum struct{ *fakeConn[votequorum.Event] }

func (c fakeQuorum) TrackStart() error { return c.fails }

func quorumEvent(quorate bool) []votequorum.Event {
	return []votequorum.Event{{Quorum: &votequorum.Quorum{Quorate: quorate}}}
}

// quorumBench runs a watch whose connections a test makes.
type quorumBench struct {
	dialer[quorumConn]
	log  *logText
	work *Worker
	got  list[bool]
}

func startQuorumBench(connect func() (quorumConn, error)) *quorumBench {
	b := &quorumBench{dialer: dialer[quorumConn]{make: connect}}
	log, logger := newLogText()
	b.log = log
	w := &quorumWatch{
		connect: b.dial,
		report:  b.got.add,
		log:     logger,
		trouble: trouble{log: logger, what: "no connection"},
	}
	b.work = Start("quorum", w.run)
	return b
}

func TestQuorumIsReportedAtEachChangeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fakeQuorum{newFakeConn[votequorum.Event]()}
		b := startQuorumBench(func() (quorumConn, error) { return c, nil })
		synctest.Wait()
		if b.got.all() != nil {
			t.Errorf("reported before corosync said anything: %v", b.got.all())
		}
		c.batches <- quorumEvent(false)
		c.batches <- quorumEvent(true)
		c.batches <- []votequorum.Event{{NodeList: &votequorum.NodeList{}}}
		c.batches <- quorumEvent(true)
		c.batches <- slices.Concat(quorumEvent(false), quorumEvent(true))
		c.batches <- quorumEvent(false)
		synctest.Wait()
		if want := []bool{true, false, true, false}; !slices.Equal(b.got.all(), want) {
			t.Errorf("%v, want %v", b.got.all(), want)
		}
		if h, l := b.log.count("node has quorum"), b.log.count("node lost quorum"); h != 2 || l != 2 {
			t.Errorf("log: %s", b.log)
		}
		if err := Close(b.work); err != nil {
			t.Error(err)
		}
		c.wantClosed(t)
	})
}

func TestQuorumIsLostWithTheConnectionAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns list[fakeQuorum]
		b := startQuorumBench(func() (quorumConn, error) {
			c := fakeQuorum{newFakeConn[votequorum.Event]()}
			c.batches <- quorumEvent(true)
			conns.add(c)
			return c, nil
		})
		synctest.Wait()
		close(conns.all()[0].lost)
		synctest.Wait()
		// The fake may have lost the connection before it told of the quorum.
		if b.got.last() {
			t.Errorf("still quorate: %v", b.got.all())
		}
		conns.all()[0].wantClosed(t)
		if len(conns.all()) != 1 {
			t.Error("reconnected at once")
		}
		time.Sleep(ReconnectAfter)
		synctest.Wait()
		if len(conns.all()) != 2 || !b.got.last() {
			t.Errorf("%d connections, %v", len(conns.all()), b.got.all())
		}
		if err := Close(b.work); err != nil {
			t.Error(err)
		}
		conns.all()[1].wantClosed(t)
		if !b.got.last() {
			t.Error("stopping is reported as loss of quorum")
		}
	})
}

func TestQuorumWaitsForCorosyncAndComplainsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startQuorumBench(func() (quorumConn, error) { return nil, fmt.Errorf("open: %w", corosync.ErrConnectionLost) })
		time.Sleep(10*ReconnectAfter + time.Millisecond)
		tries := b.fail(errors.New("something else"))
		if tries != 11 || b.log.count("no connection") != 1 {
			t.Errorf("%d attempts; log: %s", tries, b.log)
		}
		time.Sleep(2 * ReconnectAfter)
		busy := &corosync.Error{Op: "votequorum_initialize", Code: corosync.ErrTryAgain}
		tries = b.fail(busy)
		if b.log.count("no connection") != 2 || b.log.count("something else") != 1 {
			t.Errorf("log: %s", b.log)
		}
		// Busy is soon over.
		time.Sleep(ReconnectAfter + 5*busyAfter)
		c := fakeQuorum{newFakeConn[votequorum.Event]()}
		c.fails = errors.New("no tracking")
		if n := b.set(func() (quorumConn, error) { return c, nil }) - tries; n < 5 {
			t.Errorf("%d attempts while busy", n)
		}
		time.Sleep(busyAfter + time.Millisecond)
		b.fail(busy)
		c.wantClosed(t)
		if err := Close(b.work); err != nil {
			t.Error(err)
		}
	})
}
