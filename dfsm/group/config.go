package group

import (
	"errors"
	"log/slog"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group/transport"
)

// Config of a Group. Connect and App are needed.
type Config struct {
	// Version, Checksums and MaxQueued are the machine's.
	Version   uint32
	Checksums bool
	MaxQueued int
	// App is called by the goroutine of Run; its ModeChanged and Cleanup also by one in
	// a Begin, Post or Call that ends the membership; never by two at a time. Checksums
	// are computed in another goroutine.
	App dfsm.Application
	// Connect makes a new connection, not joined yet.
	Connect func() (transport.Conn, error)
	// Ready, if not nil, is asked before each join; while it fails the group
	// is not joined, and it is asked again after Backoff.
	Ready func() error
	// Backoff is the least time between two attempts to connect or join; 0 means 5 s.
	Backoff time.Duration
	// Patience is how long after New it is no trouble, and logged for debugging only,
	// that the group could not be joined yet; it ends with the first join. 0 means none.
	Patience time.Duration
	// RetryAfter is how long to wait when the group's queues are full; 0 means 500 µs.
	// It doubles, up to 20 ms, while they stay so.
	RetryAfter time.Duration
	// Synced, if not nil, is called by the goroutine of Run at the end of each sync
	// that leaves this node in step, with what began it and how long it took from
	// the membership change on. It must not wait.
	Synced func(reason SyncReason, took time.Duration)
	// Key, if not nil, returns what a posted message is about, "" if nothing: of those that
	// are about the same, only the newest need be sent. It is called by Post.
	Key func(subtype uint16, payload []byte) string
	// Logger gets the machine's lines and the driver's; nil means nowhere.
	Logger *slog.Logger
}

const (
	defaultBackoff    = 5 * time.Second
	defaultRetryAfter = 500 * time.Microsecond
	maxRetryAfter     = 20 * time.Millisecond
	// idle is how long to sleep at most when nothing happens: the machine
	// wants to know the time now and then.
	idle = 30 * time.Second
	// leaveTimeout is how long to wait for our own leaving to be delivered
	// before the connection is closed instead.
	leaveTimeout = 5 * time.Second
	// stopTimeout likewise, when the daemon stops.
	stopTimeout = 2 * time.Second
	// turn is how many messages of a kind are sent before it is the other
	// kind's turn, and then the deliveries'.
	turn = 64
)

func (c *Config) complete() error {
	if c.App == nil || c.Connect == nil {
		return errors.New("group: config needs App and Connect")
	}
	if c.Backoff == 0 {
		c.Backoff = defaultBackoff
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = defaultRetryAfter
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
