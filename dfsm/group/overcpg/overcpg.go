package overcpg

import (
	"errors"
	"os"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/corosync/cpg"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/transport"
)

// Connect returns a function for group.Config.Connect: it connects to corosync,
// for the group of this name, which corosync sees with a NUL byte at its end.
func Connect(name string) func() (transport.Conn, error) {
	return func() (transport.Conn, error) {
		c, err := cpg.Open()
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c, name: name}, nil
	}
}

// conn is one connection. Wake and Close are the cpg.Conn's.
type conn struct {
	*cpg.Conn
	name   string
	events []cpg.Event // Next's, reused
}

func (c *conn) Self() (dfsm.Member, error) {
	id, err := c.LocalNodeID()
	return dfsm.Member{Node: id, PID: uint32(os.Getpid())}, tryAgain(err)
}

func (c *conn) Join() error  { return tryAgain(c.Conn.Join(c.name)) }
func (c *conn) Leave() error { return tryAgain(c.Conn.Leave(c.name)) }

func (c *conn) Mcast(msg []byte) error { return tryAgain(c.Conn.Mcast(msg)) }

// tryAgain turns corosync's code into the driver's error.
func tryAgain(err error) error {
	if err != nil && errors.Is(err, corosync.ErrTryAgain) {
		return transport.ErrTryAgain
	}
	return err
}

func (c *conn) Next(into []transport.Event, timeout time.Duration) ([]transport.Event, error) {
	events, err := c.Conn.Next(c.events[:0], timeout)
	for i := range events {
		e := &events[i]
		if e.Change == nil {
			into = append(into, transport.Event{Deliver: dfsm.Deliver{From: e.Sender, Bytes: e.Data}})
			continue
		}
		into = append(into, transport.Event{View: &dfsm.View{Members: e.Change.Members, Joined: len(e.Change.Joined) > 0}})
	}
	clear(events)
	c.events = events
	return into, tryAgain(err)
}
